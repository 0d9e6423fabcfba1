"""What a probe finds: a verdict, a sentence, and the setting to change.

A sentence holds names of fields and counts, never a value of an order, a secret or an address with
parameters: what the doctor prints is pasted into tickets.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    OK = "OK"
    WARN = "WARN"  # the pipeline copes, or a part of what is promised does not hold
    FAIL = "FAIL"  # a run would stop, or orders would be missed
    SKIP = "SKIP"  # cannot be judged; the message says why


@dataclass(frozen=True)
class Finding:
    """What one probe has found.

    Attributes:
        settings: the settings to look at, by their full names; others than ours with their own.
        suggestion: what to write there, where it can be told.
    """

    verdict: Verdict
    message: str
    settings: tuple[str, ...] = ()
    suggestion: str = ""


class Unjudged(Exception):
    """A probe that has nothing to look at; says what is missing."""


class Unanswered(Exception):
    """A request of a probe was not answered with a page; says what came instead.

    Attributes:
        status: of the answer, None if there was none.
    """

    def __init__(self, what: str, status: int | None = None) -> None:
        super().__init__(what)
        self.status = status


def ok(message: str) -> Finding:
    return Finding(Verdict.OK, message)


def warn(message: str, *settings: str, suggestion: str = "") -> Finding:
    return Finding(Verdict.WARN, message, _full(settings), suggestion)


def fail(message: str, *settings: str, suggestion: str = "") -> Finding:
    return Finding(Verdict.FAIL, message, _full(settings), suggestion)


def skip(reason: str) -> Finding:
    return Finding(Verdict.SKIP, reason)


def named(*names: Any) -> str:
    """Names that come from the API, as they may be printed: short, and without what steers a terminal."""
    texts = (str(name)[:40] for name in names)
    return ", ".join("".join(c if c.isprintable() else "?" for c in text) for text in texts)


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _full(settings: tuple[str, ...]) -> tuple[str, ...]:
    """Ours by their full names; those of dlt and variables of others as they are."""
    return tuple(
        name
        if name.isupper() or name.startswith(("destination.", "pipelines."))
        else f"sources.orders.{name}"
        for name in settings
    )
