"""How far a reading is, in a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

from orders_dagster.source import OrdersSource

PROGRESS_SECONDS = 5.0


class Progress:
    """Says every few seconds how far the reading is."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self.source: OrdersSource | None = None
        self._log = log
        self._rows = 0
        self._started = self._said = time.monotonic()

    def page(self, orders: int) -> None:
        self._rows += orders
        if time.monotonic() - self._said >= PROGRESS_SECONDS:
            self.line("Reading")

    def line(self, verb: str) -> None:
        self._said = time.monotonic()
        rate = self._rows / max(self._said - self._started, 1e-3)
        total = self.source.paginator.first_total if self.source else None
        share = f", {min(self._rows / total, 1):.0%} of {total:,}" if total else ""
        self._log(f"{verb} {self._rows:,} orders{share}, {rate:,.0f} per second.")
