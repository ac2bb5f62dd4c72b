"""One router's link, at the server's end. The messages are in :mod:`paradrop.backend.link.messages`.

A link is read by one task, which never waits for anything else; whoever wants to say something waits until the router's
connection takes it.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.types import Receive, Send
from websockets.frames import Frame, Opcode

from paradrop.backend.link.messages import (
    BROKEN,
    MESSAGE_BYTES,
    STREAMS,
    Answer,
    Broken,
    Credit,
    End,
    FromRouter,
    Headers,
    Hello,
    Message,
    Open,
    Ping,
    Pong,
    Report,
    Reset,
    Welcome,
    encode,
    from_router,
    parse_piece,
)
from pdimage.server.registry.presence import Known
from pdimage.server.registry.streams import Lost, Stream

# How long a router's connection may take nothing of what is sent.
TAKE_SECONDS = 60.0
# How long the end of a link may take to be sent before it is simply cut.
CLOSE_SECONDS = 2.0
_PING = Frame(Opcode.TEXT, encode(Ping())).serialize(mask=False)
# What a router may say that belongs to no open stream: so much at once, and so much each second.
_LOOSE, _LOOSE_RATE = 1000.0, 50.0


class Full(Exception):
    """The router has as many requests under way as it may have."""


class TooLong(Exception):
    """The head of a request is longer than a message may be."""


class Socket:
    """A WebSocket that was accepted, as ASGI has it. What is sent waits until the connection takes it."""

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.abort: Callable[[], object] = scope["extensions"]["link"]["abort"]
        self.put: Callable[[bytes], object] = scope["extensions"]["link"]["put"]

    async def read(self) -> str | bytes | None:
        """Return the next frame; None when there is no more."""
        event = await self._receive()
        if event["type"] != "websocket.receive":
            return None
        text: str | None = event.get("text")
        return event["bytes"] if text is None else text

    async def send(self, frame: str | bytes) -> None:
        """Send a frame; OSError when the connection is gone, or takes nothing: then it is cut."""
        try:
            async with asyncio.timeout(TAKE_SECONDS):
                await self._send({"type": "websocket.send", "text" if isinstance(frame, str) else "bytes": frame})
        except TimeoutError:
            self.abort()
            raise
        except RuntimeError as error:  # this end was closed meanwhile
            raise OSError(str(error)) from error

    async def say(self, message: Message) -> None:
        """Send a message."""
        await self.send(encode(message).decode())

    async def close(self, code: int, reason: str) -> None:
        """End it with a code and a reason; without them if the connection does not take them."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._send({"type": "websocket.close", "code": code,
                                  "reason": reason.encode()[:120].decode(errors="ignore")})
        except TimeoutError:
            self.abort()
        except (OSError, RuntimeError):
            pass  # it is closed


class Link:
    """The link of a router that has proved who it is. NOW: seconds of the loop's clock."""

    def __init__(self, socket: Socket, known: Known, hello: Hello, address: str, now: float) -> None:
        self.pdid = known.pdid
        self.account = known.account
        self.machine = hello.machine
        self.boot = hello.boot
        self.address = address
        self.heard = now
        self.pinged = now
        self.streams: dict[int, Stream] = {}
        self._socket = socket
        self._early: list[str | bytes] | None = []  # what is to be said once the router is welcome
        self._numbers = itertools.count(1)
        self._loose = _LOOSE
        self._word: asyncio.Event | None = None

    async def read(self, told: Callable[[Report], object]) -> None:
        """Read until the link ends; TOLD gets the reports."""
        clock = asyncio.get_running_loop().time
        try:
            while (frame := await self._socket.read()) is not None:
                self._take(frame, clock(), told)
        except Broken as error:
            await self._socket.close(BROKEN, str(error))
        finally:
            for stream in self.streams.values():
                stream.lose(f"the link of {self.pdid} ended")

    def _take(self, frame: str | bytes, now: float, told: Callable[[Report], object]) -> None:
        elapsed, self.heard = now - self.heard, now
        self._loose = min(_LOOSE, self._loose + elapsed * _LOOSE_RATE)
        if self._word:
            self._word.set()
        if isinstance(frame, bytes):
            number, content = parse_piece(frame)
            if stream := self._stream(number):
                stream.received(content)
        else:
            self._message(from_router(frame), told)

    def _message(self, message: FromRouter, told: Callable[[Report], object]) -> None:
        if isinstance(message, Credit | Answer | End | Reset):
            if stream := self._stream(message.stream):
                _pass_on(stream, message)
            return
        self._count()
        if isinstance(message, Report):
            told(message)
        elif not isinstance(message, Pong):
            raise Broken("a second hello")

    def _stream(self, number: int) -> Stream | None:
        stream = self.streams.get(number)
        if stream is None or stream.is_over:
            self._count()  # it may have crossed a reset
            return None
        return stream

    def _count(self) -> None:
        self._loose -= 1
        if self._loose < 0:
            raise Broken("too many messages")

    async def welcome(self, seconds: float, time: float) -> None:
        """Send the welcome, which must come before all else, and then what others have said meanwhile."""
        await self._socket.say(Welcome(seconds, time))
        while self._early:
            await self._socket.send(self._early.pop(0))
        self._early = None

    async def say(self, message: Message) -> None:
        """Send a message; OSError when the link is gone."""
        await self._send(encode(message).decode())

    async def _send(self, frame: str | bytes) -> None:
        if self._early is None:
            await self._socket.send(frame)
        else:
            self._early.append(frame)

    def ping(self, now: float) -> None:
        """Ask whether the router is there. One that is still to take what it was sent has heard enough."""
        self.pinged = now
        if self._early is None:
            self._socket.put(_PING)

    async def answers(self, seconds: float) -> bool:
        """Tell whether the router says anything within so many seconds, when it is asked."""
        self._word = asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await self.say(Ping())
                await self._word.wait()
            return True
        except (TimeoutError, OSError):
            return False
        finally:
            self._word = None

    async def close(self, code: int, reason: str) -> None:
        """End the link."""
        await self._socket.close(code, reason)

    def abort(self) -> None:
        """Cut the link: the router is not there any more."""
        self._socket.abort()

    @asynccontextmanager
    async def request(self, method: str, path: str, headers: Headers, role: str, user: str) -> AsyncIterator[Stream]:
        """Have a stream for a request; what is left of it at the end is reset.

        :raises Full: there are as many as may be
        :raises TooLong: the head is too long
        """
        if len(self.streams) >= STREAMS:
            raise Full
        number = next(self._numbers)
        head = encode(Open(number, method, path, headers, role, user)).decode()
        if len(head) > MESSAGE_BYTES:
            raise TooLong
        stream = self.streams[number] = Stream(number, self._send)
        try:
            try:
                await self._send(head)
            except OSError:
                stream.lose(f"the link of {self.pdid} ended")
            yield stream
        finally:
            with suppress(Lost):
                await stream.reset("who asked has gone")
            del self.streams[number]


def _pass_on(stream: Stream, message: Credit | Answer | End | Reset) -> None:
    if isinstance(message, Credit):
        stream.credited(message.bytes)
    elif isinstance(message, Answer):
        stream.answered(message)
    elif isinstance(message, End):
        stream.ended()
    else:
        stream.lose(message.reason)
