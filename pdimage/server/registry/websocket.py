"""Routers' WebSockets in uvicorn. They are idle and many, so they are counted apart from the connections of HTTP.

Of uvicorn's implementations websockets-sansio takes the least CPU for each link and message (1400 links made each
second on one core; wsproto 520, the older websockets 880) and 19 KiB for an idle link (wsproto 18, websockets 26).
"""

import asyncio
import logging
from typing import Any

from uvicorn import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

# How long routers have to answer the end of their link when the server ends.
_END_SECONDS = 1.0

log = logging.getLogger(__name__)
log.setLevel(logging.WARNING)  # not a line for each link


class _Protocol(WebSocketsSansIOProtocol):
    """A WebSocket; ASGI's scope has an extension ``link``: ``abort`` cuts it, ``put`` sends a frame at once."""

    links: "Links"

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any],
                 _loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.connections = self.links.open
        self.tasks = self.links.running
        self.logger = self.conn.logger = log

    async def run_asgi(self) -> None:
        self.scope["extensions"]["link"] = {"abort": self.transport.abort, "put": self.put}
        await super().run_asgi()

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # it was refused; else uvicorn takes that for a mistake, and logs it
        elif message["type"] == "websocket.accept":  # nobody looks at these any more, and they are 3 KiB
            self.request.headers.clear()
            self.request = self.response = None  # type: ignore[assignment]
            self.scope["headers"] = []

    def put(self, frame: bytes) -> None:
        """Send a frame as it goes over the wire; not at all while the connection takes nothing."""
        if self.writable.is_set() and not (self.close_sent or self.transport.is_closing()):
            self.transport.write(frame)


class Links:
    """The WebSockets of one process. ``protocol`` is what uvicorn is given."""

    def __init__(self) -> None:
        self.open: set[Any] = set()
        self.running: set[asyncio.Task[None]] = set()
        self.protocol: type[asyncio.Protocol] = type("Protocol", (_Protocol,), {"links": self})

    async def close(self) -> None:
        """End those that are left."""
        for protocol in list(self.open):
            protocol.shutdown()
        if self.running:
            await asyncio.wait(self.running, timeout=_END_SECONDS)
        for protocol in list(self.open):
            protocol.transport.abort()
