"""What went over the wire: each answer's status and headers, or what happened instead.

The sessions of the pipeline retry, and turn what happened into the errors of a run. The doctor looks
underneath: at the certificate that was refused, at the clock in an answer, at limits of a rate.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectTimeout, SSLError, Timeout
from urllib3.exceptions import NameResolutionError, NewConnectionError

from orders_dagster.errors import causes


@dataclass(frozen=True)
class Exchange:
    """A request, and what came of it.

    Attributes:
        url: without parameters: they hold dates of orders.
        status: None if there was no answer.
        at: half-way between request and answer, UTC: about when the server looked at its clock.
    """

    url: str
    at: datetime
    seconds: float
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    error: Exception | None = None

    @property
    def has_connected(self) -> bool:
        """Whether something was there, even if it has not answered as it should."""
        return self.error is None or not any(
            isinstance(cause, (NewConnectionError, ConnectTimeout, NameResolutionError))
            for cause in _inside(self.error)
        )

    @property
    def tls_error(self) -> Exception | None:
        return self.error if isinstance(self.error, SSLError) else None

    def what_happened(self) -> str:
        """In words, without what urllib3 quotes."""
        if self.error is None:
            return f"it answers {self.status}"
        found = list(_inside(self.error))
        if any(isinstance(cause, NameResolutionError) for cause in found):
            return "its name is unknown"
        if any(isinstance(cause, ConnectionRefusedError) for cause in found):
            return "connection refused"
        if isinstance(self.error, SSLError):
            return "the TLS certificate is not accepted"
        if isinstance(self.error, Timeout):
            return "no answer in time"
        return "the connection broke off"

    def certificate_fault(self) -> tuple[int, str] | None:
        """OpenSSL's number and words for what is wrong with the certificate; None if it is not that."""
        for cause in _inside(self.error) if self.error else ():
            if isinstance(cause, ssl.SSLCertVerificationError):
                return cause.verify_code, cause.verify_message
        return None


class Wire(HTTPAdapter):
    """Takes the place of the sessions' own adapters, and notes what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.exchanges: list[Exchange] = []

    def taps(self, *sessions: Session) -> None:
        for session in sessions:
            for scheme in ("http://", "https://"):
                session.mount(scheme, self)

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        began, sent = time.monotonic(), datetime.now(UTC)
        url = (request.url or "").partition("?")[0]
        try:
            response = super().send(request, *args, **kwargs)
        except Exception as error:
            self.exchanges.append(Exchange(url, sent, time.monotonic() - began, error=error))
            raise
        answered = datetime.now(UTC)
        self.exchanges.append(
            Exchange(
                url,
                sent + (answered - sent) / 2,
                time.monotonic() - began,
                response.status_code,
                response.headers,
            )
        )
        return response

    @property
    def last(self) -> Exchange:
        return self.exchanges[-1]

    @property
    def answers(self) -> list[Exchange]:
        return [exchange for exchange in self.exchanges if exchange.status is not None]


def _inside(error: BaseException) -> Iterator[BaseException]:
    """The error with everything that requests and urllib3 put inside it."""
    for cause in causes(error):
        yield cause
        for argument in cause.args:
            inner = getattr(argument, "reason", argument)
            if isinstance(inner, BaseException) and inner is not cause:
                yield from _inside(inner)
