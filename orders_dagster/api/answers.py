"""Connections that skip what a server sends before its answer, such as 103 Early Hints, and that can be cut
while somebody waits for one; and answers that are read in a few pieces.

Python skips 100 only, and takes any other for the answer. The connection goes back to its pool then, with
the answer still to come; the next request on it would read that one as its own, and so on from there.
"""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

AT_ONCE = 2**20  # bytes

MOST_BEFORE = 100
"""How much is skipped before one answer. Each is something read in time, so that no timeout ends it."""


class Lines:
    """The connections of a session, whoever uses them.

    Their sockets, that is: a connection forgets its own where the end of an answer is the end of the line.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal may come while it is held
        self._open: WeakSet[socket.socket] = WeakSet()
        self._is_cut = False

    def connected(self, connection: HTTPConnection) -> None:
        """One more is open."""
        with self._lock:
            if isinstance(connection.sock, socket.socket):  # not TLS within TLS
                self._open.add(connection.sock)
            if self._is_cut:
                self.cut()

    def cut(self) -> None:
        """Whoever waits for an answer, or reads one, finds that the connection broke off; for good."""
        with self._lock:
            self._is_cut = True
            for line in list(self._open):
                with suppress(OSError):  # it has ended
                    # Not TLS's own, which would take its state away from the thread that reads.
                    socket.socket.shutdown(line, socket.SHUT_RDWR)


class _Answer(http.client.HTTPResponse):
    _statuses = 0

    def _read_status(self) -> tuple[str, int, str]:
        """The status of the answer itself: RFC 9110, section 15.2. Behind 101, another protocol begins; 100
        Python skips, and asks again."""
        while self._statuses <= MOST_BEFORE:
            self._statuses += 1
            found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not http.HTTPStatus.SWITCHING_PROTOCOLS < found[1] < http.HTTPStatus.OK:
                return found
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException("it only announces an answer")


class _Whole(Response):
    """An answer whose body is read in large pieces: after each piece, a thread has to wait for its turn in
    the interpreter, and the pieces of requests are 10 KiB."""

    def iter_content(self, chunk_size: int | None = 1, decode_unicode: bool = False) -> Any:
        return super().iter_content(max(chunk_size or 0, AT_ONCE), decode_unicode)


class _Connection(HTTPConnection):
    response_class = _Answer
    lines: Lines

    def connect(self) -> None:
        super().connect()
        self.lines.connected(self)


class _SecureConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


class AnswersOnly(HTTPAdapter):
    """The adapter of requests, with such connections, also through a proxy."""

    def __init__(self, lines: Lines, **kwargs: Any) -> None:
        self._lines = lines
        super().__init__(**kwargs)

    def build_response(self, req: PreparedRequest, resp: Any) -> Response:
        response = super().build_response(req, resp)
        response.__class__ = _Whole
        return response

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._use_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            self._use_pools(manager)
        return manager

    def _use_pools(self, manager: Any) -> None:
        ours = {"lines": self._lines}

        class Pool(HTTPConnectionPool):
            ConnectionCls = type("Connection", (_Connection,), ours)

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = type("SecureConnection", (_SecureConnection,), ours)

        manager.pool_classes_by_scheme = {"http": Pool, "https": SecurePool}
