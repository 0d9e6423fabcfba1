"""What each receiver has been told, and what it is to be told now.

Nothing is queued. At each tick what is wrong now, according to Dagster's records, is held against what
has been told; the difference is the news. So nothing is lost while the daemon or a receiver is down, and
what is well again meanwhile is one message instead of two. The ledgers are the cursor of the sensor.
They hold times and the names of checks and jobs, and know receivers by a few bits of a hash of their URL,
or, of a URL that is new, by its place in the setting, whose password may have been renewed: no address, no
order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from orders_dagster.alerts.trouble import Episode, Severity

LONGEST_BACKOFF = timedelta(minutes=15)
"""Between two attempts to reach a receiver that is down."""

LATE = timedelta(minutes=2)
"""By how much an outcome may be in the records later than the time that it carries."""

BEGINNING = datetime.min.replace(tzinfo=UTC)


class News(Enum):
    """What a receiver does not know yet."""

    FAILS = "fails"
    WELL_AGAIN = "is well again"
    FAILED_MEANWHILE = "failed, and is well again"


@dataclass(frozen=True)
class Told:
    """The last episode of a subject that a receiver knows of."""

    since: datetime
    is_over: bool


@dataclass
class Ledger:
    """What one receiver knows.

    Attributes:
        told: by key of the subject.
        knows_until: nothing that was over by then is news; at first, the time of the first tick.
        failures: attempts in a row that it did not take; what it was to be told is unsent.
        last_failure: the last of them.
        mark: of the receiver.
    """

    knows_until: datetime
    told: dict[str, Told] = field(default_factory=dict)
    failures: int = 0
    last_failure: datetime = BEGINNING
    mark: str = ""

    def news(self, key: str, episode: Episode | None, at_least: Severity) -> News | None:
        """What to tell of a subject, given its last episode and the severity that is set."""
        if episode is None:
            return None
        told = self.told.get(key)
        is_grave = at_least == "warn" or episode.severity == "error"
        if told and not told.is_over:
            if episode.ended:
                return News.WELL_AGAIN
            is_another = episode.follows_success and episode.since > told.since
            return News.FAILS if is_another and is_grave else None
        if not is_grave or (told and episode.since <= told.since):
            return None
        if episode.ended is None:
            return News.FAILS
        return News.FAILED_MEANWHILE if episode.ended.at > self.knows_until else None

    def has_told(self, key: str, episode: Episode) -> None:
        """The receiver took the message."""
        self.told[key] = Told(episode.since, is_over=episode.ended is not None)

    def is_complete(self, now: datetime) -> None:
        """The receiver took everything there was to tell at that time."""
        self.failures = 0
        self.knows_until = max(self.knows_until, now - LATE)

    def is_unsent(self, now: datetime) -> None:
        """The receiver did not take a message."""
        self.failures += 1
        self.last_failure = now

    def wait_until(self) -> datetime:
        """A minute after the first failure, then doubled, at most 15."""
        if not self.failures:
            return BEGINNING
        backoff = timedelta(minutes=2 ** min(self.failures - 1, 10))
        return self.last_failure + min(backoff, LONGEST_BACKOFF)

    def back_to(self, key: str) -> datetime:
        """How far back the records of a subject matter to this receiver."""
        told = self.told.get(key)
        return min(self.knows_until, told.since) if told and not told.is_over else self.knows_until


def parse(cursor: str | None, marks: Sequence[str], now: datetime) -> list[Ledger]:
    """A ledger for each receiver, by their marks. A cursor that cannot be read is none: what is wrong is
    told again."""
    try:
        found = [_ledger(entry) for entry in json.loads(cursor or "[]")]
    except (ValueError, TypeError, KeyError, AttributeError):
        found = []
    of = {ledger.mark: ledger for ledger in found}
    ledgers = []
    for place, mark in enumerate(marks):
        there = found[place] if place < len(found) else None
        renewed = there if there and there.mark not in marks else None
        ledger = of.get(mark) or renewed or Ledger(now)
        ledgers.append(replace(ledger, mark=mark))
    return ledgers


def text(ledgers: Iterable[Ledger]) -> str:
    """The cursor."""
    return json.dumps([_entry(ledger) for ledger in ledgers])


def _entry(ledger: Ledger) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "told": {
            key: {"since": told.since.isoformat(), "is_over": told.is_over}
            for key, told in ledger.told.items()
        },
        "knows_until": ledger.knows_until.isoformat(),
        "receiver": ledger.mark,
    }
    if ledger.failures:
        entry["unsent"] = {
            "attempts": ledger.failures,
            "last_attempt": ledger.last_failure.isoformat(),
        }
    return entry


def _ledger(entry: dict[str, Any]) -> Ledger:
    unsent = entry.get("unsent") or {"attempts": 0, "last_attempt": BEGINNING.isoformat()}
    return Ledger(
        told={
            key: Told(datetime.fromisoformat(told["since"]), bool(told["is_over"]))
            for key, told in entry["told"].items()
        },
        knows_until=datetime.fromisoformat(entry["knows_until"]),
        failures=int(unsent["attempts"]),
        last_failure=datetime.fromisoformat(unsent["last_attempt"]),
        mark=str(entry.get("receiver", "")),
    )
