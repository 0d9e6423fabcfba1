"""The asset checks: what is asked of the tables after each load.

Each check looks for offenders, most by a query, and passes if there is none. All run in one step over
one connection, through dlt's own client, so that they hold on any SQL destination. Business rules do
not belong here: these are promises about the loading.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetCheckSpec,
    DagsterInstance,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
    multi_asset_check,
)

from orders_dagster.assets import ORDERS_KEY, POOL, failing_in_words
from orders_dagster.columns import column_name
from orders_dagster.destination import orders_warehouse
from orders_dagster.errors import OrdersError
from orders_dagster.places import DELETED_AT, ORDERS
from orders_dagster.reconcile import Difference, compare
from orders_dagster.records import MANY_REPLAYS, evaluations, loads_in, materializations
from orders_dagster.rejected import REJECTED_TABLE
from orders_dagster.schema_changes import Change, changes
from orders_dagster.settings import CheckSeverity, OrdersSettings, read_settings
from orders_dagster.tables import orders_tables
from orders_dagster.volume import (
    ENOUGH_WEEKS,
    SHORTEST_PERIOD,
    WEEK,
    WEEKS,
    Usual,
    orders_in,
    usual,
)
from orders_dagster.warehouse import Warehouse

SAMPLE = 20


@dataclass(frozen=True)
class Question:
    """One check asked of tables that exist: SQL for the offenders, and how many rows it looks at.

    Attributes:
        by: a column of the offenders that they are also counted by.
        quick: a cheaper question that finds something if there are offenders.
    """

    sql: str
    rows_looked_at: int
    by: str | None = None
    quick: str | None = None


@dataclass(frozen=True)
class Found:
    """What a check has found: it passes if there are no offenders.

    Attributes:
        asked: SQL, or in words what was compared with what.
        columns, sample: the first offenders, or whatever shows what the number means.
        more: what else is kept with the evaluation.
    """

    asked: str | MetadataValue
    rows_looked_at: int
    offenders: int
    columns: Sequence[str]
    sample: Sequence[Sequence[Any]]
    description: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tables:
    """What the questions are asked of.

    Attributes:
        existing: the tables there are now, with their columns.
        parents: the table each child table belongs to.
        instance: Dagster's records, for what is compared with earlier runs.
    """

    warehouse: Warehouse
    settings: OrdersSettings
    existing: dict[str, Sequence[str]]
    parents: dict[str, str]
    now: datetime
    instance: DagsterInstance

    def has(self, table: str, *columns: str) -> bool:
        return set(columns) <= set(self.existing.get(table, ())) and table in self.existing

    @property
    def orders(self) -> str:
        return self.warehouse.name(ORDERS)

    @property
    def key(self) -> str:
        return self.warehouse.column(column_name(self.settings.primary_key))

    @property
    def cursor(self) -> str:
        return self.warehouse.column(column_name(self.settings.cursor_path))

    def count(self, table: str) -> int:
        return int(self.warehouse.scalar(f"SELECT COUNT(*) FROM {self.warehouse.name(table)}"))


@dataclass(frozen=True)
class Check:
    """A check: its name and meaning, and how it looks; it finds None while there is no table."""

    name: str
    description: str
    find: Callable[[Tables], Found | None]
    blocking: bool = False

    def severity(self, settings: CheckSeverity) -> AssetCheckSeverity:
        return AssetCheckSeverity[getattr(settings, self.name).upper()]


def by_sql(ask: Callable[[Tables], Question | None]) -> Callable[[Tables], Found | None]:
    """A check that is a query for offenders."""

    def find(tables: Tables) -> Found | None:
        question = ask(tables)
        return None if question is None else _offenders(tables.warehouse, question)

    return find


def _offenders(warehouse: Warehouse, question: Question) -> Found:
    """The first offenders, and how many there are: that is asked only if there are more than can be
    shown, since most questions look at every row, and most find nothing."""
    columns: Sequence[str] = []
    sample: Sequence[tuple[Any, ...]] = []
    if question.quick is None or warehouse.head(question.quick, 1)[1]:
        columns, sample = warehouse.head(question.sql, SAMPLE + 1)
    offenders = len(sample)
    if offenders > SAMPLE:
        offenders = int(warehouse.scalar(f"SELECT COUNT(*) FROM ({question.sql}) offenders"))
    more = {}
    if offenders and question.by:
        by = warehouse.column(question.by)
        counted = f"SELECT {by}, COUNT(*) FROM ({question.sql}) offenders GROUP BY {by}"
        more["by_reason"] = table_of(
            [question.by, "orders"], sorted(warehouse.query(counted), key=lambda row: -row[1])
        )
    return Found(
        asked=MetadataValue.md(f"```sql\n{question.sql}\n```"),
        rows_looked_at=question.rows_looked_at,
        offenders=offenders,
        columns=columns,
        sample=sample[:SAMPLE],
        description=f"{offenders:,} of {question.rows_looked_at:,} rows offend."
        if offenders
        else None,
        more=more,
    )


def order_id_unique(tables: Tables) -> Question | None:
    if not tables.has(ORDERS):
        return None
    column = tables.warehouse.column
    counted = f"COUNT(*) AS {column('rows_of_it')}"
    if tables.has(ORDERS, DELETED_AT):
        counted += f", COUNT({column(DELETED_AT)}) AS {column('of_them_deleted')}"
    return Question(
        f"SELECT {tables.key}, {counted} FROM {tables.orders} WHERE {tables.key} IS NOT NULL "
        f"GROUP BY {tables.key} HAVING COUNT(*) > 1",
        tables.count(ORDERS),
    )


def order_id_not_null(tables: Tables) -> Question | None:
    if not tables.has(ORDERS):
        return None
    load = tables.warehouse.column("_dlt_load_id")
    return Question(
        f"SELECT {tables.cursor}, {load} FROM {tables.orders} WHERE {tables.key} IS NULL",
        tables.count(ORDERS),
    )


def items_belong_to_an_order(tables: Tables) -> Question | None:
    of = tables.parents
    children = [table for table in of if tables.has(table)]
    if not children:
        return None
    families = {
        parent: [child for child in children if of[child] == parent]
        for parent in dict.fromkeys(of[child] for child in children)
    }
    asked = " UNION ALL ".join(_without_parent(tables, *family) for family in families.items())
    quick = [_hash_without_parent(tables, *family) for family in families.items()]
    return Question(
        asked,
        sum(tables.count(child) for child in children),
        quick=None if None in quick else " UNION ALL ".join(filter(None, quick)),
    )


def _without_parent(tables: Tables, parent: str, children: Sequence[str]) -> str:
    """Rows of children of one table, which is read once for all of them."""
    name, column = tables.warehouse.name, tables.warehouse.column
    parent_id, own_id = column("_dlt_parent_id"), column("_dlt_id")
    rows = " UNION ALL ".join(
        f"SELECT '{child}' AS {column('in_table')}, {parent_id} FROM {name(child)}"
        for child in children
    )
    if not tables.has(parent):
        return rows
    return (
        f"SELECT c.{column('in_table')}, c.{parent_id} FROM ({rows}) c "
        f"LEFT JOIN {name(parent)} p ON c.{parent_id} = p.{own_id} WHERE p.{own_id} IS NULL"
    )


def _hash_without_parent(tables: Tables, parent: str, children: Sequence[str]) -> str | None:
    """The same by hashes of the ids, which takes two thirds of the time; None if the destination has none.

    Of 64 bits: among 10,000,000 parents, one orphan in 2,000,000,000,000 has the hash of one of them.
    """
    name, column, hashed = tables.warehouse.name, tables.warehouse.column, tables.warehouse.hashed
    parent_id, own_id = hashed(column("_dlt_parent_id")), hashed(column("_dlt_id"))
    if parent_id is None or not tables.has(parent):
        return None
    rows = " UNION ALL ".join(f"SELECT {parent_id} AS h FROM {name(child)}" for child in children)
    return (
        f"SELECT c.h FROM ({rows}) c "
        f"LEFT JOIN (SELECT {own_id} AS h FROM {name(parent)}) p ON c.h = p.h WHERE p.h IS NULL"
    )


def last_modified_not_in_future(tables: Tables) -> Question | None:
    if not tables.has(ORDERS):
        return None
    limit = _literal(tables.now + timedelta(minutes=tables.settings.clock_tolerance_minutes))
    return Question(
        f"SELECT {tables.key}, {tables.cursor} FROM {tables.orders} WHERE {tables.cursor} > {limit}",
        tables.count(ORDERS),
    )


def freshness(tables: Tables) -> Question | None:
    if not tables.has(ORDERS):
        return None
    limit = _literal(tables.now - timedelta(hours=tables.settings.freshness_hours))
    newest = f"MAX({tables.cursor})"
    return Question(
        f"SELECT {newest} AS {tables.warehouse.column('newest_order')} FROM {tables.orders} "
        f"HAVING {newest} < {limit}",
        tables.count(ORDERS),
    )


def no_rejected_orders(tables: Tables) -> Question | None:
    """Orders rejected and not loaded since, or with the same load: corrected, it is no longer open. What
    the shop no longer has is marked by a repair."""
    if not tables.has(REJECTED_TABLE):
        return None
    column = tables.warehouse.column
    asked = (
        f"SELECT r.{column('order_id')}, r.{column('reason')}, r.{column('rejected_at')} "
        f"FROM {tables.warehouse.name(REJECTED_TABLE)} r"
    )
    waits = []
    if tables.has(ORDERS):
        load = column("_dlt_load_id")
        waits.append(
            f"NOT EXISTS (SELECT 1 FROM {tables.orders} o "
            f"WHERE CAST(o.{tables.key} AS VARCHAR) = r.{column('order_id')} "
            f"AND o.{load} >= r.{load})"
        )
    if tables.has(REJECTED_TABLE, DELETED_AT):
        waits.append(f"r.{column(DELETED_AT)} IS NULL")
    if waits:
        asked += f" WHERE {' AND '.join(waits)}"
    return Question(asked, tables.count(REJECTED_TABLE), by="reason")


def volume_as_expected(tables: Tables) -> Found | None:
    return volume(tables.instance, tables.settings.volume_factor)


def volume(instance: DagsterInstance, factor: float) -> Found | None:
    """From Dagster's records alone: what the last load brought, and what is usual at its time."""
    # What was read again by hand says nothing of what is usual, nor do all months of some years.
    found = materializations(instance, limit=MANY_REPLAYS)
    latest = [load for load in found if load.read_again is None][:2]
    if not latest:
        return None
    end = latest[0].at
    # By a schedule that runs once a day a day is compared, not an hour of it.
    start = min([end - SHORTEST_PERIOD, *(load.at for load in latest[1:])])
    periods = [(start - n * WEEK, end - n * WEEK) for n in range(WEEKS + 1)]
    loads = [loads_in(instance, *period) for period in periods]
    now, *before = [
        None if some is None else orders_in(some, *period)
        for some, period in zip(loads, periods, strict=True)
    ]
    weeks = [orders for orders in before if orders is not None]
    expected = None if now is None else usual(weeks, factor)
    return Found(
        asked="New and updated orders of the last materialization's time, an hour at least, against "
        f"the median of the same time in the {WEEKS} weeks before.",
        rows_looked_at=sum(len(some or ()) for some in loads),
        offenders=int(now is not None and expected is not None and not expected.holds(now)),
        columns=["from", "to", "orders"],
        sample=[
            (*period, None if orders is None else round(orders))
            for period, orders in zip(periods, (now, *before), strict=True)
        ],
        description=_volume(now, (start, end), weeks, expected, factor),
    )


