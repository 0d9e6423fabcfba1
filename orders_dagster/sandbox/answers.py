"""What goes back to the client: pages in each shape, errors, and answers that faults spoil.

Here: bodies and broken bodies. Not here: which of them a request gets (`app.py`).

Bodies are joined from the orders' JSON bytes; nothing is encoded twice, which keeps pages fast and
amounts exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .auth import CHALLENGES
from .connections import Connections
from .exact_json import dumps
from .faults import Fault

_GARBAGE = b"<!DOCTYPE html><html><body><h1>We will be back soon</h1></body></html>"


def json_answer(
    value: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """A JSON answer, exact for Decimals."""
    return Response(dumps(value), status, headers, "application/json")


def page_body(
    shape: str, orders: Sequence[bytes], total: int | None, limit: int, offset: int
) -> bytes:
    """A page of orders in one of the SHAPES; `total` None is left out."""
    rows = b"[" + b",".join(orders) + b"]"
    if shape == "bare":
        return rows
    if shape == "nested":
        paging = b"{}" if total is None else b'{"total":%d}' % total
        return b'{"data":{"sales":' + rows + b'},"paging":' + paging + b"}"
    counted = b"" if total is None else b'"total":%d,' % total
    return b'{"orders":%b,%b"limit":%d,"offset":%d}' % (rows, counted, limit, offset)


def unauthorized(auth: str) -> Response:
    """The 401 of a request without good credentials."""
    message = {"error": "invalid_token", "message": f"no valid credentials ({auth})"}
    challenge = CHALLENGES.get(auth, CHALLENGES["oauth2"])
    return json_answer(message, 401, {"WWW-Authenticate": challenge})


def failure(status: int, retry_after_seconds: float | None) -> Response:
    """An error answer as a gateway gives it."""
    headers = {}
    if retry_after_seconds is not None:
        headers["Retry-After"] = f"{retry_after_seconds:g}"
    known = status in HTTPStatus.__members__.values()
    return json_answer({"error": HTTPStatus(status).phrase if known else "fault"}, status, headers)


def spoiled(fault: Fault | None, answer: Response, connections: Connections) -> Response:
    """A good answer, after the fault that strikes it; most faults strike elsewhere."""
    if fault is None or answer.status_code != 200:
        return answer
    if fault.name == "garble":
        return Response(_GARBAGE, media_type="text/html")
    if fault.name == "nobody":
        return json_answer({})
    if fault.name == "truncate":
        return Truncated(bytes(answer.body), connections)
    return answer


class Dropped(Response):
    """No answer at all: the connection is closed."""

    def __init__(self, connections: Connections) -> None:
        super().__init__()
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        if connection := self._connections.get(scope["client"]):  # else the client left first
            connection.abort()
        await _disconnected(receive)


class Truncated(Response):
    """A whole body announced, half of it sent, and the connection closed."""

    def __init__(self, body: bytes, connections: Connections) -> None:
        super().__init__(body, media_type="application/json")
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        half = bytes(self.body)[: len(self.body) // 2]
        await send(start)
        await send({"type": "http.response.body", "body": half, "more_body": True})
        # Not abort(): what was sent is still to arrive.
        if connection := self._connections.get(scope["client"]):
            connection.close()
        await _disconnected(receive)


async def _disconnected(receive: Receive) -> None:
    """Wait until the server has noticed, or it would try to answer on the closed connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
