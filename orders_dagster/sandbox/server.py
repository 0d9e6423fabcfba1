"""Serving a sandbox: in the foreground for the command line, in a thread for tests.

Here: the socket, the server's start and its end. Not here: what is served (`app.py`). The socket
is bound here and handed to uvicorn, so that a free port is known before anything runs and a port in
use is an ordinary OSError.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from .app import build_app
from .connections import tracking_protocol
from .faults import Faults
from .options import SandboxOptions
from .shop import Shop
from .state import Sandbox
from .tokens import Tokens

# How long requests in progress may take once the server is asked to end.
_GRACE_SECONDS = 1


@dataclass(frozen=True)
class RunningSandbox:
    """A sandbox that answers at `url`."""

    url: str
    sandbox: Sandbox

    @property
    def shop(self) -> Shop:
        """The orders; may be changed from the caller's thread."""
        return self.sandbox.shop

    @property
    def tokens(self) -> Tokens:
        """The tokens; `tokens.clock` may be replaced."""
        return self.sandbox.tokens

    @property
    def faults(self) -> Faults:
        """The faults of the requests to come."""
        return self.sandbox.faults


@contextmanager
def running(**options: Any) -> Iterator[RunningSandbox]:
    """Run a sandbox in a background thread, on a free port unless `port` is given.

    The options are the fields of `SandboxOptions`. The sandbox answers when the block is entered,
    and its port is closed when the block is left.
    """
    sandbox = Sandbox(SandboxOptions(**({"port": 0} | options)))
    listener, url = listen(sandbox.options)
    with listener:
        ready = threading.Event()
        server = _Server(sandbox, ready.set)
        thread = threading.Thread(
            target=_run, args=(server, listener, ready), name=f"sandbox {url}", daemon=True
        )
        thread.start()
        ready.wait()
        if not server.started:
            raise RuntimeError("the sandbox did not start; its thread has printed why")
        try:
            yield RunningSandbox(url, sandbox)
        finally:
            server.should_exit = True
            thread.join()


def serve(sandbox: Sandbox, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; must be called in the main thread."""
    _Server(sandbox, on_ready).run(sockets=[listener])


def listen(options: SandboxOptions) -> tuple[socket.socket, str]:
    """A socket bound to the options' host and port, and the base URL that leads there."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # Not socket.create_server: it leaves the protocol at 0, asyncio then does not know that this is
    # TCP and leaves Nagle's algorithm on, and every page below 64 KB takes 40 ms instead of 2.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere the option would let two sandboxes share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((options.host, options.port))
    except OSError:
        listener.close()
        raise
    host = f"[{options.host}]" if ":" in options.host else options.host
    return listener, f"http://{host}:{listener.getsockname()[1]}"


def _run(server: _Server, listener: socket.socket, ready: threading.Event) -> None:
    try:
        server.run(sockets=[listener])
    finally:
        ready.set()  # a server that failed must not leave its starter waiting


class _Server(uvicorn.Server):
    """A server that tells when it listens, and that ends quietly."""

    def __init__(self, sandbox: Sandbox, on_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                build_app(sandbox),
                http=tracking_protocol(sandbox.connections),
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                log_level="error",
                access_log=False,
                # Off, since it would replace the client's address, by which connections are found.
                proxy_headers=False,
                server_header=False,
            )
        )
        self._sandbox = sandbox
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As in uvicorn, but what still runs loses its connection: cancelling prints tracebacks."""
        self._sandbox.close()
        cut = asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._cut_connections)
        await super().shutdown(sockets=sockets)
        cut.cancel()

    def _cut_connections(self) -> None:
        for connection in list(self._sandbox.connections.values()):
            connection.abort()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As in uvicorn, but a signal is not raised again after an orderly end: exit code 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
