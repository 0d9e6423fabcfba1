"""Everything Dagster sees, assembled in one place."""

from __future__ import annotations

from dagster import Definitions, in_process_executor

from orders_dagster.assets import API, orders_assets
from orders_dagster.automation import (
    orders_alerts,
    orders_job,
    orders_schedule,
    orders_sensor,
    repair_job,
    replay_job,
)
from orders_dagster.checks import orders_checks
from orders_dagster.report.asset import orders_check_report
from orders_dagster.settings import read_initial_value, read_schedule


def build_defs(*, schedule: str | None = None) -> Definitions:
    """The definitions. Needs no secret and no network.

    Args:
        schedule: a cron expression instead of the one that is set.

    Raises:
        SettingsError: the schedule or the initial value that is set is none.
    """
    job = orders_job()
    jobs = [job, replay_job(read_initial_value()), repair_job()]
    checks = orders_checks()
    return Definitions(
        assets=[API, orders_assets(), orders_check_report(list(checks.check_specs))],
        asset_checks=[checks],
        jobs=jobs,
        schedules=[orders_schedule(job, schedule or read_schedule())],
        sensors=[orders_sensor(job), orders_alerts([one.name for one in jobs], checks.check_specs)],
        executor=in_process_executor,  # also for what is materialized by hand in the page
    )


defs = build_defs()
