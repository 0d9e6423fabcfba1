"""The record of requests, for tests that ask what a client did.

Here: noting every request but those to `/_sandbox`, since looking must not change what one sees.
Never noted: a token, a key or a secret, wherever in the request it stands.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .auth import has_credentials
from .faults import Fault
from .state import RequestRecord, Sandbox

_RECORD = "sandbox.record"
_SECRET = ("api_key", "access_token", "client_secret", "token")


class RequestLog:
    """ASGI middleware that notes each request and the status it got."""

    def __init__(self, app: ASGIApp, sandbox: Sandbox) -> None:
        self._app = app
        self._sandbox = sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_sandbox"):
            await self._app(scope, receive, send)
            return
        record = _record(Request(scope))
        self._sandbox.record(record)
        scope[_RECORD] = record

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            await send(message)

        await self._app(scope, receive, noting)


def note_fault(request: Request, fault: Fault) -> None:
    """Note the fault that a request got."""
    request.scope[_RECORD].fault = fault.name


def _record(request: Request) -> RequestRecord:
    return RequestRecord(
        method=request.method,
        path=request.url.path,
        query=_without_secrets(request.url.query),
        authorization=has_credentials(request),
    )


def _without_secrets(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    if not any(name in _SECRET for name, _ in pairs):
        return query
    return urlencode([(name, "***" if name in _SECRET else value) for name, value in pairs])