def _volume(
    count: float | None,
    period: tuple[datetime, datetime],
    weeks: Sequence[float],
    expected: Usual | None,
    factor: float,
) -> str:
    """The numbers, and where they come from."""
    start, end = (f"{time:%Y-%m-%d %H:%M}" for time in period)
    if count is None:
        return f"Nothing to compare with yet: the first load was after {start} UTC."
    counted = f"{count:,.0f} orders were new or updated from {start} to {end} UTC."
    if expected is None:
        return (
            f"{counted} Nothing to compare them with yet: {len(weeks)} of the {WEEKS} weeks before "
            f"are on record, {ENOUGH_WEEKS} are needed."
        )
    lowest, highest = math.ceil(expected.lowest), math.floor(expected.highest)
    return (
        f"{counted} {expected.orders:,.0f} are usual: the median of the same time in earlier weeks "
        f"({', '.join(f'{week:,.0f}' for week in weeks)}). With volume_factor = {factor:g} "
        f"and what counts vary by chance, {lowest:,} to {highest:,} are as expected."
    )


def reconciles_with_source(tables: Tables) -> Found | None:
    """As many orders in each window of modification dates as the API has."""
    if not tables.has(ORDERS):
        return None
    if not tables.settings.reconcile:
        return _not_compared("It is switched off (sources.orders.reconcile).")
    try:
        compared = compare(tables.settings, tables.warehouse)
    except OrdersError as error:
        return replace(_not_compared(str(error)), offenders=1)
    if compared.not_compared is not None:
        return _not_compared(compared.not_compared)
    differ = len(compared.differences)
    columns, sample = differences_of(compared.differences[:SAMPLE])
    return Found(
        asked="The number of orders in windows of modification dates, in the API and in the warehouse, "
        "up to the watermark less the lag; windows that differ are halved.",
        rows_looked_at=compared.orders,
        offenders=differ,
        columns=columns,
        sample=sample,
        description=f"{'1 window differs' if differ == 1 else f'{differ:,} windows differ'}. The job "
        f"repair_orders reads {'it' if differ == 1 else 'them'} again.{_undated(compared.undated)}"
        if differ
        else f"As many as in the API: {compared.orders:,}, compared by {compared.requests} requests.",
    )


