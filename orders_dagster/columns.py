"""Where dlt puts the fields of an order, and one decimal column for a number that is `10` here and
`10.5` there.

Left alone, dlt gives a column the type of the first value it sees, and splits the others off into a
variant column (`total` and `total__v_decimal`), over which every sum is wrong.
"""

from __future__ import annotations

from functools import cache

import dlt
from dlt.common.schema.typing import TColumnSchema, TPartialTableSchema
from dlt.common.schema.utils import new_table

from orders_dagster.rows import path_of
from orders_dagster.values import LIST, Path
from orders_dagster.warehouse import Warehouse

ORDERS = "orders"

WIDENING = ("duckdb", "motherduck", "postgres")
"""Destinations that can turn a column of whole numbers into decimals in place. On the others, a
column that exists already gets a variant column beside it: nothing is lost, but sums need both."""


@cache
def column_name(setting: str) -> str:
    """The column of a field from a setting, `meta.updated_at`."""
    return "__".join(identifier(part) for part in path_of(setting))


@cache
def table_and_column(path: Path) -> tuple[str, str]:
    """The table and column of a field, by its path in an order, as dlt's normalizer names them: a list
    is a table, a list in a list is its table's `list`, and an element that is no object its `value`."""
    names: list[str] = []
    table = [ORDERS]
    for part in path:
        if part == LIST:
            table.append("__".join(names) or "list")
            names = []
        else:
            names.append(identifier(part))
    return "__".join(table), "__".join(names) or "value"


@cache
def identifier(name: str) -> str:
    """The name of the column or table that a field's name becomes."""
    return str(dlt.Schema(ORDERS).naming.normalize_identifier(name))


def column_type(schema: dlt.Schema | None, path: Path) -> str | None:
    """dlt's type of the column of a field, None if there is no such column yet."""
    table, column = table_and_column(path)
    columns = schema.tables.get(table, {}).get("columns", {}) if schema else {}
    return columns.get(column, {}).get("data_type")


def declare_decimal(schema: dlt.Schema, path: Path) -> None:
    """Make the column of a field decimal, unless it holds something else than whole numbers."""
    if column_type(schema, path) not in (None, "bigint"):
        return
    table, column = table_and_column(path)
    parent = ""
    for name in _tables_on(path):
        if name not in schema.tables:
            schema.update_table(new_table(name, parent_table_name=parent))
        parent = name
    # The columns alone: new_table would also make the table one that is appended to, not merged.
    decimal: TColumnSchema = {"name": column, "data_type": "decimal", "nullable": True}
    partial: TPartialTableSchema = {"name": table, "columns": {column: decimal}}
    if table != ORDERS:
        partial["parent"] = schema.tables[table]["parent"]
    schema.update_table(partial)


def _tables_on(path: Path) -> list[str]:
    """The tables from `orders` down to that of a field, parents first: one for each list."""
    ends = [n + 1 for n, part in enumerate(path) if part == LIST]
    return [ORDERS, *(table_and_column(path[:end])[0] for end in ends)]


def widen_to_decimal(warehouse: Warehouse, path: Path) -> None:
    """Change the type of a column that held only whole numbers until now; dlt never does."""
    table, column = table_and_column(path)
    with warehouse.pipeline.destination_client() as client:
        decimal = client.type_mapper.to_destination_type(  # type: ignore[attr-defined]
            {"name": column, "data_type": "decimal"}, {"name": table}
        )
    change = f"ALTER COLUMN {warehouse.column(column)} SET DATA TYPE {decimal}"
    if warehouse.columns(table):
        warehouse.execute(f"ALTER TABLE {warehouse.name(table)} {change}")
    with warehouse.staging() as staging:
        if staging.columns(table):
            staging.execute(f"ALTER TABLE {staging.name(table)} {change}")
