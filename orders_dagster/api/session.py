"""The HTTP session: retries, pacing, exact JSON, and what went over the wire.

What a status means is decided here, once; what is on a page is decided in paging.py. It retries
what time can cure (a dropped connection, a cut-off or garbled body, a timeout, the statuses of the
setting) and stops at once at what it cannot.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import SplitResult, parse_qsl, urljoin, urlsplit

import msgspec
import requests
from dlt.sources.helpers.rest_client.redaction import SENSITIVE_PARAMS, sanitize_url
from requests import PreparedRequest, Response
from requests.auth import HTTPBasicAuth
from requests.exceptions import (
    ChunkedEncodingError,
    ConnectionError,
    ContentDecodingError,
    InvalidHeader,
    Timeout,
    TooManyRedirects,
)
from requests.utils import get_auth_from_url
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_base, wait_exponential_jitter
from urllib3.exceptions import NewConnectionError

from orders_dagster.api.answers import AnswersOnly, Lines
from orders_dagster.errors import (
    ApiRefused,
    ApiUnavailable,
    ApiUnreachable,
    CredentialsRefused,
    OrdersError,
    ResponseNotUnderstood,
    causes,
)

MAX_WAIT_SECONDS = 300
"""The longest wait before a retry, Retry-After included: beyond it, the next scheduled run is the
better retry, and a run that sleeps for an hour holds the warehouse's pool for nothing."""

NO_CONTENT = 204
"""How some APIs say that they found nothing, BigCommerce's among them: RFC 9110, section 15.3.5."""

TEMPORARY = (408, 425)
"""Of the 4xx, those that are not about what was asked for: a time out, and too early."""

FIRST_APART_SECONDS = 0.05
MOST_APART_SECONDS = 2.0
"""How far apart the requests of all threads are after a 429, at first and at most: eight threads that
all come back at once would be told the same again, until one of them runs out of retries."""


@dataclass
class Traffic:
    """What went over the wire in one run. Shared by all sessions of the run."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *, requests: int = 0, retries: int = 0, bytes: int = 0) -> None:
        with self._lock:
            self.requests += requests
            self.retries += retries
            self.bytes += bytes


class Pace:
    """When a request may be sent, over all threads of a run.

    A 429 is about the client, not about one thread: all of them wait as long as it says, and go on one
    by one, twice as far apart as before, then closer again with every answer. And once a run is going
    to fail, nobody sends any more, or waits for an answer.

    Attributes:
        lines: the connections of those who wait.
    """

    def __init__(self, per_second: float | None) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._apart = 0.0
        self._next = self._held_until = 0.0
        self._changed = threading.Condition()
        self._failure: Exception | None = None
        self.lines = Lines()

    def wait(self) -> None:
        """Wait for one's turn.

        Raises: what the run fails with, once it does.
        """
        with self._changed:
            turn = max(time.monotonic(), self._next)
            while True:
                turn = max(turn, self._held_until)
                self._next = max(self._next, turn + self._interval + self._apart)
                self._sleep_until(turn)
                if self._held_until <= turn:
                    return
                # Held in the meantime: a later turn, after those that have got theirs.
                turn = max(self._next, self._held_until)

    def pause(self, seconds: float) -> None:
        """Wait in one thread, before it tries again."""
        with self._changed:
            self._sleep_until(time.monotonic() + seconds)

    def hold(self, seconds: float) -> None:
        """Let nobody send for a while."""
        with self._changed:
            now = time.monotonic()
            if now >= self._held_until:  # several threads are told at once
                self._apart = min(max(2 * self._apart, FIRST_APART_SECONDS), MOST_APART_SECONDS)
            self._held_until = max(self._held_until, now + seconds)

    def answered(self) -> None:
        """An answer came: the requests may come a little closer again."""
        if self._apart:
            with self._changed:
                self._apart = self._apart * 0.95 if self._apart > 0.001 else 0.0

    def stop(self, failure: Exception) -> Exception:
        """The run fails: wake all who wait, and let nobody send.

        Returns: what it fails with; others may have failed before.
        """
        with self._changed:
            self._failure = self._failure or failure
            self._changed.notify_all()
            self.lines.cut()
            return self._failure

    def _sleep_until(self, moment: float) -> None:
        while self._failure is None and (left := moment - time.monotonic()) > 0:
            self._changed.wait(left)
        if self._failure is not None:
            raise self._failure


class RenewableAuth(Protocol):
    """An auth whose token can be replaced while requests are under way."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest: ...

    def renew(self, refused: PreparedRequest) -> bool:
        """Get a new token unless it is newer than that of the refused request. False: cannot."""
        ...

    def is_due(self) -> bool:
        """Whether the token is to be renewed before another request is signed with it."""
        ...


