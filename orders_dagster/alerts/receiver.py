"""Who is told: one receiver for each URL of `alerts.urls`, reached through Apprise.

A URL is a secret: it holds the token of a webhook or the password of a mailbox. Receivers are therefore
called by their number and the name of the service, and nothing that Apprise, or the HTTP client below
it, logs while it works with a URL gets anywhere: they quote hosts, and paths that are tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from pydantic import SecretStr

from orders_dagster.alerts.message import Message
from orders_dagster.errors import SettingsError

LOGGERS = (
    "apprise",
    "urllib3",
    "urllib3.connectionpool",
    "urllib3.connection",
    "urllib3.util.retry",
)


@dataclass(frozen=True)
class Receiver:
    """One URL.

    Attributes:
        name: what it is called in messages, "receiver 1 (Slack)".
        mark: what it is known by, whatever its place: too few bits of a hash of its URL to guess that by.
        service: Apprise with this one URL; None if it does not understand it.
    """

    name: str
    mark: str
    service: Any
    problem: SettingsError | None = None

    def send(self, message: Message) -> bool:
        """Whether the receiver took the message."""
        if self.service is None:
            return False
        with _nothing_logged():
            try:
                return bool(
                    self.service.notify(
                        title=message.title,
                        body=message.body,
                        notify_type=message.kind,
                        body_format="text",
                    )
                )
            except Exception:  # of whichever of a hundred plugins: it was not taken
                return False


def receivers(urls: Sequence[SecretStr]) -> list[Receiver]:
    """A receiver for each URL, in their order. One that is wrong holds up no other."""
    return [_receiver(number, url) for number, url in enumerate(urls, 1)]


def _receiver(number: int, url: SecretStr) -> Receiver:
    import apprise  # not with the module: all processes of a run import it, and few of them send

    with _nothing_logged():
        # In memory: by default some plugins keep tokens on disk between two messages.
        asset = apprise.AppriseAsset(
            app_id="orders-dagster",
            app_desc="orders-dagster",
            app_url="",
            async_mode=False,
            storage_mode="memory",
        )
        plugin = apprise.Apprise.instantiate(url.get_secret_value(), asset=asset)
    mark = blake2b(url.get_secret_value().encode(), digest_size=4).hexdigest()
    if plugin is None:
        problem = f"sources.orders.alerts.urls: Apprise does not understand the URL number {number}"
        return Receiver(
            f"receiver {number}",
            mark,
            None,
            SettingsError(
                [
                    f"{problem} (it is a secret, and not shown). Correct it; the README has examples, "
                    "and `orders-dagster alert-test` tries it."
                ]
            ),
        )
    service = apprise.Apprise(asset=asset)
    service.add(plugin)
    return Receiver(f"receiver {number} ({plugin.service_name})", mark, service)


_is_quiet: ContextVar[bool] = ContextVar("is_quiet", default=False)


def _may_be_logged(record: logging.LogRecord) -> bool:  # noqa: ARG001
    return not _is_quiet.get()


@contextmanager
def _nothing_logged() -> Iterator[None]:
    """No log of the libraries, from this thread and those that they start with its context. A filter
    of a logger does not see what its children log, so that the handlers have it too."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    places: list[logging.Filterer] = [*loggers, *logging.getLogger().handlers]
    for place in places:
        place.addFilter(_may_be_logged)
    token = _is_quiet.set(True)
    try:
        yield
    finally:
        # The filters stay: another thread may be sending, and they let everything else pass.
        _is_quiet.reset(token)
