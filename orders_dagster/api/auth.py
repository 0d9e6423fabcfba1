"""OAuth2 client credentials whose token is renewed before it expires, and once after a 401.

Derived from dlt's auth class, whose token is the text "None" when the answer holds none, has no
margin before its expiry, is fetched by every thread for itself, and is not renewed on a 401.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import threading
import time
from typing import Annotated, Any, Final, Literal

from dlt.common.configuration import configspec
from dlt.common.configuration.specs.base_configuration import NotResolved
from dlt.sources.helpers.rest_client.auth import APIKeyAuth, OAuth2ClientCredentials
from requests import PreparedRequest

from orders_dagster.api.session import ApiSession
from orders_dagster.errors import NOTHING_LOADED, SettingsError

MARGIN_SECONDS = 30.0
"""Renew so long before the expiry: a request may wait that long in a queue, and clocks differ."""

DEFAULT_LIFETIME_SECONDS = 300.0
"""For an answer without a usable `expires_in`: short, since a 401 costs a request, a fetch little."""


@configspec
class RenewingClientCredentials(OAuth2ClientCredentials):
    """One token for all threads of a run.

    `access_token_url`, `client_id`, `client_secret` and `access_token_request_data` are dlt's keys;
    `credentials_in` is "body" or "basic" (RFC 6749, section 2.3.1).
    """

    type: Final[Literal["oauth2_client_credentials"]] = dataclasses.field(
        default="oauth2_client_credentials", init=False, repr=False, compare=False
    )
    credentials_in: str = "body"
    session: Annotated[ApiSession, NotResolved()] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.access_token_request_data = dict(self.access_token_request_data or {})
        self._lock = threading.Lock()
        self._token: str | None = None
        self._renew_at = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> RenewingClientCredentials:
        """A shallow copy: dlt masks the secrets of its copy, and a lock cannot be copied."""
        return copy.copy(self)

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign a request, with a new token if this one is about to expire."""
        with self._lock:
            if self.is_due():
                self._fetch()
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def is_due(self) -> bool:
        """Whether the next request is signed with a new token."""
        return self._token is None or time.monotonic() >= self._renew_at

    def renew(self, refused: PreparedRequest) -> bool:
        """After a 401: forget the token, unless another thread has already replaced it."""
        with self._lock:
            if refused.headers.get("Authorization") == f"Bearer {self._token}":
                self._token = None
        return True

    def _fetch(self) -> None:
        form, headers = dict(self.access_token_request_data), {}
        if self.credentials_in == "basic":
            pair = f"{self.client_id}:{self.client_secret}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        else:
            form |= {"client_id": self.client_id, "client_secret": self.client_secret}
        form["grant_type"] = "client_credentials"
        answer = self.session.post(self.access_token_url, data=form, headers=headers).json()
        token = answer.get("access_token") if isinstance(answer, dict) else None
        token = token.strip() if isinstance(token, str) else None
        if not token or not token.isascii() or not token.isprintable():
            raise SettingsError(
                [
                    f"{self.session.redact(self.access_token_url)} answered without an access_token. "
                    f"Correct sources.orders.token_url. {NOTHING_LOADED}"
                ]
            )
        lifetime = lifetime_seconds(answer.get("expires_in"))
        # A token that lives shorter than twice the margin is used for half its life.
        self._renew_at = time.monotonic() + max(lifetime - MARGIN_SECONDS, lifetime / 2)
        self._token = token


class ApiKeyInCookie(APIKeyAuth):
    """An API key in a cookie, which dlt's class names as a location, and does not send."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        # Among those that requests keeps: what is only a header is gone after a redirect.
        cookies = request._cookies  # type: ignore[attr-defined]
        cookies.set(self.name, self.api_key)
        request.headers.pop("Cookie", None)
        request.prepare_cookies(cookies)
        return request


def lifetime_seconds(expires_in: Any) -> float:
    """How long a token lives: a number, a number as text, or the default for anything else."""
    try:
        seconds = float(expires_in)
    except (TypeError, ValueError, OverflowError):
        return DEFAULT_LIFETIME_SECONDS
    return seconds if 0 < seconds < float("inf") else DEFAULT_LIFETIME_SECONDS