def _undated(orders: int) -> str:
    """That some of them may be the reason."""
    if not orders:
        return ""
    return f" The API counts somewhere what cannot be dated in orders_rejected: {orders:,}."


def differences_of(
    differences: Sequence[Difference],
) -> tuple[list[str], list[tuple[datetime, datetime, int, int]]]:
    """Columns and rows that tell of differences."""
    columns = ["from", "to", "in_api", "in_warehouse"]
    return columns, [
        (one.span.start, one.span.end, one.in_api, one.in_warehouse) for one in differences
    ]


def _not_compared(why: str) -> Found:
    return Found(
        asked="The number of orders in the API and in the warehouse.",
        rows_looked_at=0,
        offenders=0,
        columns=[],
        sample=[],
        description=f"Not compared: {why}",
    )


def schema_stable(tables: Tables) -> Found | None:
    """The columns in the warehouse, and which tables are empty, against what the evaluation before this
    one has kept: nothing but this would tell of items that were deleted all at once."""
    now = tables.warehouse.types([name for name in tables.existing if name != REJECTED_TABLE])
    if not now:
        return None
    earlier = evaluations(tables.instance, "schema_stable", limit=SAMPLE)
    last = next((one for one in earlier if one.metadata.get("columns")), None)
    empty = [name for name in now if not tables.count(name)]
    found = changes(last.metadata["columns"], now) if last else []
    if last and "empty" in last.metadata:
        filled = now.keys() & last.metadata["columns"].keys() - set(last.metadata["empty"])
        found += [Change(name, "", "emptied", None, None) for name in empty if name in filled]
    since = f"{last.at:%Y-%m-%d %H:%M:%S} UTC" if last else ""
    return Found(
        asked="The columns of the tables, and which are empty, against those of the check before.",
        rows_looked_at=sum(map(len, now.values())),
        offenders=len(found),
        columns=Change._fields,
        sample=found[:SAMPLE],
        description=f"{len(found):,} change{'s' * (len(found) != 1)} since {since}."
        if found
        else f"As they were at {since}."
        if last
        else "The first look at them.",
        more={"columns": MetadataValue.json(now), "empty": MetadataValue.json(empty)},
    )


