"""An API in a few lines, for what the sandbox does not do: answers made up request by request.

It has no login, it runs in the test's process, and each answer is what a function of the query
returns. The test can therefore change the shop between two requests, hold an answer back, or refuse one
with headers of its own.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Refusal:
    """An answer that is no page: a status, and headers beside those that every answer has."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)


Answer = dict[str, Any] | list[Any] | bytes | Iterator[bytes] | Refusal
Answering = Callable[[dict[str, str]], Answer]


class Api:
    """An API without login that answers with what a function of the query returns.

    Attributes:
        also: headers of every answer.
        redirect: where every answer redirects to.
        login_page: the path of a page of HTML that every other path redirects to.
        interim: a status that it sends before each answer, and how often.
        seconds_ahead: what its clock is wrong by.
    """

    def __init__(self, answer: Answering, certificate: Path | None = None) -> None:
        self.asked: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.redirect: str | None = None
        self.login_page: str | None = None
        self.also: dict[str, str] = {}
        self.interim: tuple[int, int] | None = None
        self.seconds_ahead = 0.0
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or each answer waits 40 ms for the client's nod

            def do_GET(self) -> None:
                if api.login_page:
                    self._lead_to_login(api.login_page)
                    return
                query = dict(parse_qsl(urlsplit(self.path).query))
                api.asked.append(query)
                api.headers.append(dict(self.headers))
                answered = answer(query)
                try:
                    self._send(answered)
                except ConnectionError:
                    self.close_connection = True  # the client was killed while it waited

            def _send(self, answered: Answer) -> None:
                if isinstance(answered, Iterator):
                    self.close_connection = True  # which is its end
                    self.send_response(200)
                    self.end_headers()
                    for piece in answered:
                        self.wfile.write(piece)
                    return
                status, headers, body = 200, dict[str, str](), answered
                if isinstance(answered, Refusal):
                    status, headers, body = answered.status, answered.headers, {}
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                if status == 204:
                    content = b""
                for _ in range(api.interim[1] if api.interim else 0):
                    self.send_response_only(api.interim[0] if api.interim else 0)
                    self.end_headers()
                self.send_response(302 if api.redirect else status)
                of_json = {"Content-Type": "application/json"}
                for name, value in (of_json | api.also | headers).items():
                    self.send_header(name, value)
                if api.redirect:
                    self.send_header("Location", api.redirect)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _lead_to_login(self, page: str) -> None:
                is_there = self.path == page
                content = b"<title>Log in</title>" if is_there else b""
                self.send_response(200 if is_there else 302)
                self.send_header("Location", page)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string((timestamp or time.time()) + api.seconds_ahead)

            def log_message(self, *_: Any) -> None:
                """Nothing: the test says what went wrong."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            # The handshake is for the thread of the request, not for the one that accepts.
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
            self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_port}"

    @contextmanager
    def running(self) -> Iterator[Api]:
        thread = Thread(target=self.server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            thread.join()
            self.server.server_close()


def order(n: int, second: int, **fields: Any) -> dict[str, Any]:
    """An order without items, modified at a second of a day."""
    at = f"2024-01-01T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z"
    return {"order_id": n, "last_modified_date": at, "items": []} | fields


def at(order: dict[str, Any]) -> datetime:
    return _time(order["last_modified_date"])


def page(orders: list[dict[str, Any]], query: dict[str, str], **how: Any) -> dict[str, Any]:
    """A page that is honest but for `how`: filtered, sorted by time, cut."""
    since, before = (
        _time(query[name]) + how.get("zone", timedelta()) if name in query else otherwise
        for name, otherwise in (("modified_since", _FIRST), ("modified_before", _LAST))
    )
    behind = [
        o for o in orders if at(o) > since or (at(o) == since and not how.get("excludes_start"))
    ]
    if not how.get("ignores_end"):
        behind = [
            o for o in behind if at(o) < before or (how.get("includes_end") and at(o) == before)
        ]
    behind.sort(key=at, reverse=how.get("descending", False))
    offset = 0 if how.get("ignores_offset") else int(query.get("offset", 0))
    limit = how.get("always") or min(int(query.get("limit", 20)), how.get("cap", 1000))
    rows = behind[offset : offset + limit]
    total = min(len(behind), how.get("counts_up_to", len(behind)))
    return {"orders": rows, "total": len(rows) if how.get("counts_page") else total}


_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def _time(text: str) -> datetime:
    """UTC, where a text names no zone, as a day does."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
