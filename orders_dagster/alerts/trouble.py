"""What can be in trouble, and for how long: the runs of a job, or an asset check.

Both are a series of outcomes, good and bad. A streak of bad ones is one episode, however long it
lasts: it is what a message is about.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Severity = Literal["warn", "error"]

LONGEST_STREAK = 500
"""Failures looked at to find where a streak began: three weeks of hourly runs. It matters only if it is
told that late, since the beginning is kept once it has been told."""


@dataclass(frozen=True)
class Subject:
    """What can be in trouble.

    Attributes:
        promise: what a check promises; empty for the runs of a job.
    """

    kind: Literal["run", "check"]
    name: str
    promise: str = ""

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True)
class Outcome:
    """How one run, or one evaluation of a check, ended.

    Attributes:
        at: when, UTC.
        offenders: rows that offend a check, if it counts them.
        reason: why a run failed, in words that may be sent to anybody.
    """

    at: datetime
    failed: bool
    run_id: str
    severity: Severity = "error"
    offenders: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Episode:
    """A streak of failures.

    Attributes:
        since: its first failure.
        newest: its last failure so far.
        ended: the first success after it; None while it lasts.
        severity: of its gravest failure.
        failures: how many in a row.
        follows_success: whether a success is known right before it. Without one it may have begun
            before what was looked at.
    """

    since: datetime
    newest: Outcome
    ended: Outcome | None
    severity: Severity
    failures: int
    follows_success: bool


def latest_episode(outcomes: Iterable[Outcome], *, back_to: datetime) -> Episode | None:
    """The last streak of failures, over or not; None if there was none since `back_to`.

    Args:
        outcomes: the newest first. No more of them are read than are needed.
    """
    ended: Outcome | None = None
    streak: list[Outcome] = []
    follows_success = False
    for outcome in outcomes:
        if outcome.failed:
            streak.append(outcome)
            if len(streak) == LONGEST_STREAK:
                break
        elif streak:
            follows_success = True
            break
        elif outcome.at < back_to:
            return None
        else:
            ended = outcome
    if not streak:
        return None
    return Episode(
        since=streak[-1].at,
        newest=streak[0],
        ended=ended,
        severity="error" if any(one.severity == "error" for one in streak) else "warn",
        failures=len(streak),
        follows_success=follows_success,
    )
