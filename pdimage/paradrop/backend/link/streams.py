"""What the server asks of this router through the link: each stream is one request to the router's own API.

No socket is between: the application is called as a server would call it (ASGI), with the role that the server gave.
It can reach ``/api/v1`` and ``/v1``, but neither accounts nor the router's identity. A stream holds at most WINDOW
bytes of a request's body; of an answer it holds what the application has just sent, and the application waits.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp

from paradrop.backend.link.messages import (
    PIECE_BYTES,
    STREAMS,
    WINDOW,
    Answer,
    Broken,
    Credit,
    End,
    Open,
    Reset,
    encode,
    parse_piece,
    piece,
)
from paradrop.backend.pdfcd.accounts import ROLES, Identity

log = logging.getLogger(__name__)

SCOPE = "paradrop.identity"
"""Where the application finds who asks, in what it is called with; nothing on the wire can set it."""
_PATHS = ("/api/", "/v1/")
_HEADERS = {"accept", "accept-language", "content-length", "content-type", "if-match", "if-none-match", "user-agent"}
_CREDIT_EACH = WINDOW // 4

Sender = Callable[[str | bytes], Awaitable[None]]


class Streams:
    """The streams of one link. Everything is called in the loop that the link runs in."""

    def __init__(self, app: ASGIApp, send: Sender) -> None:
        self._app = app
        self._send = send
        self._open: dict[int, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, message: Open | End | Reset | Credit) -> None:
        """Take a message of the server. Broken if it does not keep to the contract."""
        if isinstance(message, Open):
            self._begin(message)
            return
        stream = self._open.get(message.stream)
        if stream is None:
            return
        if isinstance(message, Credit):
            stream.add_credit(message.bytes)
        elif isinstance(message, End):
            stream.end()
        else:
            stream.cancel()

    def take_piece(self, frame: bytes) -> None:
        """Take a piece of a request's body. Broken if it is none, or too much."""
        number, content = parse_piece(frame)
        if stream := self._open.get(number):
            stream.add(bytes(content))

    async def close(self) -> None:
        """End all streams: the link is gone."""
        for stream in self._open.values():
            stream.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, request: Open) -> None:
        if request.stream in self._open:
            raise Broken(f"the stream {request.stream} is open already")
        refusal = _refusal(request) or ("there are as many streams as there can be" * (len(self._open) >= STREAMS))
        if refusal:
            self._start(self._say(Reset(request.stream, refusal)))
            return
        stream = Stream(request, self._send)
        self._open[request.stream] = stream
        stream.task = self._start(self._serve(stream))

    async def _serve(self, stream: "Stream") -> None:
        try:
            await self._app(_scope(stream.request), stream.receive, stream.send)
            await stream.drain()
        except Exception as error:
            log.error("a request through the server failed: %s", stream.request.path, exc_info=error)
            await self._say(Reset(stream.number, "an error in the router's software; see its log"))
        finally:
            del self._open[stream.number]

    async def _say(self, message: Reset) -> None:
        await self._send(encode(message).decode())

    def _start(self, work: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.debug("a stream has ended with the link: %s", error)


class Stream:
    """One request and its answer."""

    def __init__(self, request: Open, send: Sender) -> None:
        self.request = request
        self.number = request.stream
        self.task: asyncio.Task[None] | None = None
        self._send = send
        self._pieces: deque[bytes] = deque()
        self._held = 0  # bytes of the body that came and for which no credit was given
        self._eaten = 0  # of these, those that the application has
        self._ended = False  # the server has sent all
        self._told = False  # the application knows it
        self._credit = WINDOW
        self._fresh = asyncio.Event()
        self._more_credit = asyncio.Event()

    def add(self, content: bytes) -> None:
        """Take a piece of the body."""
        self._held += len(content)
        if self._held > WINDOW or self._ended:
            raise Broken(f"more came on the stream {self.number} than there was credit for")
        self._pieces.append(content)
        self._fresh.set()

    def end(self) -> None:
        """The body is complete."""
        self._ended = True
        self._fresh.set()

    def add_credit(self, size: int) -> None:
        """The server has read so many bytes of the answer."""
        self._credit += size
        if self._credit > WINDOW:
            raise Broken(f"there is more credit on the stream {self.number} than there can be")
        self._more_credit.set()

    def cancel(self) -> None:
        """The stream is over."""
        assert self.task is not None
        self.task.cancel()

    async def receive(self) -> dict[str, Any]:
        """Return what the application shall know next (ASGI)."""
        if self._told:
            await asyncio.Event().wait()  # until it is cancelled: nothing more can come
        content = await self._next()
        self._told = content is None
        return {"type": "http.request", "body": content or b"", "more_body": content is not None}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Send what the application answers (ASGI), as far as the server reads it."""
        if message["type"] == "http.response.start":
            headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"])
            await self._say(Answer(self.number, message["status"], headers))
            return
        content = memoryview(b"" if self.request.method == "HEAD" else message.get("body", b""))
        while content:
            while not self._credit:
                self._more_credit.clear()
                await self._more_credit.wait()
            size = min(len(content), PIECE_BYTES, self._credit)
            self._credit -= size
            await self._send(piece(self.number, content[:size]))
            content = content[size:]
        if not message.get("more_body", False):
            await self._say(End(self.number))

    async def drain(self) -> None:
        """Pass over what the application did not want of the body."""
        while not self._told and await self._next() is not None:
            pass

    async def _next(self) -> bytes | None:
        """Return the next piece of the body, None at its end; give credit for what was taken."""
        while not self._pieces:
            if self._ended:
                return None
            self._fresh.clear()
            await self._fresh.wait()
        content = self._pieces.popleft()
        self._eaten += len(content)
        if self._eaten >= _CREDIT_EACH and not self._ended:
            self._held, eaten, self._eaten = self._held - self._eaten, self._eaten, 0
            await self._say(Credit(self.number, eaten))
        return content

    async def _say(self, message: Answer | End | Credit) -> None:
        await self._send(encode(message).decode())


def _refusal(request: Open) -> str:
    if not request.path.startswith(_PATHS):
        return f"only {' and '.join(_PATHS)} can be reached through the server"
    return "" if request.role in ROLES else f"there is no role {request.role}"


def _scope(request: Open) -> dict[str, Any]:
    """Return what the application is called with."""
    path, _, query = request.path.partition("?")
    headers = [(name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace"))
               for name, value in request.headers if name.lower() in _HEADERS]
    return {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "scheme": "http",
            "method": request.method.upper(), "path": unquote(path), "raw_path": path.encode(), "root_path": "",
            "query_string": query.encode(), "headers": headers, "client": None, "server": None, "extensions": {},
            SCOPE: Identity(f"{request.user}@server", request.role)}
