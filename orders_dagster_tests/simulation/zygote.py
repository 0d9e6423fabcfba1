"""A process that has imported everything and forks one child for each run, so that a run costs no import.

It reads one JSON object a line, `{"environment": {...}, "kill": ..., "repair": ...}`, the last two null or
the arguments of a `Kill` and of `_repaired`, forks a child that runs `synchronise` or `repair`, and
writes what the child says: `{"pid": n}`, `{"line": "..."}` for each line of progress, then `{"ok": {...}}`
or `{"error": ...}`, and at last, from the zygote itself, `{"exit": status}`.

No thread and no connection to DuckDB may exist in it: a fork would inherit their locks. So it learns
what a run imports from its first child, and imports that itself.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from orders_dagster.destination import orders_warehouse
from orders_dagster.errors import OrdersError
from orders_dagster.pipeline import synchronise
from orders_dagster.reconcile import Difference, compare
from orders_dagster.repair import repair
from orders_dagster.settings import read_settings
from orders_dagster.span import Span

_FILE_EVENTS = (
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.scandir",
    "os.truncate",
)
_LONGEST_MESSAGE = 3000  # a pipe takes 4,096 bytes at once or not at all, also from a dying process


def main() -> None:
    """Serve until the pipe is closed."""
    channel = os.dup(1)
    os.dup2(2, 1)  # what a library prints is not for the channel
    is_warm = False
    for line in sys.stdin:
        modules, send_modules = os.pipe()
        child = os.fork()
        if child == 0:
            _run(channel, json.loads(line), send_modules)
        os.close(send_modules)
        with os.fdopen(modules) as names:
            new = names.read().split()
        _, status = os.waitpid(child, 0)
        if not is_warm and new:
            _warm_up(new)
            is_warm = True
        _say(channel, exit=status)


def _warm_up(modules: list[str]) -> None:
    for name in modules:
        with suppress(ImportError):  # some are made up by others as they run
            importlib.import_module(name)
    threads = threading.enumerate()
    assert len(threads) == 1, f"a run cannot be forked beside threads: {threads}"


def _run(channel: int, order: dict[str, Any], send_modules: int) -> NoReturn:
    """The child: one synchronisation, and the end of the process."""
    known = set(sys.modules)
    os.environ.update(order["environment"])
    _say(channel, pid=os.getpid())
    lines = _Lines(channel)
    if order["kill"]:
        _arm(lines, **order["kill"])
    try:
        _say(channel, ok=_repaired(lines, **order["repair"]) if order["repair"] else _read(lines))
    except BaseException as error:
        _say(
            channel,
            error=type(error).__name__,
            is_ours=isinstance(error, OrdersError),
            message=str(error)[: _LONGEST_MESSAGE // 3],
            where="".join(traceback.format_exception(error))[-_LONGEST_MESSAGE // 3 :],
        )
    os.write(send_modules, "\n".join(set(sys.modules) - known).encode())
    os._exit(0)


def _read(lines: _Lines) -> dict[str, Any]:
    result = synchronise(read_settings(), lines)
    return {name: getattr(result, name) for name in ("loaded", "new", "updated", "unchanged")}


def _repaired(lines: _Lines, span: tuple[str, str] | None) -> dict[str, Any]:
    """What a repair has found, and what still differs after it."""
    settings = read_settings()
    result = repair(settings, lines, span=Span.parse(*span, datetime.now(UTC)) if span else None)
    with orders_warehouse(5, lines) as warehouse:
        warehouse.pipeline.sync_destination()
        left = compare(settings, warehouse)
    newest = result.runs[0].watermark_before
    lag = timedelta(seconds=settings.lag_seconds)
    return {
        "span": span,
        "marked": result.marked,
        "found": _edges(result.differences or ()),
        "left": _edges(left.differences),
        "until": (newest - lag).isoformat() if newest and not result.not_compared else None,
    }


def _edges(differences: Iterable[Difference]) -> list[tuple[str, str]]:
    return [(one.span.start.isoformat(), one.span.end.isoformat()) for one in differences]


def _say(channel: int, **what: Any) -> None:
    os.write(channel, (json.dumps(what) + "\n").encode())


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Lines:
    """Progress: told to whoever watches, and counted."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._count = 0
        self.deadly = 0
        self.seconds = 0.0

    def __call__(self, line: str) -> None:
        _say(self._channel, line=line[:500])
        self._count += 1
        if self._count == self.deadly:
            _die_later(self.seconds)


def _arm(lines: _Lines, kind: str, n: int, seconds: float) -> None:
    if kind == "file":
        _die_at_file(n)
    elif kind in ("statement", "answered"):
        _die_at_statement(n, before=kind == "statement")
    elif kind == "line":
        lines.deadly, lines.seconds = n, seconds
    elif kind == "time":
        _die_later(seconds)


def _die_later(seconds: float) -> None:
    """Also in the midst of native code, which neither events nor statements can reach into."""

    def wait() -> None:
        time.sleep(seconds)
        _die()

    threading.Thread(target=wait, daemon=True).start()


def _die_at_file(n: int) -> None:
    left = n

    def count(event: str, _: Any) -> None:
        nonlocal left
        if event in _FILE_EVENTS:
            left -= 1
            if left == 0:
                _die()

    sys.addaudithook(count)


def _die_at_statement(n: int, before: bool) -> None:
    """Before the n-th statement goes to the warehouse, or when its answer is there."""
    from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient

    left = n

    def counted(name: str) -> None:
        original = getattr(DuckDbSqlClient, name)

        def method(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            is_last = left == 0
            if is_last and before:
                _die()
            answer = original(*args, **kwargs)
            if is_last:
                try:
                    if name == "execute_query":
                        answer.__enter__()  # a query runs when its block is entered
                finally:
                    _die()
            return answer

        setattr(DuckDbSqlClient, name, method)

    for name in ("execute_query", "begin_transaction", "commit_transaction"):
        counted(name)


if __name__ == "__main__":
    main()
