"""An API in a few lines, for what the sandbox does not do: answers made up request by request.

It has no login, it runs in the test's process, and each answer is what a function of the query
returns. The test can therefore change the shop between two requests, or hold an answer back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Answer = dict[str, Any] | list[Any]
Answering = Callable[[dict[str, str]], Answer]


class Api:
    """An API without login that answers with what a function of the query returns."""

    def __init__(self, answer: Answering) -> None:
        self.asked: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.redirect: str | None = None
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or each answer waits 40 ms for the client's nod

            def do_GET(self) -> None:
                query = dict(parse_qsl(urlsplit(self.path).query))
                api.asked.append(query)
                api.headers.append(dict(self.headers))
                body = json.dumps(answer(query)).encode()
                try:
                    self._send(body)
                except ConnectionError:
                    self.close_connection = True  # the client was killed while it waited

            def _send(self, body: bytes) -> None:
                self.send_response(302 if api.redirect else 200)
                if api.redirect:
                    self.send_header("Location", api.redirect)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing: the test says what went wrong."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

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
