"""The contender below which nothing goes: bodies to files, and DuckDB's `read_json` over them.

It retries nothing, checks nothing and trusts the first total. The tables are `orders`, with nested
objects as they are, and `items`.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import requests

PAGE_SIZE = 200


def main() -> None:
    started = time.perf_counter()
    with (
        duckdb.connect(os.environ["DESTINATION__DUCKDB__CREDENTIALS"]) as warehouse,
        TemporaryDirectory() as directory,
    ):
        is_first = not warehouse.execute("SHOW TABLES").fetchall()
        total = read(Path(directory), "2000-01-01T00:00:00Z" if is_first else newest(warehouse))
        if total:
            load(warehouse, directory, is_first)
    seconds = time.perf_counter() - started
    print(json.dumps({"work_seconds": seconds, "note": f"{total:,} orders"}))


def read(directory: Path, since: str) -> int:
    """Write the pages to files; the number of orders there were."""
    url, total, offset = os.environ["SOURCES__ORDERS__BASE_URL"], 1, 0
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token(session)}"
        while offset < total:
            page = {"limit": str(PAGE_SIZE), "offset": str(offset)}
            answer = session.get(
                f"{url}/v1/orders",
                params=page | {"modified_since": since, "sort": "last_modified_date"},
                timeout=60,
            )
            answer.raise_for_status()
            if not offset:
                total = answer.json()["total"]
            (directory / f"{offset}.json").write_bytes(answer.content)
            offset += PAGE_SIZE
    return total


def token(session: requests.Session) -> str:
    answer = session.post(
        os.environ["SOURCES__ORDERS__TOKEN_URL"],
        data={
            "grant_type": "client_credentials",
            "client_id": os.environ["SOURCES__ORDERS__CLIENT_ID"],
            "client_secret": os.environ["SOURCES__ORDERS__CLIENT_SECRET"],
        },
        timeout=60,
    )
    answer.raise_for_status()
    return str(answer.json()["access_token"])


def newest(warehouse: duckdb.DuckDBPyConnection) -> str:
    """The latest modification date, as the API writes it."""
    row = warehouse.execute(
        "SELECT strftime(max(last_modified_date), '%Y-%m-%dT%H:%M:%S.%gZ') FROM orders"
    ).fetchone()
    assert row
    return str(row[0])


def load(warehouse: duckdb.DuckDBPyConnection, directory: str, is_first: bool) -> None:
    warehouse.execute(
        f"CREATE TEMP TABLE page AS SELECT unnest(orders) AS o FROM read_json('{directory}/*.json')"
    )
    rows = {
        "orders": "SELECT unnest(o) FROM page",
        "items": "SELECT o.order_id, unnest(o.items, recursive := true) FROM page",
    }
    with warehouse.begin():
        for table, query in rows.items():
            if is_first:
                warehouse.execute(f"CREATE TABLE {table} AS {query}")
            else:
                warehouse.execute(
                    f"DELETE FROM {table} WHERE order_id IN (SELECT o.order_id FROM page)"
                )
                warehouse.execute(f"INSERT INTO {table} BY NAME {query}")
        warehouse.commit()


if __name__ == "__main__":
    main()
