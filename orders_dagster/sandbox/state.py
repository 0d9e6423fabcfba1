"""Everything that one sandbox knows, in one object.

Here: putting shop, tokens, faults and settings together from the options, and the record of
requests. Not here: HTTP itself (`app.py`, `control.py`), and any global: two sandboxes in one
process share nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .connections import Connections
from .faults import Faults
from .files import FileStock
from .generate import GeneratedStock
from .options import SandboxOptions, Settings
from .shop import Shop
from .times import SECOND, read_time
from .tokens import Tokens

_KEPT_REQUESTS = 1000
# The newest generated order is this old, as in a shop that is not busy just now.
_QUIET_SECONDS = 60


@dataclass
class RequestRecord:
    """One request, without anything secret."""

    method: str
    path: str
    query: str
    authorization: bool
    status: int | None = None  # None: the connection was closed without an answer
    fault: str | None = None


class Sandbox:
    """One sandbox: its options, its orders and everything that changes."""

    def __init__(self, options: SandboxOptions) -> None:
        self.options = options
        self.settings = Settings.of(options)
        self.faults = Faults(options.faults, options.seed)
        self.tokens = Tokens(options.token_lifetime)
        self.shop = _shop(options)
        self.connections: Connections = {}
        self.request_count = 0
        self.requests: deque[RequestRecord] = deque(maxlen=_KEPT_REQUESTS)
        self._settings_changed = asyncio.Event()
        self._closing = asyncio.Event()

    def record(self, request: RequestRecord) -> None:
        """Note a request; the oldest one is forgotten."""
        self.request_count += 1
        self.requests.append(request)

    def change_settings(self, changes: dict[str, Any]) -> None:
        """Change settings from now on; ValueError for one that is unknown or makes no sense."""
        self.settings = self.settings.changed(changes)
        self._settings_changed.set()

    async def pause(self, seconds: float) -> None:
        """Let a request wait; a sandbox that is asked to end does not keep it waiting."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    def close(self) -> None:
        """End every pause, now and from now on."""
        self._closing.set()

    async def churn(self) -> None:
        """Change orders for as long as the sandbox runs, `churn` times a second."""
        due = time.monotonic()
        while True:
            self._settings_changed.clear()
            wait = None
            if self.settings.churn > 0:
                # Counted from when the last change was due, so that waits do not add up; but a
                # second lost, to a busy machine or a sleeping one, is not made up for.
                due = max(due + 1 / self.settings.churn, time.monotonic() - 1)
                wait = max(0.0, due - time.monotonic())
            try:
                await asyncio.wait_for(self._settings_changed.wait(), wait)
                due = time.monotonic()
            except TimeoutError:
                self.shop.churn()


def _shop(options: SandboxOptions) -> Shop:
    clock = _clock(options.now)
    end = (int(clock() * 1000) - _QUIET_SECONDS * 1000) * 1000
    path = options.orders_from
    generated = GeneratedStock(
        0 if path else options.orders, options.seed, options.days, end, options.cursor_style
    )
    stock = FileStock(Path(path), options.cursor_style, generated) if path else generated
    return Shop(stock, options.seed, options.cursor_style, clock)


def _clock(now: str | None) -> Callable[[], float]:
    """The shop's clock in seconds since 1970: the real one, or one that starts at `now`."""
    start = read_time(now)
    if start is None:
        return time.time
    offset = start / SECOND - time.monotonic()
    return lambda: offset + time.monotonic()
