"""A large warehouse from a small one, by SQL: loading it would take half an hour."""

from __future__ import annotations

from pathlib import Path

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