CHECKS = (
    Check(
        "order_id_unique",
        "No order is in the table twice.",
        by_sql(order_id_unique),
        blocking=True,
    ),
    Check(
        "order_id_not_null",
        "Every order has its id.",
        by_sql(order_id_not_null),
        blocking=True,
    ),
    Check(
        "items_belong_to_an_order",
        "Every row of a child table belongs to a row of its parent.",
        by_sql(items_belong_to_an_order),
    ),
    Check(
        "last_modified_not_in_future",
        "No order was modified later than now (`clock_tolerance_minutes` are allowed for clocks that "
        "differ).",
        by_sql(last_modified_not_in_future),
    ),
    Check(
        "freshness",
        "The newest order was modified within `freshness_hours`.",
        by_sql(freshness),
    ),
    Check(
        "no_rejected_orders",
        "No order waits in `orders_rejected`.",
        by_sql(no_rejected_orders),
    ),
    Check(
        "volume_as_expected",
        "As many orders came as in the same hours of earlier weeks, give or take `volume_factor`. "
        "Passes until there are three of them.",
        volume_as_expected,
    ),
    Check(
        "reconciles_with_source",
        "The API and the warehouse have as many orders, in each window of modification dates.",
        reconciles_with_source,
    ),
    Check(
        "schema_stable",
        "No table or column was added, dropped, emptied, changed in type or split since the check before.",
        schema_stable,
    ),
)


