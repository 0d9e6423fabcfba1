"""What is wrong, according to the instance's own records: finished runs and evaluations of checks.

No text that an exception or a check carries leaves this module, but for that of our own errors
(errors.py), which hold no secret and nothing of an order.
"""

import heapq
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckSeverity,
    AssetCheckSpec,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    DagsterRunStatus,
    RunRecord,
    RunsFilter,
)
from dagster._core.events import JobFailureData
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
)
from dagster_shared.error import SerializableErrorInfo

from orders_dagster.alerts.trouble import LONGEST_STREAK, Episode, Outcome, Subject, latest_episode
from orders_dagster.assets import BLOCKED, ORDERS_KEY, REFUSED

FINISHED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE]
"""A run that was cancelled says nothing, one way or the other."""

BY_HAND = "__ASSET_JOB"
"""What Dagster calls the job of assets that are materialized in the page or by the command line."""

MAIN_JOB = "orders_job"
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
    series = [_runs(instance, job)]
    if job == MAIN_JOB:
        series.append(run for run in _runs(instance, BY_HAND) if _materializes_orders(run))
    for record in heapq.merge(*series, key=_ended, reverse=True):
        run = record.dagster_run
        at = datetime.fromtimestamp(_ended(record), UTC)
        reason = None
        if run.status == DagsterRunStatus.FAILURE:
            failures = _failures(instance, run.run_id)
            if any(_says(event, REFUSED) for event in failures):
                continue  # whoever wrote the range is looking at it
            reason = _reason(failures)
        yield Outcome(at, failed=reason is not None, run_id=run.run_id, reason=reason or "")


def _runs(instance: DagsterInstance, job: str) -> Iterator[RunRecord]:
    """Finished runs by name of the job, the newest first; as many as a streak may have."""

    def pages() -> Iterator[RunRecord]:
        cursor: str | None = None
        while True:
            wanted = RunsFilter(job_name=job, statuses=FINISHED)
            page = instance.get_run_records(wanted, limit=PAGE, cursor=cursor)
            yield from sorted(page, key=_ended, reverse=True)
            if len(page) < PAGE:
                return
            cursor = page[-1].dagster_run.run_id

    return islice(pages(), LONGEST_STREAK)


def _materializes_orders(record: RunRecord) -> bool:
    return ORDERS_KEY in (record.dagster_run.asset_selection or ())


def _ended(record: RunRecord) -> float:
    return record.end_time or record.update_timestamp.timestamp()


def failure_reason(instance: DagsterInstance, run_id: str) -> str | None:
    """Why a run failed; None if nothing did but a blocking check, which is told for itself."""
    return _reason(_failures(instance, run_id))


def _failures(instance: DagsterInstance, run_id: str) -> list[DagsterEvent]:
    kinds = {DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE}
    entries = instance.all_logs(run_id, of_type=kinds)
    return [entry.dagster_event for entry in entries if entry.dagster_event]


def _reason(events: list[DagsterEvent]) -> str | None:
    steps = [event for event in events if event.is_step_failure]
    reasons = [_step_reason(event) for event in steps if not _is_blocking_check(event)]
    if steps:
        return reasons[0] if reasons else None
    found = [event.event_specific_data for event in events]
    errors = [data.error for data in found if isinstance(data, JobFailureData)]
    name = next((_innermost(error).cls_name for error in errors if error), None)
    because = f" ({name})" if name else ""
    return (
        f"The run ended, but none of its steps{because}: its process was stopped, or never began."
    )


def _is_blocking_check(event: DagsterEvent) -> bool:
    error = event.step_failure_data.error
    is_dagsters = error is not None and error.cls_name == "DagsterAssetCheckFailedError"
    return is_dagsters or _says(event, BLOCKED)


def _says(event: DagsterEvent, name: str) -> bool:
    """Whether a step has failed with something of that name in its metadata."""
    failure = event.step_failure_data.user_failure_data if event.is_step_failure else None
    return bool(failure and name in failure.metadata)


def _step_reason(event: DagsterEvent) -> str:
    """The message of an error of ours; of any other, its class only: it may quote anything."""
    failure = event.step_failure_data
    ours = failure.user_failure_data.description if failure.user_failure_data else None
    if ours:
        return ours
    name = _innermost(failure.error).cls_name if failure.error else None
    return (
        f"{name or 'An error'} in the step {event.step_key}. The page of the run shows it in full."
    )


def _innermost(error: SerializableErrorInfo) -> SerializableErrorInfo:
    """What Dagster wrapped."""
    while error.cause and (error.cls_name or "").startswith("Dagster"):
        error = error.cause
    return error
