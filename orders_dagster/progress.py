"""How far a reading is, in a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

from orders_dagster.windows import Windows

PROGRESS_SECONDS = 5.0


class Progress:
    """Says every few seconds how far the reading is."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._windows: Windows | None = None
        self._log = log
        self._rows = 0
        self._started = self._said = time.monotonic()

    def starts(self, windows: Windows) -> None:
        """The first page of a reading tells how many orders there are."""
        self._windows = windows

    def arrived(self, orders: int) -> None:
        self._rows += orders
        if time.monotonic() - self._said >= PROGRESS_SECONDS:
            self.line("Reading")

    def line(self, verb: str) -> None:
        self._said = time.monotonic()
        rate = self._rows / max(self._said - self._started, 1e-3)
        total = self._windows.first_total if self._windows else None
        if total is not None and total < self._rows:
            total = None  # that of a page, or orders came while they were read
        share = f", {self._rows / total:.0%} of {total:,}" if total else ""
        seconds_left = (total - self._rows) / rate if total and rate else 0
        left = f", about {seconds_left / 60:.0f} min left" if seconds_left > 60 else ""
        orders = "order" if self._rows == 1 else "orders"
        self._log(f"{verb} {self._rows:,} {orders}{share}, {rate:,.0f} per second{left}.")
