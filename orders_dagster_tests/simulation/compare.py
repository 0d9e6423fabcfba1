"""The warehouse against the shop, field by field.

Tables are read without the project's help, and put together again: a row of `orders` with the rows of
its child tables, and of theirs. What cannot be put together is a finding of its own: a row without its
parent, two rows in one place of a list, an order twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from orders_dagster_tests.simulation.goods import Order

_SCHEMA = "ecommerce"
_SEVERAL = object()  # more than one variant of a field holds a value


@dataclass
class Tables:
    """What a warehouse holds.

    Attributes:
        orders: by id, each with its lists.
        deleted: the ids of those that are marked deleted.
        faults: what no shop could explain.
    """

    orders: dict[Any, Order] = field(default_factory=dict)
    deleted: set[Any] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


def read_tables(database: Path) -> Tables:
    """The orders in a warehouse; none if there is no file or no table yet."""
    tables = Tables()
    if not database.exists():
        return tables
    with duckdb.connect(str(database), config={"threads": 1}) as connection:
        names = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = ? "
            "AND (table_name = 'orders' OR starts_with(table_name, 'orders__'))",
            [_SCHEMA],
        ).fetchall()
        content = {name: _rows(connection, name) for (name,) in names}
    lists = _lists(content, tables.faults)
    for row in content.get("orders", []):
        order = _put_together(row, lists)
        key = order.get("order_id")
        if key in tables.orders:
            tables.faults.append(f"order {key} is in the table twice")
        if order.pop("deleted_at", None) is not None:
            tables.deleted.add(key)
        tables.orders[key] = order
    return tables


def _rows(connection: duckdb.DuckDBPyConnection, table: str) -> list[dict[str, Any]]:
    cursor = connection.execute(f"SELECT * FROM {_SCHEMA}.{table}")
    columns = [column[0] for column in cursor.description or ()]
    return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def _lists(
    content: dict[str, list[dict[str, Any]]], faults: list[str]
) -> dict[str, dict[str, dict[int, Order]]]:
    """The lists of each row, by its id and the name of the list; deepest tables first."""
    lists: dict[str, dict[str, dict[int, Order]]] = defaultdict(lambda: defaultdict(dict))
    for table in sorted(content, key=len, reverse=True):
        if table == "orders":
            continue
        parent = max((n for n in content if table.startswith(f"{n}__")), key=len)
        parents = {row["_dlt_id"] for row in content[parent]}
        name = table.removeprefix(f"{parent}__")
        for row in content[table]:
            above, index = row["_dlt_parent_id"], row["_dlt_list_idx"]
            if above not in parents:
                faults.append(f"a row of {table} has no parent: {_shown(row)}")
            if index in lists[above][name]:
                faults.append(f"place {index} of a list of {table} is taken twice: {_shown(row)}")
            lists[above][name][index] = _put_together(row, lists)
    return lists


def _put_together(
    row: dict[str, Any], lists: dict[str, dict[str, dict[int, Order]]]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for column, value in row.items():
        if value is None or column.startswith("_dlt_"):
            continue
        name = column.partition("__v_")[0]
        values[name] = _SEVERAL if name in values else value
    for name, elements in lists.get(row["_dlt_id"], {}).items():
        values[name] = [elements[index] for index in sorted(elements)]
    return values


def flat(fields: Order) -> dict[str, Any]:
    """An order of the shop as tables hold it: objects in columns, no nulls, no empty lists."""
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            values |= {f"{name}__{inner}": v for inner, v in flat(value).items()}
        elif isinstance(value, list):
            if value:
                values[name] = [flat(e) if isinstance(e, dict) else {"value": e} for e in value]
        elif value is not None:
            values[name] = value
    return values


def differences(shop: Any, table: Any, where: str = "") -> Iterator[str]:
    """What differs between a flat order and one out of the tables."""
    if isinstance(shop, dict) and isinstance(table, dict):
        for name in [*shop, *(name for name in table if name not in shop)]:
            yield from differences(shop.get(name), table.get(name), f"{where}.{name}".strip("."))
    elif isinstance(shop, list) and isinstance(table, list) and len(shop) == len(table):
        for index, (one, other) in enumerate(zip(shop, table, strict=True)):
            yield from differences(one, other, f"{where}[{index}]")
    elif not _is_same(shop, table):
        yield f"{where}: {shop!r} in the shop, {table!r} in the table"


def _is_same(shop: Any, table: Any) -> bool:
    if isinstance(shop, datetime) and isinstance(table, datetime):
        return shop == (table.replace(tzinfo=UTC) if table.tzinfo is None else table)
    if isinstance(shop, bool) or isinstance(table, bool):
        return shop is table
    # A column of text takes numbers as text; a number never becomes another one.
    return bool(shop == table) or (isinstance(table, str) and str(shop) == table)


def _shown(row: dict[str, Any]) -> str:
    return str({k: str(v) for k, v in row.items() if v is not None})[:300]