_BROKEN = (ConnectionError, ChunkedEncodingError, ContentDecodingError, InvalidHeader, Timeout)
_SECRET_NAME = re.compile(r"secret|token|key|pass|pwd|sig|auth|credential|(^|_)pin$", re.IGNORECASE)


class _Transient(Exception):
    """A failure that time may cure."""

    def __init__(
        self, reason: str, *, retry_after_seconds: float | None = None, is_about_all: bool = False
    ) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds
        self.is_about_all = is_about_all


class ApiSession(requests.Session):
    """A requests session that returns parsed pages or raises one of our errors.

    Args:
        max_retries: further attempts after the first.
        backoff_factor: seconds before the first retry; doubled for each one after it, with jitter.
        address_setting: the setting to correct if nothing answers at the address.
        refused_settings: the settings to correct if the API answers 4xx.
        refused_later: those if it has answered others of the same kind before.
        credential_settings: the settings to correct if the API answers 401 or 403.
    """

    def __init__(
        self,
        *,
        traffic: Traffic,
        pace: Pace,
        status_codes: tuple[int, ...],
        max_retries: int,
        backoff_factor: float,
        timeout_seconds: float,
        address_setting: str,
        refused_settings: str,
        refused_later: str,
        credential_settings: str,
        secret_params: frozenset[str] = frozenset(),
        connections: int = 32,
    ) -> None:
        super().__init__()
        self.renewable_auth: RenewableAuth | None = None
        self._traffic = traffic
        self._pace = pace
        self._status_codes = frozenset(status_codes)
        self._timeout_seconds = timeout_seconds
        self._address_setting = address_setting
        self._refused_settings = refused_settings
        self._refused_later = refused_later
        self._credential_settings = credential_settings
        self._secret_params = set(SENSITIVE_PARAMS) | secret_params
        self._max_retries = max_retries
        self._wait = _WaitAsAsked(
            wait_exponential_jitter(
                multiplier=backoff_factor, max=MAX_WAIT_SECONDS, jitter=backoff_factor / 2
            )
        )
        self._has_answered = False  # at all
        self._has_read = False  # a body of it
        self.auth = _by_address  # or requests would look for a login in ~/.netrc, and send that
        for scheme in ("http://", "https://"):
            self.mount(scheme, AnswersOnly(pace.lines, pool_maxsize=connections))

    def __deepcopy__(self, memo: dict[int, Any]) -> ApiSession:
        """The session itself: dlt copies the configuration, and the copies share connections."""
        return self

    def stop(self, failure: Exception) -> None:
        """The run fails: whoever waits or wants to send, in any thread, fails with it."""
        self._pace.stop(failure)

    def redact(self, url: str | None) -> str:
        """A URL that can be shown: no password in it, and no parameter that sounds like one."""
        parts = urlsplit(url or "")
        names = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        secret = self._secret_params | {name for name in names if _SECRET_NAME.search(name)}
        netloc = parts.netloc.rpartition("@")[2]
        return str(sanitize_url(parts._replace(netloc=netloc).geturl(), secret))

    def get_redirect_target(self, resp: Response) -> str | None:
        """Where a redirect leads. Only within the API: what signs a request goes to no other host.

        Raises:
            ApiRefused: it leads elsewhere.
        """
        target: str | None = super().get_redirect_target(resp)
        if target is not None:
            here, there = urlsplit(resp.url), urlsplit(urljoin(resp.url, target))
            is_upgrade = (here.scheme, there.scheme) == ("http", "https")
            is_same = (here.scheme, _port(here)) == (there.scheme, _port(there))
            if here.hostname != there.hostname or not (is_same or is_upgrade):
                raise ApiRefused(
                    url=f"{self.redact(resp.url)} with a redirect to {there.scheme}://{there.hostname}",
                    status=resp.status_code,
                    settings=self._address_setting,
                )
        return target

    def rebuild_auth(self, prepared_request: PreparedRequest, response: Response) -> None:
        """What signs a request stays with it: a redirect leads to no other host."""

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        """Send, retry, and parse.

        Returns: an answer below 400 whose body is JSON; its `json()` is parsed once, and numbers
            with a fraction are Decimals. None for a 204, which has no body.

        Raises:
            ApiUnreachable, ApiRefused, CredentialsRefused, ResponseNotUnderstood: settings.
            ApiUnavailable: still failing after the last retry.
        """
        kwargs["timeout"] = self._timeout_seconds
        # dlt adds a hook that raises at any status of 400 and above, with the whole address in its
        # message, before a retry can be thought of.
        request.hooks = {"response": []}
        attempts = Retrying(
            stop=stop_after_attempt(self._max_retries + 1),
            wait=self._wait,
            retry=retry_if_exception_type(_Transient),
            before_sleep=self._before_retry,
            sleep=self._pace.pause,
            reraise=True,
        )
        try:
            return attempts(self._attempt, request, **kwargs)
        except OrdersError as error:
            raise self._pace.stop(error) from None
        except _NotJson as error:
            failure: OrdersError = ResponseNotUnderstood(
                url=self.redact(request.url),
                status=error.status,
                found=f"its body is no JSON ({error.content_type or 'no content type'})",
                setting=self._refused_settings,
            )
        except _Transient as error:
            failure = ApiUnavailable(
                url=self.redact(request.url),
                reason=str(error),
                attempts=attempts.statistics.get("attempt_number", 1),
            )
        except Exception as error:
            raise self._pace.stop(error) from None
        raise self._pace.stop(failure)

    def _attempt(self, request: PreparedRequest, **kwargs: Any) -> Response:
        response = self._exchange(request, **kwargs)
        if (
            response.status_code == 401
            and self.renewable_auth
            and self.renewable_auth.renew(request)
        ):
            response = self._exchange(request, **kwargs)
        status = response.status_code
        if status in self._status_codes:
            asked = _retry_after_seconds(response)
            raise _Transient(
                f"it answers {status}",
                retry_after_seconds=asked,
                is_about_all=status == 429 or asked is not None,
            )
        url = self.redact(request.url)
        if status in (401, 403):
            raise CredentialsRefused(
                url=url, answer=str(status), settings=self._credential_settings
            )
        if status >= 500 or status in TEMPORARY:
            settings = "sources.orders.retry.status_codes, if a retry may cure it, or tell the API's people"
            raise ApiRefused(url=url, status=status, settings=settings)
        if status >= 400:
            settings = self._refused_later if self._has_read else self._refused_settings
            raise ApiRefused(url=url, status=status, settings=settings)
        if response.is_redirect and response.headers["Location"].strip():
            return response  # requests follows it, and calls send() for the next address
        if status >= 300:
            raise _Transient(f"it answers {status}, which leads nowhere")
        body = None if response.status_code == NO_CONTENT else _parse(response)
        response.json = lambda **_: body  # type: ignore[method-assign]
        self._pace.answered()
        self._has_read = True
        return response

    def _exchange(self, request: PreparedRequest, **kwargs: Any) -> Response:
        self._take_turn(request)
        self._traffic.add(requests=1)
        try:
            response = super().send(request, **kwargs)
        except _BROKEN as error:
            reason = _reason(error)
            if not self._has_answered and _never_connected(error):
                raise ApiUnreachable(
                    url=self.redact(request.url), reason=reason, setting=self._address_setting
                ) from None
            raise _Transient(reason) from None
        except TooManyRedirects as error:
            raise ApiRefused(
                url=self.redact(request.url),
                status=getattr(error.response, "status_code", 302),
                settings=f"{self._address_setting} (it redirects again and again)",
            ) from None
        except (requests.RequestException, ValueError) as error:
            # An address or a header that cannot be sent. What requests says may quote a secret.
            raise ApiRefused(
                url=self.redact(request.url),
                status=0,
                settings=f"{self._address_setting} or {self._credential_settings} "
                f"(the request cannot be sent: {type(error).__name__})",
            ) from None
        except OSError as error:  # by requests itself, before it connects
            raise ApiRefused(
                url=self.redact(request.url),
                status=0,
                settings="REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE in the environment, the certificates to "
                f"trust ({type(error).__name__}: they cannot be read)",
            ) from None
        self._has_answered = True
        self._traffic.add(bytes=len(response.content))
        return response

    def _take_turn(self, request: PreparedRequest) -> None:
        """Wait until the request may be sent, signed with the token of now.

        A retry, a 429 or a slow pace may let it wait for longer than a token lives. Whoever has to fetch
        another one has missed its turn, and takes a second: all who wait for that token would otherwise go
        at once. Not a third: where tokens live shorter than the queue is long, none would ever be sent.
        """
        auth = self.renewable_auth
        if auth is None:
            self._pace.wait()
            return
        auth(request)
        self._pace.wait()
        if auth.is_due():
            auth(request)
            self._pace.wait()
            auth(request)

    def _before_retry(self, state: RetryCallState) -> None:
        self._traffic.add(retries=1)
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _Transient) and error.is_about_all and state.next_action:
            self._pace.hold(state.next_action.sleep)


