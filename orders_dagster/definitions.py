"""Everything Dagster sees, assembled in one place."""

from __future__ import annotations

from dagster import Definitions, in_process_executor

from orders_dagster import replay
from orders_dagster.assets import API, orders_assets
from orders_dagster.automation import (
    orders_alerts,
    orders_job,
    orders_schedule,
    orders_sensor,
)
from orders_dagster.checks import orders_checks
from orders_dagster.report.asset import orders_check_report
from orders_dagster.settings import read_freshness, read_initial_value, read_schedule


def build_defs(*, schedule: str | None = None) -> Definitions:
    """The definitions. Needs no secret and no network.

    Args:
        schedule: a cron expression instead of the one that is set.

    Raises:
        SettingsError: the schedule, the initial value or the freshness that is set is none.
    """
    job = orders_job()
    checks = orders_checks()
    specs = list(checks.check_specs)
    again = replay.jobs(read_initial_value(), specs)
    return Definitions(
        assets=[API, orders_assets(read_freshness()), orders_check_report(specs)],
        asset_checks=[checks],
        jobs=[job, *again],
        schedules=[orders_schedule(job, schedule or read_schedule())],
        sensors=[
            orders_sensor(job),
            orders_alerts([job.name, *(one.name for one in again)], checks.check_specs),
        ],
        executor=in_process_executor,  # also for what is materialized by hand in the page
    )


defs = build_defs()