def orders_checks() -> AssetChecksDefinition:
    """All checks, in one step over one connection."""

    @multi_asset_check(
        name="orders_checks",
        specs=[
            AssetCheckSpec(
                check.name, asset=ORDERS_KEY, description=check.description, blocking=check.blocking
            )
            for check in CHECKS
        ],
        can_subset=True,
        pool=POOL,
    )
    def run_checks(context: AssetCheckExecutionContext) -> Iterator[AssetCheckResult]:
        selected = {key.name for key in context.selected_asset_check_keys}
        checks = [check for check in CHECKS if check.name in selected]
        yield from results(checks, context.instance, context.log.info)

    return run_checks


def results(
    checks: Sequence[Check], instance: DagsterInstance, log: Callable[[str], None]
) -> Iterator[AssetCheckResult]:
    """Look at the tables as they are now."""
    with failing_in_words():
        settings = read_settings()
        with orders_warehouse(settings.warehouse_wait_seconds, log) as warehouse:
            tables = tables_now(warehouse, settings, instance)
            for check in checks:
                yield verdict(check, tables)


def tables_now(warehouse: Warehouse, settings: OrdersSettings, instance: DagsterInstance) -> Tables:
    """The tables as they are in the warehouse, whatever dlt's local files say."""
    warehouse.pipeline.sync_destination()
    schema = warehouse.pipeline.schemas.get(ORDERS)
    names = [*orders_tables(schema), REJECTED_TABLE] if schema else [ORDERS, REJECTED_TABLE]
    existing = {table: warehouse.columns(table) for table in names}
    return Tables(
        warehouse,
        settings,
        {table: columns for table, columns in existing.items() if columns},
        {table: str(schema.tables[table].get("parent")) for table in names[1:-1]} if schema else {},
        datetime.now(UTC),
        instance,
    )


def verdict(check: Check, tables: Tables) -> AssetCheckResult:
    """Look, and put what was asked and what was found into the result."""
    found = check.find(tables)
    severity = check.severity(tables.settings.check_severity)
    if found is None:
        return AssetCheckResult(
            check_name=check.name,
            passed=True,
            severity=severity,
            description="There is nothing to look at yet.",
            metadata={"rows_looked_at": 0, "offenders": 0},
        )
    return AssetCheckResult(
        check_name=check.name,
        passed=found.offenders == 0,
        severity=severity,
        description=found.description,
        metadata={
            "asked" if isinstance(found.asked, str) else "sql": found.asked,
            "rows_looked_at": found.rows_looked_at,
            "offenders": found.offenders,
            "sample": table_of(found.columns, found.sample),
            **found.more,
        },
    )


def table_of(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> MetadataValue:
    return MetadataValue.table(
        [TableRecord(dict(zip(names, map(_cell, row), strict=True))) for row in rows],
        TableSchema([TableColumn(name) for name in names]),
    )


def _cell(value: Any) -> str | int | float | bool | None:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value) if isinstance(value, Decimal) else value


def _literal(time: datetime) -> str:
    """A time for SQL: text, which every destination casts when it compares it with a timestamp."""
    return f"'{time.astimezone(UTC).isoformat(timespec='seconds')}'"
