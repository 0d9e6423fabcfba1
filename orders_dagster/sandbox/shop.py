"""The shop: all orders as they are now, and how they change.

Here: the state in memory, its one lock, and the changes that tests and the demo ask for. Not here:
anything of HTTP (`app.py`), the sorting (`index.py`), what a change does to an order
(`changes.py`).

A `Stock` holds the orders as they were at the start and never changes; the shop lays changed and
new orders over it, as the JSON bytes that go into a page. A million generated orders therefore
cost an index and nothing else.

The clock of the shop never runs backwards and ticks in whole milliseconds, since that is what
`last_modified_date` shows.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Protocol

from . import changes
from .exact_json import dumps, loads
from .index import Index, Rank
from .orders import items_in, key_of, modified_of, rank_of
from .times import write_time

_GONE = -(2**63)  # the modification time of a deleted order
_CREATION_FIELDS = ("order_date", "created_date", "created_at")


class Stock(Protocol):
    """The orders at the start, numbered by `seq` from 0 in order of creation."""

    modified: array[int]
    items: int

    def __len__(self) -> int: ...
    def by_id(self) -> Any: ...
    def rank(self, seq: int) -> Rank: ...
    def find(self, key: str) -> int | None: ...
    def text(self, seq: int, modified: int, /) -> bytes: ...
    def fresh(self, number: int, now: int) -> dict[str, Any]: ...


@dataclass
class Touched:
    """The order_ids that one call of `Shop.change` touched, each in one list only."""

    new: list[str] = field(default_factory=list)
    modified: list[str] = field(default_factory=list)
    modified_twice: list[str] = field(default_factory=list)
    items_removed: list[str] = field(default_factory=list)


class Shop:
    """The orders. Every public method may be called from any thread."""

    def __init__(
        self,
        stock: Stock,
        seed: int = 1,
        cursor_style: str = "iso",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stock = stock
        self._style = cursor_style
        self._clock = clock
        self._now = 0
        self._rng = Random(f"changes {seed}")
        self._numbers = count(len(stock) + 1)
        self._modified = array("q", stock.modified)
        self._texts: dict[int, bytes] = {}
        self._ranks: dict[int, Rank] = {}
        self._seqs: dict[str, int] = {}
        self._items = stock.items
        self._index = Index(self._modified, stock.by_id(), self._rank)
        self._lock = threading.RLock()

    # Reading

    @property
    def orders(self) -> int:
        """How many orders there are now."""
        return len(self._index)

    @property
    def items(self) -> int:
        """How many items these orders have."""
        return self._items

    def now(self) -> int:
        """The shop's time in microseconds, on a whole millisecond, never earlier than before."""
        with self._lock:
            self._now = max(self._now, int(self._clock() * 1000) * 1000)
            return self._now

    def newest(self) -> int | None:
        """The latest modification time of all orders."""
        with self._lock:
            return self._index.newest()

    def page(
        self,
        since: int | None = None,
        before: int | None = None,
        sort: str | None = None,
        offset: int = 0,
        limit: int = 50,
        unstable_ties: bool = False,
    ) -> tuple[list[bytes], int]:
        """The JSON of one page of orders, and the number of all orders in [since, before)."""
        with self._lock:
            seqs, total = self._index.page(since, before, sort, offset, limit, unstable_ties)
            return [self._text(seq) for seq in seqs], total

    def get(self, order_id: str) -> bytes | None:
        """The JSON of one order."""
        with self._lock:
            seq = self._find(order_id)
            return None if seq is None else self._text(seq)

    def everything(self) -> Iterator[bytes]:
        """The JSON of every order in order of creation: the truth to compare a warehouse with."""
        with self._lock:
            seqs = self._index.all()
        for seq in seqs:
            with self._lock:
                if self._modified[seq] == _GONE:
                    continue
                text = self._text(seq)
            yield text

    def _text(self, seq: int) -> bytes:
        text = self._texts.get(seq)
        return self._stock.text(seq, self._modified[seq]) if text is None else text

    def _rank(self, seq: int) -> Rank:
        return self._stock.rank(seq) if seq < len(self._stock) else self._ranks[seq]

    def _find(self, key: str) -> int | None:
        seq = self._seqs.get(key)
        if seq is None:
            seq = self._stock.find(key)
        return None if seq is None or self._modified[seq] == _GONE else seq

    # Changing

    def upsert(self, orders: Sequence[Any]) -> int:
        """Insert or replace orders as they are, by order_id; the number of those that are new.

        An order without `last_modified_date` is modified now; one without a usable order_id is
        always a new row.
        """
        with self._lock:
            return sum(self._upsert_one(order) for order in orders)

    def _upsert_one(self, order: Any) -> int:
        if isinstance(order, dict) and "last_modified_date" not in order:
            now = self.now()
            return self._put(order | {"last_modified_date": write_time(now, self._style)}, now)
        return self._put(order, modified_of(order))

    def delete(self, order_id: str) -> bool:
        """Delete an order for good, as if it had never been."""
        with self._lock:
            seq = self._find(order_id)
            if seq is None:
                return False
            self._items -= items_in(loads(self._text(seq)))
            self._index.remove(seq, self._modified[seq])
            self._modified[seq] = _GONE
            self._texts.pop(seq, None)
            return True

    def change(
        self,
        new: int = 0,
        modify: int = 0,
        modify_twice: int = 0,
        remove_items: int = 0,
        seed: int | None = None,
    ) -> Touched:
        """Change orders as a shop does, now. No order is in two of the four groups.

        An order that is modified twice gets its second, later version in the same call.
        """
        with self._lock:
            rng = self._rng if seed is None else Random(f"change {seed}")
            removable = self._choose(remove_items, rng, set(), 2)
            chosen = self._choose(modify + modify_twice, rng, set(removable), 0)
            once, twice = chosen[:modify], chosen[modify:]
            touched = Touched(modified_twice=[self._modify(seq, rng) for seq in twice])
            touched.new = [self._create() for _ in range(new)]
            touched.modified = [self._modify(seq, rng) for seq in once]
            touched.items_removed = [self._edit(s, changes.remove_item, rng) for s in removable]
            if twice:
                self._now = self.now() + 1000  # the later version has the later timestamp
            for seq in twice:
                self._modify(seq, rng)
            return touched

    def churn(self) -> None:
        """One change of a busy shop: 30 % new orders, 60 % modified, 10 % with other items."""
        with self._lock:
            kind = self._rng.random()
            if kind < 0.3 or not self.orders:
                self._create()
            elif kind < 0.9:
                self._edit_any(changes.modify, 0)
            elif kind < 0.95:
                self._edit_any(changes.add_item, 0)
            else:
                self._edit_any(changes.remove_item, 2)

    def _edit_any(self, edit: Callable[[changes.Order, Random], None], least_items: int) -> None:
        for seq in self._candidates(self._rng, 50):
            if self._changeable(seq, least_items):
                self._edit(seq, edit, self._rng)
                return

    def _modify(self, seq: int, rng: Random) -> str:
        return self._edit(seq, changes.modify, rng)

    def _edit(self, seq: int, edit: Callable[[changes.Order, Random], None], rng: Random) -> str:
        order = loads(self._text(seq))
        edit(order, rng)
        now = self.now()
        order["last_modified_date"] = write_time(now, self._style)
        self._replace(seq, order, now)
        return str(order["order_id"])

    def _create(self) -> str:
        now = self.now()
        order = self._stock.fresh(next(self._numbers), now)
        while self._find(str(order["order_id"])) is not None:
            order = self._stock.fresh(next(self._numbers), now)
        for name in ("last_modified_date", *_CREATION_FIELDS):
            if name in order or name == "last_modified_date":
                order[name] = write_time(now, self._style)
        self._put(order, now)
        return str(order["order_id"])

    def _choose(self, wanted: int, rng: Random, taken: set[int], least_items: int) -> list[int]:
        """Different orders that can be changed; more than there are is an error."""
        chosen: list[int] = []
        if wanted <= 0:
            return chosen
        for seq in self._candidates(rng, wanted * 4 + 50):
            if seq not in taken and self._changeable(seq, least_items):
                chosen.append(seq)
                if len(chosen) == wanted:
                    return chosen
        raise ValueError(
            f"{wanted} orders were to change, but only {len(chosen)} of {self.orders} can"
            f"{' lose an item' if least_items else ''}; ask for fewer or start with more orders"
        )

    def _candidates(self, rng: Random, tries: int) -> Iterator[int]:
        """Every order once: first some at random, then, if those were not enough, all others."""
        seen: set[int] = set()
        for _ in range(tries if self.orders else 0):
            seq = self._index.at(rng.randrange(self.orders))
            if seq not in seen:
                seen.add(seq)
                yield seq
        yield from (seq for seq in self._index.all() if seq not in seen)

    def _changeable(self, seq: int, least_items: int) -> bool:
        order = loads(self._text(seq))
        key = key_of(order)
        # Of rows that share an order_id, only the one that the order_id finds.
        return key is not None and self._find(key) == seq and items_in(order) >= least_items

    def _put(self, order: Any, modified: int) -> int:
        """Insert or replace; 1 if the order is new."""
        key = key_of(order)
        seq = None if key is None else self._find(key)
        if seq is not None:
            self._replace(seq, order, modified)
            return 0
        seq = len(self._modified)
        self._modified.append(modified)
        self._texts[seq] = dumps(order)
        self._ranks[seq] = rank_of(order, seq)
        if key is not None:
            self._seqs[key] = seq
        self._items += items_in(order)
        self._index.add(seq, modified)
        return 1

    def _replace(self, seq: int, order: Any, modified: int) -> None:
        self._items += items_in(order) - items_in(loads(self._text(seq)))
        before, self._modified[seq] = self._modified[seq], modified
        self._texts[seq] = dumps(order)
        self._index.move(seq, before, modified)
