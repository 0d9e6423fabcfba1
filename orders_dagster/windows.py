"""The windows of a run: half-open spans of modification dates, their start included, their end excluded.

Windows are sized by the orders in them, not by the calendar, and nothing is asked for only to plan
them: every run starts with one open window. Whoever reads a window and finds, on its first page,
that it holds much more than its share, reads no further and hands the rest back, cut into windows of
about the right size: equal spans of time, of which those that hold too much are cut again. So neither
an empty decade nor a sale day hurts, and an increment of one page stays one request. Where workers
have nothing to do, a share is a page, so that they do not wait for the last window.

Without a total, a window is read up to its share, and what follows is cut by the rate of what was
read, a window for each worker. What is read by one reader alone, however much it is, comes in parts: the
orders of one timestamp, those of an API that can be given no end of a window or no start.

The oldest window is always taken first. Everything before the first window that is not read yet is
read, which is what the watermark may say.
"""

from __future__ import annotations

import heapq
import threading
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from orders_dagster.cursor import floor

MOST_PIECES = 64
"""Into how many windows one is cut at once. The first page of each costs nothing, since it is data;
but where orders are few, it may be an empty one."""

PAGES = 1.8
"""The share of a window in pages: small, so that workers end at about the same time, and memory is
bounded by them; not one, since there would be an almost empty page behind every other one; a little
less than two, since a few orders more would be a third page."""

MOST_SHARES = 4
"""After how many shares the reading of a window is interrupted, to hand on what it has brought."""

AHEAD = 4
"""Windows under way for each worker, those included whose rows are not written yet: while one thread
writes rows, the others go on reading."""


@dataclass(frozen=True, order=True)
class Window:
    """A span of time; `end` None is an open one. UTC.

    Attributes:
        number: tells windows apart.
    """

    start: datetime
    number: int
    end: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True)
