"""Orders from a file, served as they are.

Here: reading Parquet and NDJSON into one JSON text per order, and the three things that the index
needs to know of each: order_id, modification time, number of items. Not here: any repair; a row
without an order_id or with an unreadable date is served like every other, because a pipeline has
to be tested against such rows.

Each order is held as the bytes that go into a page, not as a dictionary: a fifth of the memory,
and joining bytes is what makes a page fast and its numbers exact. A line of NDJSON is not even
encoded again; it goes out with the digits it came with.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb

from .exact_json import dumps, loads
from .generate import GeneratedStock
from .index import UNDATED, Rank
from .orders import items_in, key_of, modified_of, rank_of
from .times import write_time

_BATCH = 1000  # rows fetched at once: enough to be fast, few enough to be small


class FileStock:
    """The orders of one file."""

    def __init__(self, path: Path, cursor_style: str, fallback: GeneratedStock) -> None:
        self.modified = array("q")
        self.items = 0
        self._texts: list[bytes] = []
        self._keys: list[str | None] = []
        self._ranks: list[Rank] = []
        self._seqs: dict[str, int] = {}
        self._fallback = fallback
        for order, text in _read(path):
            self._append(order, text, cursor_style)

    def _append(self, order: Any, text: bytes | None, cursor_style: str) -> None:
        seq = len(self._texts)
        modified = modified_of(order)
        if cursor_style != "iso" and modified != UNDATED:
            order["last_modified_date"] = write_time(modified, cursor_style)
            text = None
        key = key_of(order)
        self._texts.append(dumps(order) if text is None else text)
        self._keys.append(key)
        self._ranks.append(rank_of(order, seq))
        self.modified.append(modified)
        self.items += items_in(order)
        if key is not None:
            # Of lines that share an order_id, the last is the one that changes and deletions see.
            self._seqs[key] = seq

    def __len__(self) -> int:
        return len(self._texts)

    def by_id(self) -> list[int]:
        """All seqs, sorted by order_id."""
        return sorted(range(len(self)), key=self._ranks.__getitem__)

    def rank(self, seq: int) -> Rank:
        return self._ranks[seq]

    def find(self, key: str) -> int | None:
        """The seq of an order_id."""
        return self._seqs.get(key)

    def text(self, seq: int, _modified: int, /) -> bytes:
        """The JSON of an order; a file's order carries its own time."""
        return self._texts[seq]

    def fresh(self, number: int, now: int) -> dict[str, Any]:
        """A new order in the shape of the file's: a copy of one of them under a new order_id."""
        if self._texts:
            order = loads(self._texts[number * 7919 % len(self)])  # a prime: copies spread widely
            if isinstance(order, dict):
                return order | {"order_id": f"NEW-{number:08d}"}
        return self._fallback.fresh(number, now)


def _read(path: Path) -> Iterator[tuple[Any, bytes | None]]:
    """Each order with its JSON text, where the file has one."""
    return _reader(path)(path)


def _reader(path: Path) -> Callable[[Path], Iterator[tuple[Any, bytes | None]]]:
    if not path.is_file():
        raise ValueError(f"orders_from: there is no file {str(path)!r}; give a path that exists")
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        return _parquet
    if suffix in (".ndjson", ".jsonl", ".json"):
        return _ndjson
    raise ValueError(
        f"orders_from: {path.name!r} is neither .parquet nor .ndjson, .jsonl or .json;"
        " rename it after what it holds"
    )


def _parquet(path: Path) -> Iterator[tuple[Any, bytes | None]]:
    with duckdb.connect() as connection:
        # After two seconds it would be printed to stdout, where the sandbox's address belongs.
        connection.execute("SET enable_progress_bar = false")
        try:
            rows = connection.execute("SELECT * FROM read_parquet(?)", [str(path)])
        except duckdb.Error as error:
            raise ValueError(f"orders_from: {path.name} is no Parquet file ({error})") from None
        names = [column[0] for column in rows.description or ()]
        while batch := rows.fetchmany(_BATCH):
            for row in batch:
                yield dict(zip(names, row, strict=True)), None


def _ndjson(path: Path) -> Iterator[tuple[Any, bytes | None]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            text = line.removeprefix(b"\xef\xbb\xbf").strip()
            if text:
                yield _parse(text, f"{path.name}, line {number}"), text


def _parse(text: bytes, where: str) -> Any:
    try:
        order = loads(text)
    except ValueError as error:
        raise ValueError(f"orders_from: {where} is no JSON ({error}); one order a line") from None
    if isinstance(order, list):
        raise ValueError(f"orders_from: {where} is an array; write one order a line (jq -c '.[]')")
    return order