class _NotJson(_Transient):
    """A 200 whose body is no JSON: cut off or garbled on the way, or not an API at all."""

    def __init__(self, status: int, content_type: str) -> None:
        super().__init__("its body is no JSON")
        self.status = status
        self.content_type = content_type


class _WaitAsAsked(wait_base):
    """As long as Retry-After says, or with exponential backoff and jitter where that is less than a second,
    since who comes back at once has used up all retries in a moment."""

    def __init__(self, otherwise: wait_base) -> None:
        self._otherwise = otherwise

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        asked = error.retry_after_seconds if isinstance(error, _Transient) else None
        if asked is None or asked < 1:  # a date that has passed, say
            return self._otherwise(retry_state)
        if asked > MAX_WAIT_SECONDS:
            wait = f"{asked:.0f} s" if math.isfinite(asked) else "longer than any number of seconds"
            raise _Gone(f"{error}, and asks to come back in {wait}")
        return asked


class _Gone(_Transient):
    """The API asks for a wait that is longer than a run should take."""


_JSON = msgspec.json.Decoder(float_hook=Decimal)
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")  # an escape, not what follows an escaped backslash


def _parse(response: Response) -> Any:
    def not_a_number(name: str) -> None:
        raise ValueError(name)

    # UTF-8 unless the API says otherwise: RFC 8259, section 8.1.
    charset = response.encoding if _names_charset(response) else None
    content = response.content
    if b"\\u0000" in content:  # no text of Postgres holds it, and every run would fail there
        content = _NUL.sub(rb"\1\\ufffd", content)
    if charset is None or charset.lower() in ("utf-8", "utf8"):
        charset = "utf-8-sig"
        # Twice as fast; what it refuses (half a character, a number of thousands of digits, a byte
        # order mark) json decides.
        with suppress(msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError):
            return _JSON.decode(content)
    for encoding in dict.fromkeys((charset, "utf-8-sig")):  # utf8mb4 is none that Python knows
        with suppress(ValueError, ArithmeticError, LookupError, RecursionError):
            return json.loads(
                content.decode(encoding),
                parse_float=Decimal,
                parse_int=_whole_number,
                parse_constant=not_a_number,
            )
    content_type = response.headers.get("Content-Type", "").partition(";")[0]
    raise _NotJson(response.status_code, content_type)


