"""What befalls a warehouse behind the project's back."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import duckdb


def befall(database: Path, what: str, rng: Random) -> list[Any]:
    """Harm the tables. Returns the ids of the orders that are lost.

    Args:
        what: one of `MISHAPS`.
    """
    with duckdb.connect(str(database), config={"threads": 1}) as connection:
        sql = "SELECT order_id FROM ecommerce.orders ORDER BY last_modified_date, order_id"
        keys = [key for (key,) in connection.execute(sql).fetchall()]
        if what == "dropped":
            connection.execute("DROP TABLE ecommerce.orders")
            return keys
        lost = _lost(keys, what, rng)
        orders = "(SELECT _dlt_id FROM ecommerce.orders WHERE order_id IN ?)"
        if what != "without their items":
            names = (
                "SELECT table_name FROM duckdb_tables() WHERE starts_with(table_name, 'orders__')"
            )
            for (child,) in connection.execute(names).fetchall():
                connection.execute(
                    f"DELETE FROM ecommerce.{child} WHERE _dlt_root_id IN {orders}", [lost]
                )
        connection.execute("DELETE FROM ecommerce.orders WHERE order_id IN ?", [lost])
    return lost


def _lost(keys: list[Any], what: str, rng: Random) -> list[Any]:
    if what == "emptied" or not keys:
        return keys
    if what == "a time lost":
        first, last = sorted((rng.randrange(len(keys)), rng.randrange(len(keys))))
        return keys[first : last + 1]
    return rng.sample(keys, rng.randint(1, max(1, len(keys) // rng.choice((1, 4, 20)))))
