"""Probes of the way to the API: is it there, is it who it says, does it let us in, is there a page?"""

from __future__ import annotations

from urllib.parse import urlsplit

import requests
from requests import PreparedRequest, Request

from orders_dagster.api.auth import RenewingClientCredentials
from orders_dagster.api.page import shape
from orders_dagster.api.query import templates
from orders_dagster.api.session import NO_CONTENT
from orders_dagster.doctor.finding import (
    Finding,
    Unanswered,
    Unjudged,
    counted,
    fail,
    named,
    ok,
    warn,
)
from orders_dagster.doctor.known import Known
from orders_dagster.errors import OrdersError
from orders_dagster.settings import OAuth2ClientCredentials

CONNECT_SECONDS = 10.0  # no server is that far away; what is asked then has the time that is set

MOST_TRIES = 8  # parameters that are left out, to find the one that is refused

_EXPIRED, _NOT_YET = 10, 9
_HOST, _ADDRESS = 62, 64
_UNKNOWN_ISSUER = (18, 19, 20, 21)
"""OpenSSL's X509_V_ERR_*."""


def reach(known: Known) -> Finding:
    """A request without credentials: whatever is answered, something is there."""
    settings = known.settings
    with requests.Session() as session:
        known.wire.taps(session)
        timeout = (
            min(CONNECT_SECONDS, settings.request_timeout_seconds),
            settings.request_timeout_seconds,
        )
        try:
            session.get(known.url, timeout=timeout, allow_redirects=False, stream=True).close()
        except (requests.RequestException, ValueError):
            if not known.wire.exchanges:
                return fail(f"{known.url} cannot be asked: it is no address", "base_url", "path")
    exchange = known.wire.last
    known.is_reached = exchange.error is None
    if not exchange.has_connected:
        return fail(f"{known.url}: {exchange.what_happened()}", "base_url")
    if isinstance(exchange.error, requests.ReadTimeout):
        message = f"{known.url}: {exchange.what_happened()}"
        return fail(message, "request_timeout_seconds", "base_url")
    if exchange.error and not exchange.tls_error:
        return fail(f"{known.url}: {exchange.what_happened()}", "base_url")
    return ok(f"{known.url} is there ({exchange.seconds:.2f} s)")


def tls(known: Known) -> Finding:
    """Whether the connection is encrypted, and the certificate accepted, as requests judges it."""
    exchange = known.wire.last if known.wire.exchanges else None
    if exchange is None or not exchange.has_connected:
        raise Unjudged("the API cannot be reached")
    address = urlsplit(known.settings.base_url)
    if address.scheme == "http":
        if _is_here(address.hostname or ""):
            return ok("not needed: the API is on this machine")
        return warn(
            "credentials and orders travel unencrypted",
            "base_url",
            suggestion=f'base_url = "{known.redact(known.settings.base_url).replace("http", "https", 1)}"',
        )
    if exchange.tls_error is None:
        if exchange.error:
            raise Unjudged("the API cannot be reached")
        return ok("the certificate is accepted")
    fault = exchange.certificate_fault()
    if fault is None:
        return fail("what is there does not speak TLS", "base_url")
    number, words = fault
    if number in (_EXPIRED, _NOT_YET):
        return fail(
            f"the API's certificate is not valid today ({words}): its owner has to renew it, "
            "unless the clock of this machine is wrong",
            "base_url",
        )
    if number in (_HOST, _ADDRESS):
        return fail("the API's certificate is for another name", "base_url")
    if number in _UNKNOWN_ISSUER:
        return fail(
            f"nobody this machine trusts has issued the API's certificate ({words})",
            "REQUESTS_CA_BUNDLE",
            suggestion="REQUESTS_CA_BUNDLE=<file with the certificate of your own authority>",
        )
    return fail(f"the API's certificate is not accepted ({words})", "base_url")


