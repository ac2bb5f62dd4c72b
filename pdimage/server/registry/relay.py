"""A request that goes on to another serving process, which has the router's link: HTTP/1.1 over one connection each.

:class:`Relayed` is asked as a :class:`.streams.Stream` is.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import h11

from paradrop.backend.link.messages import PIECE_BYTES, Answer, Headers
from pdimage.server.registry.streams import Lost

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Connection]]
CONNECT_SECONDS = 5.0


class Relayed:
    """A request to another process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)
        self._lost = ""
        self._changed = asyncio.Event()

    async def begin(self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send the head of the request."""
        await self._write(h11.Request(method=method, target=path, headers=list(headers)))

    async def send(self, content: bytes) -> None:
        """Send some of its body."""
        await self._write(h11.Data(data=content))

    async def end(self) -> None:
        """Say that its body is complete."""
        await self._write(h11.EndOfMessage())

    async def head(self) -> Answer:
        """Return the head of the answer when it has come.

        :raises Lost: none will come
        """
        event = await self._event()
        while isinstance(event, h11.InformationalResponse):
            event = await self._event()
        if not isinstance(event, h11.Response):
            raise Lost("the server process that has its link ended")
        return Answer(1, event.status_code, tuple((name.decode("latin-1"), value.decode("latin-1"))
                                                  for name, value in event.headers))

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the answer's body.

        :raises Lost: the rest won't come
        """
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    def abandon(self, why: str) -> None:
        """Make whoever waits for something of it stop: who asked has gone."""
        self._lost = self._lost or why
        self._writer.transport.abort()

    async def _event(self) -> h11.Event:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(PIECE_BYTES))
        except (OSError, h11.RemoteProtocolError):
            raise Lost(self._lost or "the server process that has its link ended") from None
        if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            raise Lost(self._lost or "the server process that has its link ended")
        assert not isinstance(event, type)
        return event

    async def _write(self, event: h11.Event) -> None:
        try:
            self._writer.write(self._http.send(event) or b"")
            await self._writer.drain()
        except (OSError, h11.LocalProtocolError):
            raise Lost(self._lost or "the server process that has its link ended") from None


@asynccontextmanager
async def relayed(connect: Connect, method: str, path: str, headers: Headers) -> AsyncIterator[Relayed]:
    """Have a request to another process.

    :raises OSError: it is not there
    """
    async with asyncio.timeout(CONNECT_SECONDS):
        reader, writer = await connect()
    try:
        asked = Relayed(reader, writer)
        await asked.begin(method, path, [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers])
        yield asked
    finally:
        writer.transport.abort()


async def connect(url: str) -> Connection:
    """Connect to a server by its URL."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    return await asyncio.open_connection(
        parts.hostname, parts.port or (443 if secure else 80), limit=PIECE_BYTES,
        ssl=ssl.create_default_context() if secure else None)
