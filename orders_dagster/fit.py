"""Whether the tables can take a load, asked right before it, with the warehouse open: they are as the run
has found or left them, and their columns hold the load as it is.

While a run reads, it does not hold the warehouse. What somebody drops or empties then, dlt makes anew,
without what was in it, and nothing would tell; and what another run loads then would be overwritten by what
this one has read before. So the run ends, and the next one sees what is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dlt
from dlt.common.schema.typing import LOADS_TABLE_NAME, PIPELINE_STATE_TABLE_NAME, TColumnType

from orders_dagster.before import Before, have_read_again, newest_state
from orders_dagster.columns import WIDENING, column_type
from orders_dagster.errors import ColumnsAltered, WarehouseChanged
from orders_dagster.places import ORDERS
from orders_dagster.rejected import REJECTED_TABLE
from orders_dagster.tables import columns_of, drop_staging, is_of_dlt, orders_tables
from orders_dagster.values import SCALE, Column
from orders_dagster.warehouse import Warehouse, kind_of

_TEXTS = ("varchar", "text", "character varying", "json", "jsonb")
_WHOLE = ("bigint", "hugeint")
_COARSE = ("timestamp_s", "timestamp_ms")


@dataclass(frozen=True)
class Left:
    """The tables as a run has found or left them.

    Attributes:
        schema: dlt's schema of them, None if it knows none.
        loads: how many have been completed, and the last one's id.
        filled: which of the tables hold rows; one that is not there holds none. Of `orders_rejected`,
            whether it is there.
        state: dlt's state, as it is stored.
    """

    schema: dlt.Schema | None
    loads: tuple[int, str | None]
    filled: dict[str, bool]
    state: tuple[str, str] | None

    @classmethod
    def now(cls, warehouse: Warehouse, schema: dlt.Schema | None) -> Left:
        """As they are."""
        made = schema.data_tables(seen_data_only=True) if schema else []
        filled = {str(table["name"]): _holds_rows(warehouse, str(table["name"])) for table in made}
        if REJECTED_TABLE in filled:  # who clears rejected orders away does not want them back
            filled[REJECTED_TABLE] = bool(warehouse.columns(REJECTED_TABLE))
        return cls(schema, _loads(warehouse), filled, newest_state(warehouse))


def fit_tables(
    warehouse: Warehouse,
    load: dlt.Schema,
    left: Left,
    gone: Before | None = None,
    *,
    rejects: bool = False,
) -> None:
    """Have the tables take a load as it is.

    Args:
        load: dlt's schema of the load.
        left: the tables as they should be.
        gone: what the run has found, if the load is the first of those that make the tables anew.
        rejects: whether there are rejected orders in the load.

    Raises:
        WarehouseChanged: somebody has dropped or emptied something since, or another run has loaded orders.
        ColumnsAltered: a column has another type than the load.
    """
    now = Left.now(warehouse, left.schema)
    if now.loads[0] < left.loads[0]:
        raise WarehouseChanged([f"{LOADS_TABLE_NAME} was dropped or emptied"])
    if now.loads != left.loads:
        raise WarehouseChanged(["another run has loaded orders"])
    if now.state is None and left.state is not None:
        raise WarehouseChanged([f"{PIPELINE_STATE_TABLE_NAME} was dropped or emptied"])
    if now.state != left.state:  # it may be killed, and what it has loaded hide what is missing
        raise WarehouseChanged(["another run has begun to read all orders again"])
    if emptied := [table for table in left.filled if left.filled[table] > now.filled[table]]:
        if ORDERS not in emptied:  # a list; the next run may take it for one that few orders had
            have_read_again(warehouse)
        raise WarehouseChanged([f"{table} was dropped or emptied" for table in sorted(emptied)])
    tables = [*orders_tables(load), *([REJECTED_TABLE] if rejects else [])]
    ours = [*reversed(orders_tables(load)[1:]), *(gone.tables if gone else [ORDERS])]
    if gone is not None and gone.is_forgotten:  # those that it knows dlt drops itself
        for table in ours:
            if is_of_dlt(warehouse, table):
                warehouse.execute(f"DROP TABLE {warehouse.name(table)}")
    is_stale = left.schema is None
    if kind_of(warehouse.pipeline) in WIDENING:
        if gone is None:
            fit_columns(warehouse, load, left.schema, tables)
        try:
            with warehouse.staging():
                fit_columns(warehouse, load, left.schema, tables)
        except (ColumnsAltered, WarehouseChanged):
            is_stale = True
    if is_stale:
        drop_staging(warehouse, [*ours, REJECTED_TABLE])


def fit_columns(
    warehouse: Warehouse, load: dlt.Schema, left: dlt.Schema | None, tables: Sequence[str]
) -> None:
    """Have the columns that are there hold a load as it is: without a word, the destination would make 7 of
    "007", and cut a fraction.

    Columns that held only whole numbers until now become decimals; dlt never does that. The destination is
    asked what they are, not dlt's schema: a load that was killed may have made a table that no schema tells
    of, and somebody may have changed one by hand.

    Args:
        load: dlt's schema of the load.
        left: that of before.
        tables: those that the load may have rows for.

    Raises:
        WarehouseChanged: a column that was there is not there any more.
        ColumnsAltered: a column has another type than the load.
    """
    there = warehouse.column_types(tables)
    gone = [column for column in _columns(left, tables) if _folded(column) not in there]
    if gone:
        raise WarehouseChanged([f"{table}.{name} was dropped" for table, name in gone])
    altered = []
    for table in tables:
        for name in load.tables[table]["columns"]:
            kind, of_dlt = there.get(_folded((table, name)), ("", None))
            wanted = column_type(load, (table, name))
            if of_dlt is None or wanted is None:
                continue
            is_whole = of_dlt["data_type"] == "bigint"
            if wanted == "decimal" and is_whole and column_type(left, (table, name)) != "decimal":
                warehouse.execute(_to_decimal(warehouse, table, name))
            elif not _holds(kind, of_dlt, wanted):
                altered.append((f"{table}.{name}", kind, wanted))
    if altered:
        raise ColumnsAltered(altered)


def _loads(warehouse: Warehouse) -> tuple[int, str | None]:
    column = warehouse.column
    found = warehouse.query_if_there(
        f"SELECT COUNT(*), MAX({column('load_id')}) FROM {warehouse.name(LOADS_TABLE_NAME)} "
        f"WHERE {column('status')} = 0 AND {column('schema_name')} = %s",
        ORDERS,
    )
    count, last = found[0] if found else (0, None)
    return int(count), last


def _folded(column: Column) -> Column:
    """As names are compared: somebody may have written one in capitals."""
    return column[0].lower(), column[1].lower()


def _columns(schema: dlt.Schema | None, tables: Sequence[str]) -> Iterator[Column]:
    """The columns of some tables that dlt has made."""
    for table in schema.data_tables(seen_data_only=True) if schema else []:
        if table["name"] in tables:
            yield from ((str(table["name"]), column) for column in columns_of(table))


def _holds_rows(warehouse: Warehouse, table: str) -> bool:
    there = f"EXISTS (SELECT 1 FROM {warehouse.name(table)})"
    found = warehouse.query_if_there(f"SELECT CASE WHEN {there} THEN 1 ELSE 0 END")
    return bool(found and found[0][0])


def _holds(kind: str, of_dlt: TColumnType, wanted: str) -> bool:
    """Whether a column holds all values of a type unchanged.

    Args:
        kind: the destination's type.
        of_dlt: what dlt takes that for: for text, if it does not know it.
    """
    if of_dlt["data_type"] == "decimal":
        scale = of_dlt.get("scale")
        # Of whole numbers to dlt, if a load was killed after the column was widened.
        return wanted == "bigint" or (wanted == "decimal" and (scale is None or scale >= SCALE))
    if wanted in ("text", "json"):
        return kind.lower() in _TEXTS
    if wanted == "bigint":
        return kind.lower() in _WHOLE
    return of_dlt["data_type"] == wanted and kind.lower() not in _COARSE


def _to_decimal(warehouse: Warehouse, table: str, column: str) -> str:
    with warehouse.pipeline.destination_client() as client:
        decimal = client.type_mapper.to_destination_type(  # type: ignore[attr-defined]
            {"name": column, "data_type": "decimal"}, {"name": table}
        )
    change = f"ALTER COLUMN {warehouse.column(column)} SET DATA TYPE {decimal}"
    return f"ALTER TABLE {warehouse.name(table)} {change}"
