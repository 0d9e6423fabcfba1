"""Whether the tables can take a load, asked right before it, with the warehouse open: they are as the run
has found or left them, and their columns hold the load as it is.

While a run reads, it does not hold the warehouse. What somebody drops or empties then, dlt makes anew,
without what was in it, and nothing would tell; and what another run loads then would be overwritten by what
this one has read before. So the run ends, and the next one sees what is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import dlt
from dlt.common.schema.typing import LOADS_TABLE_NAME, TColumnType

from orders_dagster.columns import WIDENING, column_type
from orders_dagster.errors import ColumnsAltered, WarehouseChanged
from orders_dagster.places import ORDERS
from orders_dagster.tables import drop_staging, orders_tables
from orders_dagster.values import SCALE, Column
from orders_dagster.warehouse import Warehouse, is_undefined, kind_of


@dataclass(frozen=True)
class Left:
    """The tables as a run has found or left them.

    Attributes:
        schema: dlt's schema of them, None if it knows none.
        loads: how many have been completed, and the last one's id.
        filled: which of the tables hold rows; one that is not there holds none.
        unknown: tables that are there without dlt knowing them, to be dropped, as it drops those that it
            makes anew itself.
    """

    schema: dlt.Schema | None
    loads: tuple[Any, ...]
    filled: dict[str, bool]
    unknown: tuple[str, ...] = ()

    @classmethod
    def now(
        cls, warehouse: Warehouse, schema: dlt.Schema | None, unknown: tuple[str, ...] = ()
    ) -> Left:
        """As they are."""
        name, column = warehouse.name, warehouse.column
        made = {table for table, _ in _columns(schema)}
        loads: tuple[Any, ...] = (0, None)
        try:
            [loads] = warehouse.query(
                f"SELECT COUNT(*), MAX({column('load_id')}) FROM {name(LOADS_TABLE_NAME)} "
                f"WHERE {column('status')} = 0 AND {column('schema_name')} = %s",
                ORDERS,
            )
        except Exception as error:
            if not is_undefined(error):
                raise
        filled = {table: _holds_rows(warehouse, table) for table in made}
        return cls(schema, tuple(loads), filled, unknown)


def fit_tables(warehouse: Warehouse, load: dlt.Schema, left: Left) -> None:
    """Have the tables take a load as it is.

    Args:
        load: dlt's schema of the load.
        left: the tables as they should be.

    Raises:
        WarehouseChanged: somebody has dropped or emptied something since, or another run has loaded orders.
        ColumnsAltered: a column has another type than the load.
    """
    now = Left.now(warehouse, left.schema)
    if now.loads != left.loads:
        raise WarehouseChanged(["another run has loaded orders"])
    if emptied := [table for table in left.filled if left.filled[table] > now.filled[table]]:
        raise WarehouseChanged([f"{table} was dropped or emptied" for table in sorted(emptied)])
    if left.unknown:
        for table in {*left.unknown, *orders_tables(load)}:
            warehouse.execute(f"DROP TABLE IF EXISTS {warehouse.name(table)}")
    is_stale = left.schema is None
    if kind_of(warehouse.pipeline) in WIDENING:
        if left.schema is not None:
            fit_columns(warehouse, load, left.schema)
        try:
            with warehouse.staging():
                fit_columns(warehouse, load, left.schema)
        except (ColumnsAltered, WarehouseChanged):
            is_stale = True
    if is_stale:
        drop_staging(warehouse)


def fit_columns(warehouse: Warehouse, load: dlt.Schema, left: dlt.Schema | None) -> None:
    """Have the columns that are there hold a load as it is: without a word, the destination would make 7 of
    "007", and cut a fraction.

    Columns that held only whole numbers until now become decimals; dlt never does that. The destination is
    asked what they are, not dlt's schema: a load that was killed may have made a table that no schema tells
    of, and somebody may have changed one by hand.

    Raises:
        WarehouseChanged: a column that was there is not there any more.
        ColumnsAltered: a column has another type than the load.
    """
    there = warehouse.column_types(orders_tables(load))
    gone = [f"{table}.{name}" for table, name in _columns(left) if (table, name) not in there]
    if gone:
        raise WarehouseChanged([f"{name} was dropped" for name in gone])
    altered = []
    for (table, name), kind in sorted(there.items()):
        wanted = column_type(load, (table, name))
        if wanted == "decimal" and kind["data_type"] == "bigint":
            warehouse.execute(_to_decimal(warehouse, table, name))
        elif wanted is not None and not _holds(kind, wanted):
            altered.append((f"{table}.{name}", str(kind["data_type"]), wanted))
    if altered:
        raise ColumnsAltered(altered)


def _columns(schema: dlt.Schema | None) -> Iterable[Column]:
    """The columns of `orders` and its child tables that dlt has made."""
    if schema is not None:
        made = {str(table["name"]): table for table in schema.data_tables(seen_data_only=True)}
        for name in orders_tables(schema):
            columns = made[name]["columns"] if name in made else {}
            yield from ((name, column) for column, hints in columns.items() if "data_type" in hints)


def _holds_rows(warehouse: Warehouse, table: str) -> bool:
    try:
        there = f"EXISTS (SELECT 1 FROM {warehouse.name(table)})"
        return bool(warehouse.scalar(f"SELECT CASE WHEN {there} THEN 1 ELSE 0 END"))
    except Exception as error:
        if is_undefined(error):
            return False
        raise


def _holds(there: TColumnType, wanted: str) -> bool:
    """Whether a column holds all values of a type unchanged, or refuses them."""
    if there["data_type"] == "decimal":
        # Of whole numbers to dlt, if a load was killed after the column was widened.
        return wanted == "bigint" or (wanted == "decimal" and there.get("scale") in (None, SCALE))
    return there["data_type"] == wanted


def _to_decimal(warehouse: Warehouse, table: str, column: str) -> str:
    with warehouse.pipeline.destination_client() as client:
        decimal = client.type_mapper.to_destination_type(  # type: ignore[attr-defined]
            {"name": column, "data_type": "decimal"}, {"name": table}
        )
    change = f"ALTER COLUMN {warehouse.column(column)} SET DATA TYPE {decimal}"
    return f"ALTER TABLE {warehouse.name(table)} {change}"
