"""What the tests talk about: the shop, over HTTP, and the project, with its tables."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
import requests

from orders_dagster.pipeline import Synchronisation, synchronise
from orders_dagster.settings import read_settings
from orders_dagster.span import Span

Log = Callable[[str], None]

RUN = """
from orders_dagster.pipeline import synchronise
from orders_dagster.settings import read_settings
synchronise(read_settings())
"""

HOLD = """
import signal, sys, duckdb
signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whatever the tests were started with
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "reader")
print("open", flush=True)
sys.stdin.readline()
"""


class Closing:
    """Closes what tests have opened while the next one runs: a sandbox takes 0.2 s to end, which is half of
    a small test, and waits for two ticks of its server's clock in that time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(4)
        self._ends: list[Future[None]] = []

    @contextmanager
    def later(self) -> Iterator[ExitStack]:
        """What is entered in this stack is left some time after the block."""
        stack = ExitStack()
        try:
            yield stack
        finally:
            self._ends.append(self._pool.submit(stack.close))

    def finish(self) -> None:
        """Wait for all of it; raises what went wrong at an end."""
        self._pool.shutdown()
        for end in self._ends:
            end.result()


class Shop:
    """A sandbox API. Changes go over HTTP, as they would from another process."""

    def __init__(self, url: str) -> None:
        self.url = url

    def put(self, *orders: dict[str, Any]) -> None:
        """Create or replace orders; without `last_modified_date` they are modified now."""
        body = json.dumps(list(orders), default=_exact)
        self._post("orders", data=body, headers={"Content-Type": "application/json"})

    def change(self, **counts: int) -> dict[str, Any]:
        """Change that many orders; returns the ids touched by kind."""
        return dict(self._post("change", json=counts))

    def delete(self, order_id: str) -> None:
        requests.delete(f"{self.url}/_sandbox/orders/{order_id}", timeout=30).raise_for_status()

    def script(self, *faults: str) -> None:
        """What happens to the next requests for orders: "503", "drop", "ok", ..."""
        self._post("faults", json={"script": list(faults)})

    def token(self, **how: Any) -> None:
        self._post("token", json=how)

    def set(self, **settings: Any) -> None:
        self._post("settings", json=settings)

    def requests(self) -> list[dict[str, Any]]:
        answer = requests.get(f"{self.url}/_sandbox/requests", timeout=30).json()
        return list(answer["requests"] if isinstance(answer, dict) else answer)

    def orders(self) -> list[dict[str, Any]]:
        """Every order as it is now: the truth that tables are compared with."""
        answer = requests.get(f"{self.url}/_sandbox/orders", timeout=60)
        answer.raise_for_status()
        lines = answer.content.decode().splitlines()
        return [json.loads(line, parse_float=Decimal) for line in lines if line]

    def _post(self, path: str, **kwargs: Any) -> Any:
        answer = requests.post(f"{self.url}/_sandbox/{path}", timeout=60, **kwargs)
        assert answer.ok, answer.text
        return answer.json()


class Tables:
    """The tables of a warehouse file, whoever fills them."""

    def __init__(self, database: Path) -> None:
        self.database = database

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.database), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def scalar(self, sql: str) -> Any:
        return self.query(sql)[0][0]

    def columns(self, table: str) -> dict[str, str]:
        return {row[0]: row[1] for row in self.query(f"DESCRIBE ecommerce.{table}")}

    def orders(self) -> dict[str, tuple[datetime, int]]:
        """Each order's modification date and number of items."""
        rows = self.query(
            """
            SELECT o.order_id, o.last_modified_date, count(i._dlt_id)
            FROM ecommerce.orders o
            LEFT JOIN ecommerce.orders__items i ON i._dlt_parent_id = o._dlt_id
            GROUP BY ALL
            """
        )
        assert len(rows) == len({row[0] for row in rows}), "an order is in the table twice"
        return {row[0]: (row[1], row[2]) for row in rows}


class Project(Tables):
    """The project under test: its settings, and the tables it fills."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(directory / "orders.duckdb")
        self.directory = directory
        self._environment = monkeypatch

    def set(self, **settings: Any) -> None:
        """Settings of [sources.orders]; `retry__max_retries` is `retry.max_retries`."""
        for name, value in settings.items():
            text = json.dumps(value) if isinstance(value, (dict, list)) else str(value)
            self._environment.setenv(f"SOURCES__ORDERS__{name.upper()}", text)

    def unset(self, *names: str) -> None:
        for name in names:
            self._environment.delenv(f"SOURCES__ORDERS__{name.upper()}", raising=False)

    def point_at(self, url: str, *, login: bool = True) -> None:
        self.set(base_url=url)
        if login:
            self.set(
                token_url=f"{url}/oauth/token",
                client_id="sandbox",
                client_secret="sandbox-secret",
            )
        else:
            self.set(auth__type="none")

    def synchronise(
        self, log: Log = lambda message: None, span: Span | None = None
    ) -> Synchronisation:
        return synchronise(read_settings(), log, span=span)

    def start(self) -> subprocess.Popen[bytes]:
        """Synchronise in a process of its own."""
        return subprocess.Popen([sys.executable, "-c", RUN], stderr=subprocess.DEVNULL)

    def execute(self, sql: str) -> None:
        """Change the tables behind the project's back."""
        with duckdb.connect(str(self.database)) as connection:
            connection.execute(sql)


def loaded(tables: Tables) -> set[Any]:
    """The keys of the orders that are in the table."""
    return {key for (key,) in tables.query("SELECT order_id FROM ecommerce.orders")}


def expected(orders: list[dict[str, Any]]) -> dict[str, tuple[datetime, int]]:
    """What `Project.orders` gives when the tables equal the shop."""
    return {
        order["order_id"]: (
            datetime.fromisoformat(order["last_modified_date"]),
            len(order["items"]),
        )
        for order in orders
    }


@contextmanager
def talking(command: Sequence[str], cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Another process, which ends when its input does."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


@contextmanager
def holder(tables: Tables, kind: str = "writer") -> Iterator[subprocess.Popen[str]]:
    """Another process that has the file open until its input ends."""
    with talking([sys.executable, "-c", HOLD, str(tables.database), kind]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process


def _exact(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(type(value))
