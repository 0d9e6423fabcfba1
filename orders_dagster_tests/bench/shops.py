"""The sandboxes: one process for each kind of shop, kept for as long as the benchmark runs."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from orders_dagster.local import sandbox_process
from orders_dagster_tests.bench.sums import Sums, of_shop_in_a_process


class Shop:
    """A sandbox API. Nothing changes in it unless it is asked to."""

    def __init__(self, url: str, orders: int) -> None:
        self.url = url
        self.orders = orders
        self._sums: Sums | None = None

    def sums(self) -> Sums:
        """What a warehouse has to hold; read once, as a million orders take a while."""
        if self._sums is None:
            self._sums = of_shop_in_a_process(self.url)
        return self._sums

    def change(self, orders: int) -> None:
        """Modify that many orders, now."""
        touched = self._post("change", {"modify": orders})
        assert len(touched["modified"]) == orders
        self._sums = None

    @contextmanager
    def latency(self, milliseconds: int) -> Iterator[None]:
        """Let every page take so much longer."""
        self._post("settings", {"latency_ms": milliseconds})
        try:
            yield
        finally:
            self._post("settings", {"latency_ms": 0})

    def _post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}/_sandbox/{path}", json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


class Shops:
    """Starts the sandboxes when they are asked for; the stack stops them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._shops: dict[tuple[int, int], Shop] = {}

    def of(self, orders: int, days: int = 365) -> Shop:
        """The sandbox with so many orders, modified within so many days; 0 for all at once."""
        key = orders, days
        if key not in self._shops:
            options = "--port", "0", "--orders", str(orders), "--days", str(days)
            url = self._stack.enter_context(sandbox_process(*options))
            self._shops[key] = Shop(url, orders)
        return self._shops[key]