def _whole_number(text: str) -> int | Decimal:
    """An int, but for the numbers that Python refuses to make one of (4,300 digits and more)."""
    return int(text) if len(text) < 4300 else Decimal(text)


def _port(address: SplitResult) -> int | None:
    return address.port or {"http": 80, "https": 443}.get(address.scheme)


def _by_address(request: PreparedRequest) -> PreparedRequest:
    """Signs a request that has no other login, if its address holds one."""
    name, password = get_auth_from_url(request.url or "")
    return HTTPBasicAuth(name, password)(request) if name or password else request


def _names_charset(response: Response) -> bool:
    return "charset=" in response.headers.get("Content-Type", "").lower()


def _retry_after_seconds(response: Response) -> float | None:
    """RFC 9110, section 10.2.3: a number of seconds, or a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.replace(".", "", 1).isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    try:  # by the clock that it was written by
        now = parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
    except (ValueError, TypeError, OverflowError):
        now = time.time()
    return max(0.0, until - now)


def _never_connected(error: Exception) -> bool:
    return any(isinstance(e, NewConnectionError) for e in _reasons(error))


def _reasons(error: Exception) -> list[BaseException]:
    """The error with everything urllib3 put inside it."""
    found: list[BaseException] = list(causes(error))
    for e in list(found):
        found += [arg.reason for arg in e.args if getattr(arg, "reason", None)]
    return found


def _reason(error: Exception) -> str:
    """What happened, in words without an address: urllib3's messages repeat the URL."""
    if isinstance(error, Timeout):
        return "no answer in time"
    names = {type(e).__name__ for e in _reasons(error)}
    if "NameResolutionError" in names:
        return "its name is unknown"
    if any(isinstance(e, ConnectionRefusedError) for e in _reasons(error)):
        return "connection refused"
    if "SSLError" in names:
        return "the TLS certificate is not accepted"
    return "the connection broke off"
