"""The open connections, so that a fault can cut one.

ASGI has no word for "close the connection now", and an exception in an application becomes a
polite 500. So the server's protocol class is extended to note each connection's transport by the
client's address, which every request carries. This holds for both of uvicorn's protocols, h11 and
httptools. Not here: when a connection is cut (`answers.py`).
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.auto import AutoHTTPProtocol

Address = tuple[str, int]
Connections = dict[Address, asyncio.Transport]


def tracking_protocol(connections: Connections) -> type[asyncio.Protocol]:
    """The server's protocol class, extended to keep `connections` up to date."""

    # The base is chosen by uvicorn at run time, which a type checker cannot follow.
    class TrackingProtocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
        def connection_made(self, transport: asyncio.Transport) -> None:
            self.sandbox_address = _address(transport)
            connections[self.sandbox_address] = transport
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.pop(self.sandbox_address, None)
            super().connection_lost(exc)

    return TrackingProtocol


def _address(transport: asyncio.Transport) -> Address:
    host, port = transport.get_extra_info("peername")[:2]
    return host, port
