"""A large warehouse from a small one, by SQL, and an API that counts as many orders: loading them would
take half an hour, and a sandbox with them all of the memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

_NEW = {
    "order_id": "order_id || '-' || n",
    "_dlt_id": "_dlt_id || '-' || n",
    "_dlt_parent_id": "_dlt_parent_id || '-' || n",
    "_dlt_root_id": "_dlt_root_id || '-' || n",
    "last_modified_date": "last_modified_date - to_seconds(n)",
}


def grow(warehouse: Path, times: int) -> dict[str, int]:
    """Make every order that many orders, with their items. Returns the rows of each table."""
    rows = {}
    with duckdb.connect(str(warehouse)) as connection:
        found = connection.execute(
            "SELECT table_name, list(column_name ORDER BY ordinal_position) "
            "FROM information_schema.columns WHERE table_schema = 'ecommerce' "
            "AND (table_name = 'orders' OR table_name LIKE 'orders\\_\\_%' ESCAPE '\\') GROUP BY 1"
        ).fetchall()
        for table, columns in found:
            values = ", ".join(_NEW.get(column, f'"{column}"') for column in columns)
            connection.execute(
                f"INSERT INTO ecommerce.{table} "
                f"SELECT {values} FROM ecommerce.{table}, range(1, {times}) more(n)"
            )
            (count,) = connection.execute(f"SELECT count(*) FROM ecommerce.{table}").fetchone() or (
                0,
            )
            rows[str(table)] = int(count)
    return rows


def counting(warehouse: Path) -> Callable[[dict[str, str]], dict[str, Any]]:
    """Answers of an API that has the orders of a warehouse, for those who only ask how many they are."""
    with duckdb.connect(str(warehouse)) as connection:
        dates = connection.sql(
            "SELECT epoch_us(last_modified_date) FROM ecommerce.orders ORDER BY 1"
        ).to_arrow_table()
    ordered = memoryview(dates.column(0).combine_chunks().buffers()[1]).cast("q")

    def answer(query: dict[str, str]) -> dict[str, Any]:
        start, end = (
            bisect_left(ordered, round(datetime.fromisoformat(time).timestamp() * 1_000_000))
            for time in (query["modified_since"], query["modified_before"])
        )
        return {"orders": [], "total": end - start}

    return answer
