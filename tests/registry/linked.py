"""Scripted routers: real WebSockets, real signatures, answers that a test decides; light enough for thousands."""

import asyncio
import base64
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from paradrop.backend.link import messages
from paradrop.backend.link.messages import (
    PIECE_BYTES,
    WINDOW,
    Answer,
    Challenge,
    Credit,
    End,
    Facts,
    FromServer,
    Headers,
    Hello,
    Message,
    Open,
    Ping,
    Pong,
    Reset,
    Welcome,
    challenge_text,
    encode,
    from_server,
    parse_piece,
    piece,
)
from pdimage.server import tables
from pdimage.server.registry.tables import routers

FACTS = Facts("1.0")


class Closed(Exception):
    """The server ended the link, or refused it: the code (of the WebSocket, or HTTP's status) and the reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Wire:
    """A WebSocket's client, as small as RFC 6455 allows: what it sends is masked with zeros."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, url: str, source: str | None = None, made: socket.socket | None = None) -> "Wire":
        """Connect, unless the connection is MADE; Closed with HTTP's status and Retry-After if the server refuses."""
        parts = urlsplit(url)
        where = {"sock": made} if made else {"host": parts.hostname, "port": parts.port,
                                             "local_addr": (source, 0) if source else None}
        reader, writer = await asyncio.open_connection(**where, limit=1 << 17)  # type: ignore[arg-type]
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(f"GET {messages.PATH} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
                     f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            raise Closed(1006, "") from None
        status = int(head[0].split()[1])
        if status != 101:
            writer.close()
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            raise Closed(status, headers.get("retry-after", ""))
        return cls(reader, writer)

    async def read(self) -> str | bytes:
        """Return the next frame, Closed at the end."""
        try:
            first, size = await self.reader.readexactly(2)
            if size > 125:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
            content = await self.reader.readexactly(size)
        except (OSError, asyncio.IncompleteReadError):
            self.writer.close()
            raise Closed(1006, "") from None
        if first & 15 == 8:
            self.writer.close()
            raise Closed(int.from_bytes(content[:2], "big"), content[2:].decode())
        return content.decode() if first & 15 == 1 else content

    async def send(self, frame: str | bytes) -> None:
        """Send a frame."""
        content = frame.encode() if isinstance(frame, str) else frame
        size = len(content)
        head = struct.pack("!BB", 129 if isinstance(frame, str) else 130, 128 | size) if size < 126 else \
            struct.pack("!BBH" if size < 65536 else "!BBQ", 129 if isinstance(frame, str) else 130,
                        254 if size < 65536 else 255, size)
        self.writer.write(head + bytes(4) + content)
        await self.writer.drain()


@dataclass(frozen=True)
class Card:
    """What a router was given when it was provisioned, and what it is."""

    pdid: str
    certificate: str
    key: Ed25519PrivateKey
    machine: str = "machine"
    boot: str = "boot-1"
    facts: Facts = FACTS

    def hello(self, host: str, nonce: str) -> Hello:
        """Return the proof."""
        return Hello(self.pdid, self.certificate, self.key.sign(challenge_text(host, nonce)), self.boot, self.machine,
                     "1.0", 1.0, self.facts)

    def on(self, machine: str) -> "Card":
        """Return a copy of the disk in another machine."""
        return replace(self, machine=machine, boot=f"boot-of-{machine}")


def enrol(database: str, account: str, names: Iterable[str], machine: str = "machine") -> list[Card]:
    """Write routers of an account into the database as provisioning leaves them, with certificates made here."""
    authority = Ed25519PrivateKey.generate()
    cards, rows = [], []
    for name in names:
        key, pdid = Ed25519PrivateKey.generate(), f"pd.{account}.{name}"
        certificate = _certificate(pdid, key, authority)
        cards.append(Card(pdid, certificate, key, machine))
        rows.append({"pdid": pdid, "account": account, "name": name, "made": 1.0, "provisioned": 2.0,
                     "certificate": certificate, "machine": machine, "public_key": key.public_key().public_bytes(
                         Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()})
    engine = tables.connect(database)
    with engine.begin() as connection:
        connection.execute(sa.insert(routers), rows)
    engine.dispose()
    return cards


def _certificate(pdid: str, key: Ed25519PrivateKey, authority: Ed25519PrivateKey) -> str:
    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        issuer_name=named("authority"), subject_name=named(pdid), public_key=key.public_key(),
        serial_number=x509.random_serial_number(), not_valid_before=now - timedelta(days=1),
        not_valid_after=now + timedelta(days=30)).sign(authority, None).public_bytes(Encoding.PEM).decode()


class Exchange:
    """A request that came through the link. The body is read with ``pieces``, which gives credit."""

    def __init__(self, wire: Wire, opened: Open) -> None:
        self.opened = opened
        self.lost = ""
        self._wire = wire
        self._credit = WINDOW
        self._came: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._changed = asyncio.Event()

    def take(self, message: FromServer | bytes) -> None:
        """Take what the server says of it."""
        if isinstance(message, bytes):
            self._came.put_nowait(message)
        elif isinstance(message, Credit):
            self._credit += message.bytes
        else:
            self.lost = message.reason if isinstance(message, Reset) else ""
            self._came.put_nowait(None)
        self._changed.set()

    def waiting(self) -> list[bytes]:
        """Return what came of the body and was not read."""
        return [content for content in self._came._queue if content]  # type: ignore[attr-defined]

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the request's body."""
        while content := await self._came.get():
            yield content
            await self.say(Credit(self.opened.stream, len(content)))

    async def body(self) -> bytes:
        """Return the request's body."""
        return b"".join([content async for content in self.pieces()])

    async def answer(self, status: int = 200, headers: Headers = (), content: bytes | None = None) -> None:
        """Send the head of the answer, and with CONTENT all of it."""
        await self.say(Answer(self.opened.stream, status, headers))
        if content is not None:
            await self.send(content)
            await self.say(End(self.opened.stream))

    async def send(self, content: bytes) -> None:
        """Send some of the answer as credit allows; nothing more once it is lost."""
        while content:
            while not self._credit and not self.lost:
                self._changed.clear()
                await self._changed.wait()
            if self.lost:
                return
            size = min(len(content), PIECE_BYTES, self._credit)
            self._credit -= size
            await self._wire.send(piece(self.opened.stream, content[:size]))
            content = content[size:]

    async def say(self, message: Message) -> None:
        """Send a message."""
        await self._wire.send(encode(message).decode())


Handle = Callable[[Exchange], Awaitable[None]]


async def status(exchange: Exchange) -> None:
    """Answer as a router's ``/api/v1/status`` does, to whatever is asked."""
    await exchange.answer(200, (("content-type", "application/json"),), b'{"version": "1.0"}')


class Router:
    """A router. What the server says besides pings and streams is in ``heard``."""

    def __init__(self, card: Card, url: str, handle: Handle = status, source: str | None = None,
                 made: socket.socket | None = None) -> None:
        self.card = card
        self.url = url
        self.handle = handle
        self.heard: list[FromServer] = []
        self.exchanges: dict[int, Exchange] = {}
        self.most = 0
        self._source = source
        self._made = made
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> Welcome:
        """Make the link; Closed if the server refuses."""
        self.wire = await Wire.open(self.url, self._source, self._made)
        challenge = await self.read()
        assert isinstance(challenge, Challenge)
        await self.say(self.card.hello(urlsplit(self.url).hostname or "", challenge.nonce))
        welcome = await self.read()
        assert isinstance(welcome, Welcome)
        return welcome

    async def read(self) -> FromServer | bytes:
        """Return the next message, or piece."""
        frame = await self.wire.read()
        return from_server(frame) if isinstance(frame, str) else frame

    async def say(self, message: Message) -> None:
        """Send a message."""
        await self.wire.send(encode(message).decode())

    async def run(self) -> None:
        """Do as a router does until the link ends (Closed)."""
        while True:
            message = await self.read()
            if isinstance(message, Ping):
                await self.say(Pong())
            elif isinstance(message, Open):
                exchange = self.exchanges[message.stream] = Exchange(self.wire, message)
                self.most = max(self.most, len(self.exchanges))
                task = asyncio.create_task(self._handle(exchange))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            elif isinstance(message, bytes):
                number, content = parse_piece(message)
                self._pass_on(number, bytes(content))
            elif isinstance(message, Credit | End | Reset):
                self._pass_on(message.stream, message)
            else:
                self.heard.append(message)

    def _pass_on(self, stream: int, message: FromServer | bytes) -> None:
        if exchange := self.exchanges.get(stream):
            exchange.take(message)

    async def _handle(self, exchange: Exchange) -> None:
        with suppress(OSError):
            await self.handle(exchange)
        del self.exchanges[exchange.opened.stream]

    async def stay(self) -> None:
        """Do as a router does that always comes back, when it is told to, or soon."""
        while True:
            seconds = 0.2
            try:
                await self.connect()
                await self.run()
            except Closed as closed:
                if closed.code in messages.COME_BACK:
                    seconds = messages.later(closed.reason).seconds
                elif closed.code == 503:
                    seconds = float(closed.reason)
            except OSError:
                pass  # the server is not there
            await asyncio.sleep(seconds)

    def drop(self) -> None:
        """Cut the link as a power cut does."""
        self.wire.writer.transport.abort()


@asynccontextmanager
async def linked(router: Router) -> AsyncIterator[Router]:
    """Have a router's link as long as the block lasts."""
    await router.connect()
    running = asyncio.create_task(router.run())
    try:
        yield router
    finally:
        router.drop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
