"""What the Dagster instance remembers: materializations of `orders`, and evaluations of its checks.

Here: records become dataclasses. Not here: what they mean (checks.py, report/), its runs (runs.py), and
what alerts are told from (alerts/records.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dagster import (
    AssetCheckKey,
    AssetKey,
    AssetRecordsFilter,
    DagsterInstance,
    EventLogRecord,
    TableMetadataValue,
)
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

from orders_dagster.assets import ORDERS_KEY, READ_AGAIN
from orders_dagster.volume import Load

INSTANT = timedelta(microseconds=1)
MANY_REPLAYS = 400
"""More materializations in a row than a replay of all months of thirty years makes."""

MANY_LOADS = 5_000
"""More materializations than fit into any period that is compared; a limit, in case of a mistake."""


@dataclass(frozen=True)
class Table:
    """A table that a check has put into its record."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Evaluation:
    """What one check found at one time.

    Attributes:
        severity: "error" or "warn", as it was set at that time.
        sql: what was asked; in words if it was no SQL.
        offenders: None for a check that does not count them.
    """

    at: datetime
    run_id: str
    passed: bool
    severity: str
    description: str | None
    sql: str | None
    asked: str | None
    rows_looked_at: int | None
    offenders: int | None
    sample: Table | None
    by_reason: Table | None
    metadata: Mapping[str, Any] = field(repr=False)

    @property
    def verdict(self) -> str:
        return "pass" if self.passed else {"error": "fail", "warn": "warn"}[self.severity]


@dataclass(frozen=True)
class Materialization:
    """One synchronisation, as it was recorded. None where nothing was recorded."""

    at: datetime
    run_id: str
    loaded: int
    new: int
    updated: int
    unchanged: int
    rejected: int
    rows_in_table: int | None
    seconds: float | None
    lag_seconds: float | None
    watermark: datetime | None
    warehouse: str | None
    read_again: str | None


def evaluations(
    instance: DagsterInstance, check: str, limit: int, asset: AssetKey = ORDERS_KEY
) -> list[Evaluation]:
    """The latest evaluations of a check, the newest first."""
    evaluated = {
        AssetCheckExecutionRecordStatus.SUCCEEDED,
        AssetCheckExecutionRecordStatus.FAILED,
    }
    records = instance.event_log_storage.get_asset_check_execution_history(
        AssetCheckKey(asset, check), limit, status=evaluated
    )
    return [_evaluation(record) for record in records if record.evaluation]


def materializations(instance: DagsterInstance, limit: int) -> list[Materialization]:
    """The latest synchronisations, the newest first."""
    found = instance.fetch_materializations(ORDERS_KEY, limit=limit)
    return [_materialization(record) for record in found.records if _is_load(record)]


def loads_in(instance: DagsterInstance, start: datetime, end: datetime) -> list[Load] | None:
    """What was loaded in a period (its end included), None if there was no materialization before it.

    The first load that ends after the period is part of it: it holds orders of its time.
    """
    before = _records(instance, 1, until=start)
    if not before:
        return None
    within = _records(instance, MANY_LOADS, after=start, until=end, ascending=True)
    after = _records(instance, 1, after=end, ascending=True)
    times = [_at(record) for record in (*before, *within, *after)]
    return [
        Load(previous, time, _number(record, "orders_new") + _number(record, "orders_updated"))
        for previous, time, record in zip(times, times[1:], (*within, *after), strict=False)
    ]


def _records(
    instance: DagsterInstance,
    limit: int,
    *,
    after: datetime | None = None,
    until: datetime | None = None,
    ascending: bool = False,
) -> list[EventLogRecord]:
    asked = AssetRecordsFilter(
        ORDERS_KEY,
        after_timestamp=after.timestamp() if after else None,
        before_timestamp=(until + INSTANT).timestamp() if until else None,
    )
    found = instance.fetch_materializations(
        asked, limit=max(limit, MANY_REPLAYS), ascending=ascending
    )
    return [
        record
        for record in found.records
        if _is_load(record) and READ_AGAIN not in _metadata(record)
    ][:limit]


def _is_load(record: EventLogRecord) -> bool:
    """Not something that was reported by hand, or by another job, with numbers of its own."""
    return "orders_loaded" in _metadata(record)


def _metadata(record: EventLogRecord) -> Mapping[str, Any]:
    materialization = record.asset_materialization
    return materialization.metadata if materialization else {}


def _at(record: EventLogRecord) -> datetime:
    return datetime.fromtimestamp(record.timestamp, UTC)


def _number(record: EventLogRecord, name: str) -> int:
    value = _metadata(record).get(name)
    return int(value.value) if value is not None and value.value is not None else 0


def _materialization(record: EventLogRecord) -> Materialization:
    found: dict[str, Any] = {name: value.value for name, value in _metadata(record).items()}
    parts: list[Any] = [found.get(f"{part}_seconds") for part in ("extract", "normalize", "load")]
    watermark = found.get("watermark_after")
    return Materialization(
        at=_at(record),
        run_id=record.run_id,
        loaded=_number(record, "orders_loaded"),
        new=_number(record, "orders_new"),
        updated=_number(record, "orders_updated"),
        unchanged=_number(record, "orders_unchanged"),
        rejected=_number(record, "orders_rejected"),
        rows_in_table=found.get("rows_in_table"),
        seconds=None if None in parts else round(sum(parts), 3),
        lag_seconds=found.get("lag_seconds"),
        watermark=None if watermark is None else datetime.fromtimestamp(watermark, UTC),
        warehouse=found.get("warehouse"),
        read_again=found.get(READ_AGAIN),
    )


def _evaluation(record: AssetCheckExecutionRecord) -> Evaluation:
    evaluation = record.evaluation
    assert evaluation is not None
    found: dict[str, Any] = {name: value.value for name, value in evaluation.metadata.items()}
    sql = found.get("sql")
    return Evaluation(
        at=datetime.fromtimestamp(
            record.event.timestamp if record.event else record.create_timestamp, UTC
        ),
        run_id=record.run_id,
        passed=evaluation.passed,
        severity=evaluation.severity.value.lower(),
        description=evaluation.description,
        sql=sql.removeprefix("```sql\n").removesuffix("\n```") if isinstance(sql, str) else None,
        asked=found.get("asked"),
        rows_looked_at=found.get("rows_looked_at"),
        offenders=found.get("offenders"),
        sample=_table(evaluation.metadata.get("sample")),
        by_reason=_table(evaluation.metadata.get("by_reason")),
        metadata=found,
    )


def _table(value: Any) -> Table | None:
    if not isinstance(value, TableMetadataValue):
        return None
    columns = [column.name for column in value.schema.columns]
    return Table(columns, [[row.data.get(name) for name in columns] for row in value.records])
