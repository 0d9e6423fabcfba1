"""Who cancels a run, by SIGINT or SIGTERM, is heard: at once while it reads, and after the load under way.

dlt only notes a signal while it loads, and forgets it if it comes behind its last look at the note: the run
went on, through all its loads, and ended well.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

HEARS_SIGNALS = "runtime.intercept_signals"
"""dlt's option to handle signals itself while it normalizes and loads."""

_Handler = Callable[[int, FrameType | None], object]


class Cancelled(Exception):
    """What threads end with that nobody waits for."""


@contextmanager
def stopping(stop: Callable[[Exception], None]) -> Iterator[None]:
    """A run that is cancelled does not wait for its threads, as dlt does: one that was told to come back in
    five minutes would be waited for, and would ask again."""

    def cancel(number: int, frame: FrameType | None, otherwise: _Handler) -> None:
        stop(Cancelled("the process was told to end"))
        otherwise(number, frame)

    with _hearing(cancel):
        yield


@contextmanager
def after_this() -> Iterator[None]:
    """A run that is cancelled ends after what is under way; at once, if it is told so a second time."""
    heard: list[int] = []

    def cancel(number: int, frame: FrameType | None, otherwise: _Handler) -> None:
        heard.append(number)
        if len(heard) > 1:
            otherwise(number, frame)

    try:
        with _hearing(cancel):
            yield
    finally:
        if len(heard) == 1:
            signal.raise_signal(heard[0])


@contextmanager
def _hearing(cancel: Callable[[int, FrameType | None, _Handler], None]) -> Iterator[None]:
    before: dict[int, _Handler] = {}

    def receive(number: int, frame: FrameType | None) -> None:
        cancel(number, frame, before[number])

    if threading.current_thread() is threading.main_thread():  # signals are for no other
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):  # else the process ends at once, or is not to end
                before[number] = handler
                signal.signal(number, receive)
    try:
        yield
    finally:
        for restored, handler in before.items():
            signal.signal(restored, handler)
