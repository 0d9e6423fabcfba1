"""The runs of the project's jobs, according to the Dagster instance: how they ended, and why.

No text that an exception carries leaves this module, but for that of our own errors (errors.py), which
hold no secret and nothing of an order: of any other error, only what it is called.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from dagster import (
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    DagsterRunStatus,
    RunRecord,
    RunsFilter,
)
from dagster._core.errors import DagsterAssetCheckFailedError
from dagster._core.events import JobFailureData
from dagster_shared.error import SerializableErrorInfo

from orders_dagster.alerts.trouble import LONGEST_STREAK
from orders_dagster.assets import BLOCKED, ORDERS_KEY, REFUSED

JOBS = ORDERS_JOB, REPLAY, REPAIR = "orders_job", "replay_orders", "repair_orders"

BY_HAND = "__ASSET_JOB"
"""What Dagster calls the job of assets that are materialized in the page or by the command line."""

FINISHED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE]
"""A run that was cancelled says nothing, one way or the other."""

PAGE = 20
LATEST = 50


@dataclass(frozen=True)
class Failure:
    """Why a step failed, or a run outside of its steps.

    Attributes:
        said: in words that may be shown to anybody.
        by_check: whether a blocking check has found something, which is told for itself.
        refused: whether the range that was asked for was no range.
    """

    said: str
    by_check: bool = False
    refused: bool = False


@dataclass(frozen=True)
class Run:
    """A run of a job; what is materialized by hand is a run of `orders_job`.

    Attributes:
        at: when it ended, or else began, UTC.
        failures: of those steps that have failed so far; its other steps run to their end.
    """

    run_id: str
    job: str
    status: str
    at: datetime
    failures: Sequence[Failure]

    @property
    def has_failed(self) -> bool:
        return bool(self.failures)


def last_run(instance: DagsterInstance, loaded_by: str | None = None) -> Run | None:
    """The latest run that was to materialize `orders`, by its job or by hand, of which it is known how it
    went: finished, or a step has failed, or it has loaded orders. If there is none, the latest one.

    Args:
        loaded_by: the id of the run of the latest load.
    """
    latest: Run | None = None
    for record in instance.get_run_records(limit=LATEST):
        dagster_run = record.dagster_run
        if dagster_run.job_name != ORDERS_JOB and not _is_of_orders(record):
            continue
        run = _run(instance, record)
        is_known = dagster_run.status in FINISHED or run.has_failed or run.run_id == loaded_by
        if is_known:
            return run
        latest = latest or run
    return next(finished(instance, ORDERS_JOB), latest)


def finished(instance: DagsterInstance, job: str) -> Iterator[Run]:
    """Every finished run of a job, the newest first."""
    series = [_records(instance, job)]
    if job == ORDERS_JOB:
        series.append(run for run in _records(instance, BY_HAND) if _is_of_orders(run))
    for record in heapq.merge(*series, key=_ended, reverse=True):
        yield _run(instance, record)


def _records(instance: DagsterInstance, job: str) -> Iterator[RunRecord]:
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


def _run(instance: DagsterInstance, record: RunRecord) -> Run:
    run = record.dagster_run
    return Run(
        run.run_id,
        ORDERS_JOB if run.job_name == BY_HAND else run.job_name,
        run.status.name,
        datetime.fromtimestamp(_ended(record), UTC),
        failures(instance, run.run_id, run.status),
    )


def _is_of_orders(record: RunRecord) -> bool:
    return ORDERS_KEY in (record.dagster_run.asset_selection or ())


def _ended(record: RunRecord) -> float:
    """When a run ended; of one that goes on, the last that is known of it."""
    return record.end_time or record.update_timestamp.timestamp()


def failures(
    instance: DagsterInstance, run_id: str, status: DagsterRunStatus = DagsterRunStatus.FAILURE
) -> list[Failure]:
    """Why a run has failed, step by step; one failure at least, if that is its status."""
    if status == DagsterRunStatus.SUCCESS:
        return []
    kinds = {DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE}
    entries = instance.all_logs(run_id, of_type=kinds)
    events = [entry.dagster_event for entry in entries if entry.dagster_event]
    of_steps = [_of_step(event) for event in events if event.is_step_failure]
    if of_steps or status != DagsterRunStatus.FAILURE:
        return of_steps
    found = [event.event_specific_data for event in events]
    errors = [data.error for data in found if isinstance(data, JobFailureData)]
    name = next((_innermost(error).cls_name for error in errors if error), None)
    because = f" ({name})" if name else ""
    return [
        Failure(
            f"The run ended, but none of its steps{because}: "
            "its process was stopped, or never began."
        )
    ]


def _of_step(event: DagsterEvent) -> Failure:
    failure = event.step_failure_data
    ours, error = failure.user_failure_data, failure.error
    is_dagsters = error is not None and error.cls_name == DagsterAssetCheckFailedError.__name__
    if is_dagsters or (ours and BLOCKED in ours.metadata):
        said = ours.description if ours else None
        return Failure(said or "A blocking check failed.", by_check=True)
    if ours and ours.description:
        return Failure(ours.description, refused=REFUSED in ours.metadata)
    name = _innermost(error).cls_name if error else None
    return Failure(
        f"{name or 'An error'} in the step {event.step_key}. The page of the run shows it in full."
    )


def _innermost(error: SerializableErrorInfo) -> SerializableErrorInfo:
    """What Dagster wrapped."""
    while error.cause and (error.cls_name or "").startswith("Dagster"):
        error = error.cause
    return error
