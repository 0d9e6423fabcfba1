"""The words of a message: a short title and plain text. No secret and nothing of an order is in them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from orders_dagster.alerts.ledger import News
from orders_dagster.alerts.trouble import Episode, Outcome, Subject

RUNBOOK = "docs/runbook.md"
"""In the checkout: what each failure means and what to do. A check has a section of its name."""

LONGEST_REASON = 1_000
"""Characters; some receivers cut a message at 2,000, and the link at its end must survive."""


@dataclass(frozen=True)
class Message:
    title: str
    body: str
    kind: Literal["failure", "warning", "success", "info"] = "info"


def message(
    news: News, subject: Subject, episode: Episode, since: datetime, page_url: str
) -> Message:
    """What a person on call is to read.

    Args:
        since: the first failure that the receiver has been told of, or is told of now.
        page_url: the address of the Dagster page, for the link.
    """
    return Message(
        title=f"orders: {subject.name} {news.value}",
        body="\n".join(f"{name}: {value}" for name, value in _lines(news, subject, episode, since))
        + f"\nRun: {_link(_run(news, episode), page_url)}",
        kind=_kind(news, episode),
    )


def trial_message(page_url: str) -> Message:
    """Says that messages arrive."""
    return Message("orders: a test message", f"Alerts of orders-dagster arrive here.\n{page_url}")


def _lines(
    news: News, subject: Subject, episode: Episode, since: datetime
) -> list[tuple[str, str]]:
    if news is News.WELL_AGAIN:
        lines = [("Failed since", _time(since))]
    else:
        lines = [_what(subject, episode.newest), ("Since", _time(since))]
        if episode.newest.offenders is not None:
            lines.append(("Offenders", f"{episode.newest.offenders:,}"))
        if subject.kind == "check":
            lines.append(("Severity", {"error": "error", "warn": "warning"}[episode.severity]))
        lines.append(("Runbook", runbook(subject)))
    if subject.kind == "run" and episode.failures > 1:
        lines.append(("Failures in a row", f"{episode.failures:,}"))
    if episode.ended:
        lines.append(("Well since", _time(episode.ended.at)))
    return lines


def runbook(subject: Subject) -> str:
    """Where to read on: the section of a check; of a run, the table of what its message may say."""
    return f"{RUNBOOK}#{subject.name if subject.kind == 'check' else 'what-do-you-see'}"


def _what(subject: Subject, newest: Outcome) -> tuple[str, str]:
    if subject.kind == "check":
        return ("Does not hold", subject.promise or f"the check {subject.name}")
    reason = newest.reason
    is_long = len(reason) > LONGEST_REASON
    return ("What failed", reason[:LONGEST_REASON] + "…" if is_long else reason)


def _run(news: News, episode: Episode) -> Outcome:
    """The run to look at: the one that made it well, or the one that failed."""
    if news is News.WELL_AGAIN and episode.ended:
        return episode.ended
    return episode.newest


def _kind(news: News, episode: Episode) -> Literal["failure", "warning", "success", "info"]:
    if news is not News.FAILS:
        return "success"
    return "failure" if episode.severity == "error" else "warning"


def _link(outcome: Outcome, page_url: str) -> str:
    page = page_url.rstrip("/")
    # An evaluation that was reported from outside belongs to no run.
    return (
        f"{page}/runs/{outcome.run_id}" if outcome.run_id else f"{page}/assets/orders?view=checks"
    )


def _time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
