"""What is wrong, according to the instance's own records: finished runs and evaluations of checks.

No text that a check carries leaves this module, and of runs only what may be shown (runs.py).
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckSeverity,
    AssetCheckSpec,
    DagsterEvent,
    DagsterInstance,
)
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
)

from orders_dagster.alerts.trouble import Episode, Outcome, Subject, latest_episode
from orders_dagster.assets import ORDERS_KEY
from orders_dagster.runs import Failure, finished

PAGE = 20


def subjects_of(jobs: Iterable[str], checks: Iterable[AssetCheckSpec]) -> list[Subject]:
    """What can be in trouble: the runs of each job, and each check."""
    return [
        *(Subject("run", job) for job in jobs),
        *(Subject("check", check.name, check.description or "") for check in checks),
    ]


def episode_in(instance: DagsterInstance, subject: Subject, back_to: datetime) -> Episode | None:
    """The last time that a subject was in trouble, if that is not over for longer than `back_to`."""
    outcomes = run_outcomes if subject.kind == "run" else check_outcomes
    return latest_episode(outcomes(instance, subject.name), back_to=back_to)


def check_outcomes(instance: DagsterInstance, name: str) -> Iterator[Outcome]:
    """Every evaluation of a check, the newest first."""
    cursor: int | None = None
    while True:
        page = instance.event_log_storage.get_asset_check_execution_history(
            AssetCheckKey(ORDERS_KEY, name),
            limit=PAGE,
            cursor=cursor,
            status=COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
        )
        # A record is made when its run is planned: runs that overlap may be evaluated in another order.
        yield from sorted(
            (
                _evaluated(record.event.timestamp, record.event.run_id, record.event.dagster_event)
                for record in page
                if record.event and record.event.dagster_event
            ),
            key=lambda outcome: outcome.at,
            reverse=True,
        )
        if len(page) < PAGE:
            return
        cursor = page[-1].id


def _evaluated(timestamp: float, run_id: str, event: DagsterEvent) -> Outcome:
    evaluation = event.event_specific_data
    assert isinstance(evaluation, AssetCheckEvaluation)
    offenders = evaluation.metadata.get("offenders")
    count = offenders.value if offenders else None
    return Outcome(
        at=datetime.fromtimestamp(timestamp, UTC),
        failed=not evaluation.passed,
        run_id=run_id,
        severity="error" if evaluation.severity == AssetCheckSeverity.ERROR else "warn",
        offenders=count if isinstance(count, int) else None,
    )


def run_outcomes(instance: DagsterInstance, job: str) -> Iterator[Outcome]:
    """Every finished run of a job, the newest first. What is materialized by hand is a run of
    `orders_job`: the next one of either kind makes it well."""
    for run in finished(instance, job):
        if any(failure.refused for failure in run.failures):
            continue  # whoever wrote the range is looking at it
        reason = reason_of(run.failures)
        yield Outcome(run.at, failed=reason is not None, run_id=run.run_id, reason=reason or "")


def reason_of(failures: Iterable[Failure]) -> str | None:
    """Why a run failed; None if nothing did but a blocking check, which is told for itself."""
    return next((failure.said for failure in failures if not failure.by_check), None)
