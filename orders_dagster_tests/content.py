"""Everything the tables hold, put together into orders again, to be compared with the shop's.

Knows nothing of how the project makes its tables; only what the README says about them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import duckdb

from orders_dagster_tests.world import Project, Shop

Fields = dict[str, Any]
LISTS = ("items", "tags")


def assert_the_tables_equal_the_shop(project: Project, shop: Shop, rejected: int = 0) -> None:
    """Every order once, each field of it, exactly its items; and dlt's own tables are consistent."""
    of_shop = {order["order_id"]: _flat(order) for order in shop.orders() if _is_dated(order)}
    of_tables = _orders(project)
    assert sorted(of_tables) == sorted(of_shop)
    for order_id, fields in of_shop.items():
        assert of_tables[order_id] == _typed_like(of_tables[order_id], fields), order_id
    assert _rejected(project) == rejected
    _assert_the_loads_are_complete(project)


def _orders(project: Project) -> dict[str, Fields]:
    with duckdb.connect(str(project.database), read_only=True) as connection:
        rows = list(_rows(connection, "orders"))
        orders = {row["_dlt_id"]: _without_links(row) for row in rows}
        assert len(orders) == len(rows), "an id of a row is in the table twice"
        for name in LISTS:
            for row in sorted(_rows(connection, f"orders__{name}"), key=_place):
                parent = orders.get(row["_dlt_parent_id"])
                assert parent is not None, f"a row of orders__{name} has no order"
                fields = _without_links(row)
                parent.setdefault(name, []).append(fields.get("value", fields))
    counts = Counter(order["order_id"] for order in orders.values())
    assert not [order_id for order_id, count in counts.items() if count > 1], (
        "an order is there twice"
    )
    return {order["order_id"]: order for order in orders.values()}


def _rows(connection: duckdb.DuckDBPyConnection, table: str) -> Iterator[Fields]:
    found = connection.execute(
        "SELECT 1 FROM information_schema.tables WHERE table_schema = 'ecommerce' AND table_name = ?",
        [table],
    ).fetchall()
    if not found:
        return
    result = connection.execute(f"SELECT * FROM ecommerce.{table}")
    names = [column[0] for column in result.description or ()]
    for row in result.fetchall():
        yield {name: value for name, value in zip(names, row, strict=True) if value is not None}


def _place(row: Fields) -> tuple[str, int]:
    return row["_dlt_parent_id"], row["_dlt_list_idx"]


def _without_links(row: Fields) -> Fields:
    """The fields of the order; a value that is in the column of another type is the field's."""
    return {
        re.sub(r"__v_\w+$", "", name): value
        for name, value in row.items()
        if not name.startswith("_dlt_")
    }


def _flat(order: Fields, prefix: str = "") -> Fields:
    """Nested objects as columns; a null, or an empty list, is no value."""
    fields: Fields = {}
    for name, value in order.items():
        if isinstance(value, dict):
            fields |= _flat(value, f"{prefix}{name}__")
        elif isinstance(value, list) and value:
            fields[prefix + name] = [
                _flat(one) if isinstance(one, dict) else one for one in value if one is not None
            ]
        elif value is not None and value != []:
            fields[prefix + name] = value
    return fields


def _typed_like(row: Fields, fields: Fields) -> Fields:
    """The times of the order as times, where the table has one."""
    return {
        name: datetime.fromisoformat(value) if isinstance(row.get(name), datetime) else value
        for name, value in fields.items()
    }


def _is_dated(order: Fields) -> bool:
    try:
        datetime.fromisoformat(order["last_modified_date"])
    except (KeyError, TypeError, ValueError):
        return False
    return True


def _rejected(project: Project) -> int:
    with duckdb.connect(str(project.database), read_only=True) as connection:
        return sum(1 for _ in _rows(connection, "orders_rejected"))


def _assert_the_loads_are_complete(project: Project) -> None:
    """Each load is there once, with status 0, and no order comes from any other."""
    loads = project.query("SELECT load_id, status FROM ecommerce._dlt_loads")
    assert len({load for load, _ in loads}) == len(loads)
    assert {status for _, status in loads} == {0}
    of_orders = {load for (load,) in project.query("SELECT _dlt_load_id FROM ecommerce.orders")}
    assert of_orders <= {load for load, _ in loads}
    of_state = project.query("SELECT _dlt_load_id FROM ecommerce._dlt_pipeline_state")
    assert {load for load, _ in loads} & {load for (load,) in of_state}, "no watermark is durable"
