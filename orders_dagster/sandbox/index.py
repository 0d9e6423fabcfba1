"""Which orders come in which order: the sorted index behind every page.

Here: the orders by time of modification, by order_id and by creation, kept sorted while orders
change, and the half-open window over them. Not here: what an order contains; an order is just its
`seq`, its place in the order of creation.

Plain arrays and `bisect`, no tree: a million orders take about 20 MB, a page is a slice at any
offset, and an insertion moves at most 8 MB of memory, which takes less than a millisecond.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

# What order_ids sort by. It ends with the seq, so that no two ranks are equal.
Rank = tuple[int, int, str, int]

# The modification time of an order whose own cannot be read; later than any other.
UNDATED = 2**63 - 1

BY_MODIFIED = ("last_modified_date", "-last_modified_date")
BY_ID = ("order_id", "-order_id")
SORTS = BY_MODIFIED + BY_ID


class Index:
    """All live orders, sorted three ways.

    An undated order is excluded by no window and comes after every dated one, ascending and
    descending: tests can then serve rows with an unreadable `last_modified_date`.
    """

    def __init__(
        self, modified: array[int], by_id: Iterable[int], rank: Callable[[int], Rank]
    ) -> None:
        self._rank = rank
        self._by_creation = array("I", range(len(modified)))
        self._by_id = array("I", by_id)
        self._undated = array("I", (seq for seq in self._by_id if modified[seq] == UNDATED))
        # The sort is stable: orders of one timestamp stay sorted by order_id.
        dated = sorted(self._by_id, key=modified.__getitem__)
        del dated[len(dated) - len(self._undated) :]
        self._seqs = array("I", dated)
        self._times = array("q", map(modified.__getitem__, dated))
        self._selections: dict[tuple[int | None, int | None, bool], list[int]] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._by_creation)

    def all(self) -> array[int]:
        """A copy of the seqs in order of creation, so that changes do not disturb the reader."""
        return self._by_creation[:]

    def newest(self) -> int | None:
        """The latest modification time of any dated order."""
        return self._times[-1] if self._times else None

    def at(self, position: int) -> int:
        """The seq of the order at a position in the order of creation."""
        return self._by_creation[position]

    def add(self, seq: int, modified: int) -> None:
        """Add an order; its seq must be new or have been removed."""
        _insert(self._by_creation, seq, lambda other: other)
        _insert(self._by_id, seq, self._rank)
        self._add_time(seq, modified)

    def remove(self, seq: int, modified: int) -> None:
        """Take out an order for good; `modified` is the time it was added with."""
        _delete(self._by_creation, seq, lambda other: other)
        _delete(self._by_id, seq, self._rank)
        self._remove_time(seq, modified)

    def move(self, seq: int, before: int, after: int) -> None:
        """Note that an order's modification time went from `before` to `after`."""
        self._remove_time(seq, before)
        self._add_time(seq, after)

    def _add_time(self, seq: int, modified: int) -> None:
        self._selections.clear()
        if modified == UNDATED:
            _insert(self._undated, seq, self._rank)
            return
        place = self._place(seq, modified)
        self._times.insert(place, modified)
        self._seqs.insert(place, seq)

    def _remove_time(self, seq: int, modified: int) -> None:
        self._selections.clear()
        if modified == UNDATED:
            _delete(self._undated, seq, self._rank)
            return
        place = self._place(seq, modified)
        del self._times[place]
        del self._seqs[place]

    def _place(self, seq: int, modified: int) -> int:
        first, end = self._window(modified, modified + 1)
        return bisect_left(self._seqs, self._rank(seq), first, end, key=self._rank)

    def _window(self, since: int | None, before: int | None) -> tuple[int, int]:
        first = 0 if since is None else bisect_left(self._times, since)
        end = len(self._times) if before is None else bisect_left(self._times, before)
        return first, max(first, end)

    def page(
        self,
        since: int | None,
        before: int | None,
        sort: str | None,
        offset: int,
        limit: int,
        unstable_ties: bool = False,
    ) -> tuple[list[int], int]:
        """The seqs of one page and the number of orders in the half-open [since, before)."""
        first, end = self._window(since, before)
        total = end - first + len(self._undated)
        if sort in BY_MODIFIED:
            descending = sort.startswith("-")
            return self._by_time(first, end, offset, limit, descending, unstable_ties), total
        by_id = sort in BY_ID
        if since is None and before is None:
            chosen: array[int] | list[int] = self._by_id if by_id else self._by_creation
        else:
            chosen = self._selection(since, before, by_id)
        if sort == "-order_id":
            chosen = chosen[max(0, total - offset - limit) : max(0, total - offset)]
            return list(reversed(chosen)), total
        return list(chosen[offset : offset + limit]), total

    def _by_time(
        self, first: int, end: int, offset: int, limit: int, descending: bool, unstable: bool
    ) -> list[int]:
        start = min(first + offset, end)
        stop = min(start + limit, end)
        if descending:
            start, stop = end - (stop - first), end - (start - first)
        seqs = self._rotated(start, stop) if unstable else list(self._seqs[start:stop])
        if descending:
            seqs.reverse()
        skipped = max(0, offset - (end - first))
        seqs.extend(islice(self._undated, skipped, skipped + limit - len(seqs)))
        return seqs

    def _rotated(self, start: int, stop: int) -> list[int]:
        """The seqs from `start` to `stop` with the orders of one timestamp in another order.

        Each request turns each group of ties by one place more. A shuffle would now and then
        repeat itself; a turn never does, so two pages of one group always contradict each other.
        """
        self._turn += 1
        seqs: list[int] = []
        while start < stop:
            first, end = self._window(self._times[start], self._times[start] + 1)
            size = end - first
            for place in range(start, min(stop, end)):
                seqs.append(self._seqs[first + (place - first + self._turn) % size])
            start = end
        return seqs

    def _selection(self, since: int | None, before: int | None, by_id: bool) -> list[int]:
        """A window sorted by something other than time; kept until the next change."""
        key = (since, before, by_id)
        if key not in self._selections:
            if len(self._selections) >= 16:  # windows read side by side, not a whole history
                self._selections.clear()
            first, end = self._window(since, before)
            seqs = [*self._seqs[first:end], *self._undated]
            seqs.sort(key=self._rank if by_id else None)
            self._selections[key] = seqs
        return self._selections[key]


def _insert(seqs: array[int], seq: int, key: Callable[[int], Any]) -> None:
    seqs.insert(bisect_left(seqs, key(seq), key=key), seq)


def _delete(seqs: array[int], seq: int, key: Callable[[int], Any]) -> None:
    del seqs[bisect_left(seqs, key(seq), key=key)]
