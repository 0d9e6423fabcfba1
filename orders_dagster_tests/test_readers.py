"""People look at the tables while a run fills them: neither may break the other.

DuckDB lets one process write, or many read. A reader that comes while the run has the file open is turned
away and may come again; a run that comes while a reader has it open waits. Nothing here is left to chance:
the reader is another process that looks when the test says so, and the test says so at each request, before
each statement of a load, and at the moment when the run wants the file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient

from orders_dagster_tests.scenarios import plain_orders
from orders_dagster_tests.small_api import Answer, Api, page
from orders_dagster_tests.world import Project, expected, talking

WHAT_IS_THERE = """
    SELECT
        (SELECT count(*) FROM ecommerce.orders),
        (SELECT count(DISTINCT order_id) FROM ecommerce.orders),
        (SELECT count(*) FROM ecommerce.orders__items),
        (SELECT count(DISTINCT o._dlt_id) FROM ecommerce.orders o
            JOIN ecommerce.orders__items i ON i._dlt_parent_id = o._dlt_id),
        (SELECT count(*) FROM ecommerce.orders
            WHERE _dlt_load_id NOT IN (SELECT load_id FROM ecommerce._dlt_loads))
"""

READER = """
import json, sys, duckdb
database, query = sys.argv[1:]
connection = None
for word in map(str.strip, sys.stdin):
    answer = None
    try:
        if word in ("look", "open"):
            connection = duckdb.connect(database, read_only=True)
            answer = connection.execute(query).fetchone()
    except duckdb.IOException as error:
        answer = "locked" if "Could not set lock" in str(error) else f"broken: {error}"
    except Exception as error:
        answer = f"broken: {type(error).__name__}: {error}"
    if connection and word != "open":
        connection.close()
        connection = None
    print(json.dumps(answer), flush=True)
"""


class Reader:
    """Another process that looks at the tables when it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lock = Lock()
        self.seen: list[list[int]] = []
        self.stays = self.turned_away = 0
        self.broken: list[str] = []

    def look(self) -> None:
        """Open the file, note what is there, close it."""
        self._tell("look")

    def stay(self) -> None:
        """The same, but keep the file open."""
        self.stays += 1
        self._tell("open")

    def leave(self) -> None:
        self._tell("close")

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()
            answer: Any = json.loads(self._process.stdout.readline())
            if answer == "locked":
                self.turned_away += 1
            elif isinstance(answer, str):
                self.broken.append(answer)
            elif answer is not None:
                self.seen.append(answer)


@contextmanager
def reader_of(database: Path) -> Iterator[Reader]:
    with talking([sys.executable, "-c", READER, str(database), WHAT_IS_THERE]) as process:
        yield Reader(process)


def before_each_statement(monkeypatch: pytest.MonkeyPatch, look: Callable[[], None]) -> None:
    """Look whenever a statement is about to be run, the file being open for writing then."""
    execute_query = DuckDbSqlClient.execute_query

    @contextmanager
    def watched(client: DuckDbSqlClient, *args: Any, **kwargs: Any) -> Iterator[Any]:
        look()
        with execute_query(client, *args, **kwargs) as cursor:
            yield cursor

    monkeypatch.setattr(DuckDbSqlClient, "execute_query", watched)


def test_a_reader_during_a_long_load_sees_whole_checkpoints_and_breaks_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No order without its item, none of a load that is not complete, no file that cannot be opened;
    and for each checkpoint the run waits until the reader has gone."""
    orders = plain_orders(100)
    waited: list[str] = []

    with reader_of(project.database) as reader:

        def answer(query: dict[str, str]) -> Answer:
            if len(orders) > 100:  # there are tables to look at
                reader.look()
            return page(orders, query)

        def log(message: str) -> None:
            if message.endswith("loading."):
                reader.stay()
            elif "waiting" in message:
                waited.append(message)
                reader.leave()

        with Api(answer).running() as api:
            project.point_at(api.url, login=False)
            project.set(checkpoint_orders=150, page_size=50)
            project.synchronise()
            orders += plain_orders(600)[100:]
            before_each_statement(monkeypatch, reader.look)
            project.synchronise(log)

        assert reader.broken == []
        assert reader.turned_away > 0
        for rows, ids, items, with_items, of_a_load_under_way in reader.seen:
            assert rows == ids == items == with_items
            assert of_a_load_under_way == 0
        sizes = [rows for rows, *_ in reader.seen]
        assert sizes == sorted(sizes)
        assert len(set(sizes)) >= 4, "it looked at several checkpoints"
        assert len(waited) == reader.stays >= 3, "each load had to wait, and did"
    assert project.orders() == expected(orders)
