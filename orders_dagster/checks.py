"""The asset checks: what is asked of the tables after each load.

Each check is a query for offenders, and passes if there is none. All run in one step over one
connection, through dlt's own client, so that they hold on any SQL destination. Business rules do
not belong here: these are promises about the loading.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetCheckSpec,
    Failure,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
    multi_asset_check,
)

from orders_dagster.assets import ORDERS_KEY, POOL
from orders_dagster.columns import column_name
from orders_dagster.destination import orders_pipeline
from orders_dagster.errors import OrdersError
from orders_dagster.places import ORDERS
from orders_dagster.rejected import REJECTED_TABLE
from orders_dagster.settings import OrdersSettings, read_settings
from orders_dagster.tables import orders_tables
from orders_dagster.warehouse import Warehouse, open_warehouse

SAMPLE = 20
CLOCK_TOLERANCE = timedelta(minutes=5)
"""The clocks of the shop and of this machine differ; a minute ahead is no fault of the data."""


@dataclass(frozen=True)
class Question:
    """One check asked of tables that exist: SQL for the offenders, and how many rows it looks at."""

    sql: str
    rows_looked_at: int


@dataclass(frozen=True)
class Tables:
    """What the questions are asked of.

    Attributes:
        existing: the tables there are now, with their columns.
        parents: the table each child table belongs to.
    """

    warehouse: Warehouse
    settings: OrdersSettings
    existing: dict[str, Sequence[str]]
    parents: dict[str, str]
    now: datetime

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
    """A check: its name and meaning, and the question, None while there is no table to ask."""

    name: str
    description: str
    severity: AssetCheckSeverity
    ask: Callable[[Tables], Question | None]
    blocking: bool = False


def order_id_unique(tables: Tables) -> Question | None:
    if not tables.has(ORDERS):
        return None
    return Question(
        f"SELECT {tables.key}, COUNT(*) AS {tables.warehouse.column('rows_of_it')} "
        f"FROM {tables.orders} WHERE {tables.key} IS NOT NULL "
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
    children = [table for table in tables.parents if tables.has(table)]
    if not children:
        return None
    name, column = tables.warehouse.name, tables.warehouse.column
    parent_id, own_id = column("_dlt_parent_id"), column("_dlt_id")
    questions = []
    for child in children:
        parent = tables.parents[child]
        asked = f"SELECT '{child}' AS {column('in_table')}, c.{parent_id} FROM {name(child)} c"
        if tables.has(parent):
            asked += f" LEFT JOIN {name(parent)} p ON c.{parent_id} = p.{own_id}"
            asked += f" WHERE p.{own_id} IS NULL"
        questions.append(asked)
    return Question(" UNION ALL ".join(questions), sum(tables.count(child) for child in children))


def last_modified_not_in_future(tables: Tables) -> Question | None:
    if not tables.has(ORDERS):
        return None
    limit = _literal(tables.now + CLOCK_TOLERANCE)
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
    """Orders rejected and not loaded since, or with the same load: corrected, it is no longer open."""
    if not tables.has(REJECTED_TABLE):
        return None
    column = tables.warehouse.column
    asked = (
        f"SELECT r.{column('order_id')}, r.{column('reason')}, r.{column('rejected_at')} "
        f"FROM {tables.warehouse.name(REJECTED_TABLE)} r"
    )
    if tables.has(ORDERS):
        load = column("_dlt_load_id")
        asked += (
            f" WHERE NOT EXISTS (SELECT 1 FROM {tables.orders} o "
            f"WHERE CAST(o.{tables.key} AS VARCHAR) = r.{column('order_id')} "
            f"AND o.{load} >= r.{load})"
        )
    return Question(asked, tables.count(REJECTED_TABLE))


ERROR, WARN = AssetCheckSeverity.ERROR, AssetCheckSeverity.WARN

CHECKS = (
    Check("order_id_unique", "No order is in the table twice.", ERROR, order_id_unique, True),
    Check("order_id_not_null", "Every order has its id.", ERROR, order_id_not_null, True),
    Check(
        "items_belong_to_an_order",
        "Every row of a child table belongs to a row of its parent.",
        ERROR,
        items_belong_to_an_order,
    ),
    Check(
        "last_modified_not_in_future",
        "No order was modified later than now (5 minutes are allowed for clocks that differ).",
        WARN,
        last_modified_not_in_future,
    ),
    Check(
        "freshness",
        "The newest order was modified within `freshness_hours`.",
        WARN,
        freshness,
    ),
    Check(
        "no_rejected_orders",
        "No order waits in `orders_rejected`.",
        WARN,
        no_rejected_orders,
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
        try:
            settings = read_settings()
            wait, log = settings.warehouse_wait_seconds, context.log.info
            with (
                orders_pipeline(wait, log) as pipeline,
                open_warehouse(pipeline, wait, log) as warehouse,
            ):
                tables = tables_now(warehouse, settings)
                for check in CHECKS:
                    if check.name in selected:
                        yield verdict(check, tables)
        except OrdersError as error:
            raise Failure(str(error)) from None

    return run_checks


def tables_now(warehouse: Warehouse, settings: OrdersSettings) -> Tables:
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
    )


def verdict(check: Check, tables: Tables) -> AssetCheckResult:
    """Ask, and put what was asked and what was found into the result."""
    question = check.ask(tables)
    if question is None:
        return AssetCheckResult(
            check_name=check.name,
            passed=True,
            severity=check.severity,
            description="There is no table to ask yet.",
            metadata={"rows_looked_at": 0, "offenders": 0},
        )
    counted = f"SELECT COUNT(*) FROM ({question.sql}) offenders"
    offenders = int(tables.warehouse.scalar(counted))
    return AssetCheckResult(
        check_name=check.name,
        passed=offenders == 0,
        severity=check.severity,
        description=f"{offenders:,} of {question.rows_looked_at:,} rows offend."
        if offenders
        else None,
        metadata={
            "sql": MetadataValue.md(f"```sql\n{question.sql}\n```"),
            "rows_looked_at": question.rows_looked_at,
            "offenders": offenders,
            "sample": _sample(tables.warehouse, question.sql),
        },
    )


def _sample(warehouse: Warehouse, sql: str) -> MetadataValue:
    """The first offenders as a table."""
    names, rows = warehouse.head(sql, SAMPLE)
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
