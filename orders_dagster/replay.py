"""The jobs that read orders again: `replay_orders` a span of time, `repair_orders` what differs.

Jobs of ops, since Dagster gives a job of assets neither a Launchpad nor months of its own. What they
do to `orders` is recorded as its materialization, and its checks are evaluated, as by any other run.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckSpec,
    AssetMaterialization,
    Config,
    Failure,
    In,
    JobDefinition,
    Nothing,
    OpDefinition,
    OpExecutionContext,
    Out,
    RunConfig,
    in_process_executor,
    job,
    monthly_partitioned_config,
    op,
)
from pydantic import Field

from orders_dagster.assets import (
    BLOCKED,
    ORDERS_KEY,
    POOL,
    READ_AGAIN,
    failing_in_words,
    materialization_metadata,
)
from orders_dagster.checks import CHECKS, differences_of, results, table_of
from orders_dagster.errors import SpanRefused
from orders_dagster.pipeline import synchronise
from orders_dagster.repair import Repair, repair
from orders_dagster.report.asset import REPORT_KEY, render
from orders_dagster.runs import REPAIR, REPLAY
from orders_dagster.settings import read_settings
from orders_dagster.span import Span

EARLIEST_MONTH = datetime(1970, 1, 1, tzinfo=UTC)
"""Years that stand for no date at all would be thousands of months on the page."""

OPS = {REPLAY: "replay", REPAIR: "repair"}

START = (
    "Orders modified from this time on: 2026-03-01, or 2026-03-01T06:00:00+01:00; UTC unless it says "
    "otherwise."
)
END = "The end of the span, itself excluded; empty for now."


class ReplayConfig(Config):
    """What `replay_orders` reads again."""

    start: str = Field(default="", description=START)
    end: str = Field(default="", description=END)


class RepairConfig(Config):
    """What `repair_orders` reads again: without a start, whatever differs from the API."""

    start: str = Field(default="", description=f"{START} Empty: what differs from the API.")
    end: str = Field(default="", description=END)


def jobs(since: datetime, specs: Sequence[AssetCheckSpec]) -> list[JobDefinition]:
    """Both of them.

    Args:
        since: the first month of a replay holds it.
        specs: of the checks that follow.
    """
    after = _checks_op(), _report_op(specs)
    return [_replay_job(since, *after), _repair_job(*after)]


def _replay_job(since: datetime, checks: OpDefinition, report: OpDefinition) -> JobDefinition:
    """Reads a month again, or what the Launchpad says."""

    first = max(since, EARLIEST_MONTH).astimezone(UTC).date().replace(day=1)

    @monthly_partitioned_config(start_date=first.isoformat(), end_offset=1)
    def month(start: datetime, end: datetime) -> dict[str, Any]:
        return config_of(REPLAY, start=start.isoformat(), end=end.isoformat())

    @op(
        name=OPS[REPLAY],
        out=Out(Nothing),
        pool=POOL,
        description="Reads a span again and merges it.",
    )
    def read_again(context: OpExecutionContext, config: ReplayConfig) -> None:
        with failing_in_words():
            span = span_of(config.start, config.end)
            if span is None:
                raise SpanRefused("choose a month, or write its start into the Launchpad")
            result = synchronise(read_settings(), context.log.info, span=span)
        metadata = {READ_AGAIN: str(span)} | materialization_metadata(result)
        context.log_event(AssetMaterialization(ORDERS_KEY, metadata=metadata))

    return _job(
        REPLAY,
        "Reads orders of a span of time again and merges them: by month from the Partitions page, or by "
        "`start` and `end` in the Launchpad. The watermark stays where it is; an older version never "
        "overwrites a newer one. With the start 2000-01-01 and no end: a full refresh.",
        (read_again, checks, report),
        config=month,
    )


def _repair_job(checks: OpDefinition, report: OpDefinition) -> JobDefinition:
    """Mends what differs from the API."""

    @op(
        name=OPS[REPAIR],
        out=Out(Nothing),
        pool=POOL,
        description="Reads what differs and merges it.",
    )
    def read_again(context: OpExecutionContext, config: RepairConfig) -> None:
        with failing_in_words():
            span = span_of(config.start, config.end)
            repaired = repair(read_settings(), context.log.info, span=span)
        metadata = materialization_metadata(repaired.total) | repair_metadata(repaired)
        context.log_event(AssetMaterialization(ORDERS_KEY, metadata=metadata))

    return _job(
        REPAIR,
        "Compares the numbers of orders with the API, reads the windows that differ again, and sets "
        "`deleted_at` of orders that the shop no longer has. With `start` and `end` in the Launchpad "
        "that span is read again, whether it differs or not.",
        (read_again, checks, report),
        config=RunConfig(ops={OPS[REPAIR]: RepairConfig()}),
    )


def config_of(job: str, **config: str) -> dict[str, Any]:
    """The run config of one of the jobs."""
    return {"ops": {OPS[job]: {"config": config}}}


def span_of(start: str, end: str) -> Span | None:
    """What the config says, None if it says nothing.

    Raises:
        SpanRefused: it cannot be meant.
    """
    if start.strip():
        return Span.parse(start, end, datetime.now(UTC))
    if end.strip():
        raise SpanRefused("it has an end and no start")
    return None


def repair_metadata(repaired: Repair) -> dict[str, Any]:
    """What was compared, read again, marked and removed."""
    compared: dict[str, Any] = {}
    if repaired.not_compared is not None:
        compared["not_compared"] = repaired.not_compared
    elif repaired.differences is not None:
        compared["differences"] = table_of(*differences_of(repaired.differences))
    return {
        READ_AGAIN: "; ".join(map(str, repaired.spans)) or "nothing",
        "marked_deleted": repaired.marked,
        "orphans_removed": repaired.orphans,
        **compared,
    }


def _job(
    name: str,
    description: str,
    steps_of_it: tuple[OpDefinition, OpDefinition, OpDefinition],
    config: Any,
) -> JobDefinition:
    read_again, checks, report = steps_of_it

    @job(name=name, description=description, config=config, executor_def=in_process_executor)
    def steps() -> None:
        checks(read_again())
        report()

    return steps


def _checks_op() -> OpDefinition:
    @op(name="check_orders", ins={"read": In(Nothing)}, out=Out(Nothing), pool=POOL)
    def check_orders(context: OpExecutionContext) -> None:
        """Evaluates the checks of `orders`."""
        failing = []
        for check, result in zip(
            CHECKS, results(CHECKS, context.instance, context.log.info), strict=True
        ):
            evaluation = AssetCheckEvaluation(
                asset_key=ORDERS_KEY,
                check_name=check.name,
                passed=result.passed,
                metadata=result.metadata,
                severity=result.severity,
                description=result.description,
                blocking=check.blocking,
            )
            context.log_event(evaluation)  # type: ignore[arg-type]
            if check.blocking and not result.passed and result.severity.value == "ERROR":
                failing.append(check.name)
        if failing:
            what = f"Blocking checks fail: {', '.join(failing)}."
            raise Failure(what, metadata={BLOCKED: len(failing)}, allow_retries=False)

    return check_orders


def _report_op(specs: Sequence[AssetCheckSpec]) -> OpDefinition:
    @op(name="report_checks", out=Out(Nothing), tags={"dagster/priority": "-100"})
    def report_checks(context: OpExecutionContext) -> None:
        """Renders the report, last and whatever has failed before."""
        metadata = render(context.instance, specs)
        context.log_event(AssetMaterialization(REPORT_KEY, metadata=metadata))

    return report_checks
