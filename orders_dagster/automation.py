"""When the asset is materialized: the job, the schedule, and the sensor that asks the API. And who is
told what went wrong: the sensor that sends alerts.

Neither the schedule nor a sensor opens the warehouse: the watermark comes from the records of the
last materialization. Neither starts a run while one is queued or running.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from dagster import (
    AssetCheckSpec,
    AssetSelection,
    DagsterInstance,
    DagsterRunStatus,
    DefaultScheduleStatus,
    DefaultSensorStatus,
    RunRequest,
    RunsFilter,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    define_asset_job,
    in_process_executor,
    schedule,
    sensor,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from orders_dagster.alerts.receiver import receivers
from orders_dagster.alerts.records import episode_in, subjects_of
from orders_dagster.alerts.tell import tell
from orders_dagster.assets import ORDERS_KEY
from orders_dagster.changes import newest_change_after
from orders_dagster.errors import OrdersError, SettingsError
from orders_dagster.report.asset import REPORT_KEY
from orders_dagster.runs import JOBS, ORDERS_JOB
from orders_dagster.settings import NO_ALERTS, read_alerts, read_settings

UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
SENSOR_SECONDS = 60
LONGEST_BACKOFF = timedelta(hours=1)


def orders_job() -> UnresolvedAssetJobDefinition:
    """The asset, its checks and their report, in one process: another executor would import everything
    again for each step, which takes longer than the work; and the report counts on their order."""
    return define_asset_job(
        ORDERS_JOB,
        selection=AssetSelection.assets(ORDERS_KEY, REPORT_KEY),
        executor_def=in_process_executor,
        description="Materializes `orders`, runs its checks, and renders the report of them.",
    )


def orders_schedule(job: UnresolvedAssetJobDefinition, cron: str) -> ScheduleDefinition:
    """Runs the job by the clock, so that nothing depends on the sensor alone."""

    @schedule(
        job=job,
        cron_schedule=cron,
        name="orders_schedule",
        default_status=DefaultScheduleStatus.RUNNING,
        description="Materializes `orders` regularly. Cron expression: sources.orders.schedule.",
    )
    def orders_schedule(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
        unfinished = unfinished_runs(context.instance)
        if unfinished:
            return SkipReason(f"Run {unfinished[0]} has not finished yet.")
        return RunRequest()

    return orders_schedule


def orders_sensor(job: UnresolvedAssetJobDefinition) -> SensorDefinition:
    """Runs the job when the API has an order newer than the watermark."""

    @sensor(
        job=job,
        name="orders_sensor",
        minimum_interval_seconds=SENSOR_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
        description="Asks the API for one order that is newer than the watermark.",
    )
    def orders_sensor(context: SensorEvaluationContext) -> RunRequest | SkipReason:
        unfinished = unfinished_runs(context.instance)
        if unfinished:
            return SkipReason(f"Run {unfinished[0]} has not finished yet.")
        now = datetime.now(UTC)
        failures = Failures.parse(context.cursor)
        if failures.wait_until() > now:
            return SkipReason(
                f"{failures.reason} Failed {failures.count} times; "
                f"asking again after {failures.wait_until():%H:%M:%S} UTC."
            )
        watermark = last_watermark(context.instance)
        try:
            newest = newest_change_after(read_settings(), watermark)
        except OrdersError as error:
            failures = Failures(failures.count + 1, now.isoformat(), str(error))
            context.update_cursor(failures.text())
            return SkipReason(str(error))
        context.update_cursor(Failures().text())
        if newest is None:
            since = f"newer than {watermark.isoformat()}" if watermark else "at all"
            return SkipReason(f"The API has no order {since}.")
        # The change itself is the key: it is asked for once, also if its run fails; the schedule
        # tries again. An order dated in the future stays newer than the watermark, and with the
        # watermark in the key it would request a run at every tick.
        return RunRequest(run_key=f"order modified at {newest.isoformat()}")

    return orders_sensor


def orders_alerts(jobs: Iterable[str], checks: Iterable[AssetCheckSpec]) -> SensorDefinition:
    """Tells a person what is wrong, and when it is well again. It holds what is wrong now against what
    has been told, so that it may have been down itself.

    Args:
        jobs: the jobs whose runs are looked at.
        checks: the checks that are looked at.
    """
    subjects = subjects_of(jobs, checks)

    @sensor(
        name="orders_alerts",
        minimum_interval_seconds=SENSOR_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
        description="Sends a message when a run or a check fails, and when it is well again.",
    )
    def orders_alerts(context: SensorEvaluationContext) -> SkipReason:
        try:
            alerts = read_alerts()
        except SettingsError as error:
            return SkipReason(str(error))
        if not alerts.urls:
            return SkipReason(NO_ALERTS)
        instance = context.instance
        tick = tell(
            context.cursor,
            receivers(alerts.urls),
            subjects,
            lambda subject, back_to: episode_in(instance, subject, back_to),
            datetime.now(UTC),
            at_least=alerts.min_severity,
            page_url=alerts.page_url,
        )
        context.update_cursor(tick.cursor)
        return SkipReason(tick.text())

    return orders_alerts


def unfinished_runs(instance: DagsterInstance) -> Sequence[str]:
    """The ids of runs that are queued or running and materialize `orders`, from any launcher."""
    records = instance.get_run_records(RunsFilter(statuses=UNFINISHED))
    return [
        record.dagster_run.run_id
        for record in records
        if record.dagster_run.job_name in JOBS
        or ORDERS_KEY in (record.dagster_run.asset_selection or ())
    ]


def last_watermark(instance: DagsterInstance) -> datetime | None:
    """The watermark of the last materialization, UTC; None before the first."""
    event = instance.get_latest_materialization_event(ORDERS_KEY)
    materialization = event.asset_materialization if event else None
    value = materialization.metadata.get("watermark_after") if materialization else None
    return datetime.fromtimestamp(value.value, UTC) if value and value.value else None  # type: ignore[arg-type]


@dataclass(frozen=True)
class Failures:
    """The sensor's memory: how often in a row the API has failed, when last, and how."""

    count: int = 0
    last: str = ""
    reason: str = ""

    @classmethod
    def parse(cls, cursor: str | None) -> "Failures":
        return cls(**json.loads(cursor)) if cursor else cls()

    def text(self) -> str:
        return json.dumps(asdict(self))

    def wait_until(self) -> datetime:
        """A minute after the first failure, then doubled, at most an hour."""
        if not self.count:
            return datetime.min.replace(tzinfo=UTC)
        backoff = min(timedelta(minutes=2 ** min(self.count - 1, 10)), LONGEST_BACKOFF)
        return datetime.fromisoformat(self.last) + backoff