def token(known: Known) -> Finding:
    """A token for the client credentials; other kinds of login show with the first page."""
    auth = known.connection.auth
    if not isinstance(auth, RenewingClientCredentials):
        known.is_logged_in = True
        kind = known.settings.auth.type
        return ok(
            "none: the API is asked without a login"
            if kind == "none"
            else f"{kind}: no token is fetched"
        )
    url = known.redact(known.settings.token_url)
    before = len(known.wire.exchanges)
    try:
        auth(_unsent(known.url))
    except OrdersError:
        if len(known.wire.exchanges) == before:
            return fail(f"{url} cannot be asked", "token_url", "client_id", "client_secret")
        return _no_token(known, url)
    known.is_logged_in = True
    return ok(f"{url} gives one")


def _no_token(known: Known, url: str) -> Finding:
    exchange = known.wire.last
    in_basic = isinstance(known.settings.auth, OAuth2ClientCredentials) and (
        known.settings.auth.credentials_in == "basic"
    )
    status = exchange.status
    del known.connection  # a session that has failed sends no more
    if status is None:
        return fail(f"{url}: {exchange.what_happened()}", "token_url")
    if status < 300:
        return fail(f"{url} answers without an access_token", "token_url")
    if status in (400, 401, 403):
        other = "body" if in_basic else "basic"
        return fail(
            f"{url} refuses the credentials ({status})",
            "client_id",
            "client_secret",
            "auth",
            suggestion=f'or auth.credentials_in = "{other}", if it wants them there',
        )
    if status < 500 and status != 429:
        return fail(f"{url} answers {status}", "token_url")
    return fail(f"{url} answers {status}: it does not work, or not now", "token_url")


def one_page(known: Known) -> Finding:
    """The page that a first synchronisation begins with."""
    try:
        response = known.ask()
    except Unanswered as error:
        known.keep_first(error)
        return _no_page(known, error)
    known.keep_first(response)
    if response.status_code == NO_CONTENT:
        return ok("no content (204): nothing was found")
    return ok(f"{counted(len(response.content), 'byte')} of JSON, {shape_of(response.json())}")


def _no_page(known: Known, error: Unanswered) -> Finding:
    status = error.status
    what = f"{known.url}: {error}"
    if status in (401, 403):
        if known.settings.auth.type == "oauth2_client_credentials":
            return fail(
                f"{what}, though there is a token: see what it is allowed to read",
                "auth.scope",
                "client_id",
            )
        return fail(what, "auth")
    if status == 404:
        return fail(what, "path")
    if status in (400, 422):
        refused = _refused_parameter(known)
        if refused is not None:
            setting, name = refused
            return fail(f"{what}, but answers without the parameter {named(name)}", setting)
        return fail(what, "params", "limit_param", "offset_param")
    if status is not None and (status == 429 or status >= 500):
        return fail(f"{what}, {1 + known.settings.retry.max_retries} times in a row")
    return fail(what, "base_url", "path")


def _refused_parameter(known: Known) -> tuple[str, str] | None:
    """The parameter without which there is a page."""
    settings = known.settings
    names = dict.fromkeys(templates(settings.params), "params")
    names |= {settings.limit_param: "limit_param", settings.offset_param: "offset_param"}
    for name, setting in list(names.items())[-MOST_TRIES:]:
        try:
            known.ask(params={name: None})
        except Unanswered:
            continue
        if name == settings.limit_param:
            return _refused_limit(known, name)
        return setting, name
    return None


def _refused_limit(known: Known, name: str) -> tuple[str, str]:
    """Whether it is the name of the parameter, or so many orders."""
    try:
        known.ask(params={name: "2"})
    except Unanswered:
        return "limit_param", name
    return "page_size", f"{name}={known.settings.page_size}"


def shape_of(body: object) -> str:
    return named_shape(shape(body))


def named_shape(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _unsent(url: str) -> PreparedRequest:
    return Request("GET", url).prepare()


def _is_here(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