class WindowSize:
    """How windows are cut.

    Attributes:
        orders: about so many in one window.
        page: orders on a page.
        step: the smallest difference between two times that a request can name.
        can_end: whether a request can name the end of a window.
        workers: windows read at once.
    """

    orders: int
    page: int
    step: timedelta
    can_end: bool
    workers: int

    @classmethod
    def of(
        cls, page_size: int, checkpoint_orders: int, workers: int, step: timedelta, can_end: bool
    ) -> WindowSize:
        """Two pages, but no more than what makes a checkpoint when all workers bring one."""
        share = max(page_size, min(int(PAGES * page_size), checkpoint_orders // workers))
        return cls(share, page_size, step, can_end, workers)


class Windows:
    """The windows of one run that are waiting, being read, and read. Shared by all threads.

    Args:
        start: where the run starts to read, UTC.
        now: the start of the run, UTC: what is dated later is in the last, open window.
        end: where it ends, UTC, for a run that reads only a span again.
    """

    def __init__(
        self, start: datetime, now: datetime, size: WindowSize, end: datetime | None = None
    ) -> None:
        self._now = now
        self._size = size
        self._lock = threading.Lock()
        self._made = 0
        self._waiting: list[Window] = []
        self._interrupted: dict[int, Any] = {}
        self._reading: dict[int, Window] = {}
        self._taken = self._begun = self._arrived = 0
        self._load_orders = self._left_in_load = 0
        self.pages = self.orders = 0
        self.first_total: int | None = None
        self._wait(start, end)

    def start_load(self, orders: int) -> None:
        """Another load begins: windows are taken until about so many orders have been read."""
        with self._lock:
            self._load_orders = self._left_in_load = orders

    def take(self) -> Window | None:
        """The oldest window that waits; None if none does, all workers are busy, or the load is full."""
        with self._lock:
            # More than there are workers, so that none waits for the rows of the others.
            is_busy = self._taken - self._arrived >= AHEAD * self._size.workers
            if not self._waiting or is_busy or self._is_full():
                return None
            self._taken += 1
            return self._next()

    def being_read(self, number: int) -> tuple[Window, Any]:
        """A window, and whoever has read the part of it before, None if nobody has begun."""
        with self._lock:
            self._begun += 1
            return self._reading[number], self._interrupted.pop(number, None)

    def go_on(self, orders: int) -> tuple[Window, Any] | None:
        """Another window as `take` and `being_read` give it, for a reader that has read one to its end and
        holds so many orders that nobody has got yet; None where that is enough, or `take` has others.

        dlt asks for windows only while no rows wait to be written: until then, workers would wait.
        """
        if orders >= MOST_SHARES * self._size.orders:
            return None
        with self._lock:
            if self._begun < self._taken or not self._waiting or self._is_full():
                return None
            window = self._next()
            return window, self._interrupted.pop(window.number, None)

    def page(self, orders: int, total: int | None) -> None:
        """Note a page that was read."""
        with self._lock:
            self.pages += 1
            self.orders += orders
            self._left_in_load -= orders
            if self.pages == 1:
                self.first_total = total

    def cut(
        self, window: Window, since: datetime, at: datetime, read: int, left: int | None
    ) -> bool:
        """Whether the reading of a window ends at a time, the rest of it being windows of their own.

        Args:
            since: the time of its first order.
            at: the time of the last order read; others may share it.
            read: how many orders have been read.
            left: how many there are behind them, None if the API does not say.
        """
        share, step = self._size.orders, self._size.step
        if not self._size.can_end:
            return False  # two open windows would read the same orders
        if floor(at, step) <= floor(window.start, step):
            return False  # no further than its start: many orders with one timestamp
        if left is None:
            if read < share:
                return False
        elif left <= 2 * share:
            # Two thirds of a page: of pieces of equal time, one has more orders than the others.
            share = max(self._size.page * 2 // 3, -(-left // (self._idle() + 1)))
            if left <= 2 * share:
                return False
        edge = window.end or max(self._now, at)
        if left is None:
            # Of orders that are closer together than a step, or none apart, a piece is a step all the same.
            span = max(step, max(at - since, step) * share / read)
            inner = self._at_the_same_rate(at, edge, span)
        else:
            inner = self._equal_parts(at, edge, min(MOST_PIECES, -(-left // share)))
        edges = [at, *inner, window.end]
        with self._lock:
            for start, end in pairwise(edges):
                assert start is not None
                self._wait(start, end)
        return True

    def read(self, window: Window) -> None:
        """The reading of a window has ended."""
        with self._lock:
            del self._reading[window.number]

    def interrupt(self, window: Window, reader: Any, read_until: datetime, orders: int) -> bool:
        """Whether the reading of a window ends for now, since so many orders are enough for one part;
        whoever takes it the next time goes on where the reader is."""
        if orders < MOST_SHARES * self._size.orders:
            return False
        with self._lock:
            del self._reading[window.number]
            self._interrupted[window.number] = reader
            heapq.heappush(self._waiting, replace(window, start=max(window.start, read_until)))
        return True

    def arrived(self) -> None:
        """The rows of a window, or of a part of one, have been written."""
        with self._lock:
            self._arrived += 1

    @property
    def can_end(self) -> bool:
        """Whether a request can name the end of a window."""
        return self._size.can_end

    @property
    def is_drained(self) -> bool:
        """Whether nothing is being read or written."""
        with self._lock:
            return not self._reading and self._arrived >= self._taken

    @property
    def is_complete(self) -> bool:
        """Whether all has been read, up to the last, open window."""
        with self._lock:
            return not self._reading and not self._waiting

    @property
    def unread_from(self) -> datetime | None:
        """All orders modified before this time have been read; None if nothing is left."""
        with self._lock:
            return min(
                (window.start for window in (*self._waiting, *self._reading.values())), default=None
            )

    def _idle(self) -> int:
        """How many workers have nothing to read, and nothing that waits for them."""
        with self._lock:
            return 0 if self._waiting else max(0, self._size.workers - len(self._reading))

    def _is_full(self) -> bool:
        """Whether the load gets about as many orders as it should, when all that are being read end."""
        under_way = len(self._reading) * self._size.orders
        is_started = self._left_in_load < self._load_orders or self._reading
        return bool(is_started) and under_way >= self._left_in_load

    def _next(self) -> Window:
        """The oldest window that waits, which is being read from now on."""
        window = heapq.heappop(self._waiting)
        self._reading[window.number] = window
        return window

    def _wait(self, start: datetime, end: datetime | None) -> None:
        self._made += 1
        heapq.heappush(self._waiting, Window(start, self._made, end))

    def _equal_parts(self, at: datetime, edge: datetime, pieces: int) -> list[datetime]:
        """Times that cut a span into equal parts."""
        return self._inside(at, edge, [at + (edge - at) * n / pieces for n in range(1, pieces)])

    def _at_the_same_rate(self, at: datetime, edge: datetime, span: timedelta) -> list[datetime]:
        """Times after each of which as many orders follow as before, if orders come as they have come;
        a window for each worker, since they may not."""
        most = min(self._size.workers, (edge - at) // span)
        return self._inside(at, edge, [at + span * n for n in range(1, most + 1)])

    def _inside(self, at: datetime, edge: datetime, times: list[datetime]) -> list[datetime]:
        """Those times, on whole steps, that are inside a span."""
        return sorted({t for t in (floor(t, self._size.step) for t in times) if at < t < edge})
