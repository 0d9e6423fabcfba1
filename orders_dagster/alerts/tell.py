"""One tick: what is wrong is held against what each receiver knows, and the difference is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from orders_dagster.alerts import ledger as ledgers_of
from orders_dagster.alerts.ledger import Ledger, News
from orders_dagster.alerts.message import message
from orders_dagster.alerts.receiver import Receiver
from orders_dagster.alerts.trouble import Episode, Severity, Subject

SENDING_SECONDS = 20
"""No message is begun after so long: Dagster gives up on a tick after 60 s and forgets what it told."""

Look = Callable[[Subject, datetime], Episode | None]
"""The last episode of a subject, looked for as far back as a time."""


@dataclass
class Tick:
    """What a tick did, for the page.

    Attributes:
        cursor: what the receivers know now.
    """

    cursor: str
    sent: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)

    def text(self) -> str:
        return " ".join([*self.sent, *self.waiting]) or "There is nothing new to tell."


def tell(
    cursor: str | None,
    receivers: Sequence[Receiver],
    subjects: Sequence[Subject],
    look: Look,
    now: datetime,
    *,
    at_least: Severity,
    page_url: str,
    sending_seconds: float = SENDING_SECONDS,
) -> Tick:
    """Tell every receiver what it does not know. One that fails is tried again at a later tick, from
    where it failed, and holds up no other."""
    ledgers = ledgers_of.parse(cursor, [receiver.mark for receiver in receivers], now)
    tick = Tick("")
    due = [
        (receiver, ledger)
        for receiver, ledger in zip(receivers, ledgers, strict=True)
        if receiver.problem is None and ledger.wait_until() <= now
    ]
    episodes = _episodes(subjects, [ledger for _, ledger in due], look) if due else []
    until = time.monotonic() + sending_seconds
    for receiver, ledger in due:
        for subject, episode, news in _news(episodes, ledger, at_least):
            if time.monotonic() > until:
                tick.waiting.append(f"More for {receiver.name} at the next tick.")
                break
            told = ledger.told.get(subject.key)
            since = told.since if told and news is News.WELL_AGAIN else episode.since
            words = message(news, subject, episode, since, page_url)
            if not receiver.send(words):
                ledger.is_unsent(now)
                break
            ledger.has_told(subject.key, episode)
            tick.sent.append(f'Told {receiver.name}: "{words.title}".')
        else:
            ledger.is_complete(now)
    tick.waiting += [
        f"{receiver.name} did not take a message, {ledger.failures} times in a row; "
        f"trying again after {ledger.wait_until():%H:%M:%S} UTC."
        for receiver, ledger in zip(receivers, ledgers, strict=True)
        if ledger.failures and receiver.problem is None
    ]
    tick.waiting += [str(receiver.problem) for receiver in receivers if receiver.problem]
    tick.cursor = ledgers_of.text(ledgers)
    return tick


def _episodes(
    subjects: Sequence[Subject], ledgers: Sequence[Ledger], look: Look
) -> list[tuple[Subject, Episode]]:
    """The last episode of each subject that anybody might have to be told of."""
    found = []
    for subject in subjects:
        back_to = min(ledger.back_to(subject.key) for ledger in ledgers)
        episode = look(subject, back_to)
        if episode is not None:
            found.append((subject, episode))
    return found


def _news(
    episodes: Sequence[tuple[Subject, Episode]], ledger: Ledger, at_least: Severity
) -> list[tuple[Subject, Episode, News]]:
    """What one receiver does not know, in the order in which it happened."""
    news = [
        (subject, episode, what)
        for subject, episode in episodes
        if (what := ledger.news(subject.key, episode, at_least))
    ]
    return sorted(news, key=lambda one: one[1].ended.at if one[1].ended else one[1].since)
