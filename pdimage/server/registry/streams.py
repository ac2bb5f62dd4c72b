"""One HTTP exchange inside a link, as the server's end has it: bodies in pieces, with credit both ways.

Whoever holds a :class:`Stream` awaits; what the router says comes in by plain calls from the link that reads, which
never waits. At most WINDOW bytes of the answer lie here, because the router has credit for no more.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from paradrop.backend.link.messages import (
    PIECE_BYTES,
    WINDOW,
    Answer,
    Broken,
    Credit,
    End,
    Message,
    Reset,
    encode,
    piece,
)


class Lost(Exception):
    """The exchange can't go on: the router reset it, or its link ended. The text says why."""


class Stream:
    """One exchange. SEND sends a frame on the link: text for str, else binary; it raises OSError when that is gone."""

    def __init__(self, number: int, send: Callable[[str | bytes], Awaitable[None]]) -> None:
        self.number = number
        self._send = send
        self._may_send = WINDOW
        self._may_come = WINDOW
        self._came = bytearray()
        self._consumed = 0
        self._head: Answer | None = None
        self._over_here = False
        self._over_there = False
        self._was_reset = False
        self._lost = ""
        self._changed = asyncio.Event()
        self._credited = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Tell whether neither side has anything to say any more."""
        return self._was_reset or (self._over_here and self._over_there)

    # What the router says.

    def answered(self, answer: Answer) -> None:
        """Take the head of the answer.

        :raises Broken: there was one, as in all of these: it is not what may come now
        """
        if self._head is not None or self._over_there:
            raise Broken(f"a second answer in stream {self.number}")
        self._head = answer
        self._changed.set()

    def received(self, content: memoryview) -> None:
        """Take a piece of the answer."""
        self._check_open("a piece")
        if len(content) > self._may_come:
            raise Broken(f"more in stream {self.number} than there was credit for")
        self._may_come -= len(content)
        self._came += content
        self._changed.set()

    def ended(self) -> None:
        """Take the end of the answer."""
        self._check_open("an end")
        self._over_there = True
        self._changed.set()

    def credited(self, size: int) -> None:
        """Take credit."""
        self._may_send += size
        if self._may_send > WINDOW:
            raise Broken(f"credit beyond {WINDOW} bytes in stream {self.number}")
        self._credited.set()

    def lose(self, why: str) -> None:
        """End it: the router has reset it, or the link is gone."""
        self._was_reset = True
        self.abandon(why)

    def _check_open(self, what: str) -> None:
        if self._head is None or self._over_there:
            raise Broken(f"{what} in stream {self.number} {'after its end' if self._head else 'before its answer'}")

    # What is asked of it.

    def abandon(self, why: str) -> None:
        """Make whoever waits for something of it stop: who asked has gone."""
        self._lost = self._lost or why
        self._changed.set()
        self._credited.set()

    async def send(self, content: bytes) -> None:
        """Send some of the request's body, as far as there is credit, else wait.

        :raises Lost: it is over
        """
        rest = memoryview(content)
        while rest:
            while not self._may_send:
                self._check_lost()
                self._credited.clear()
                await self._credited.wait()
            self._check_lost()
            size = min(len(rest), PIECE_BYTES, self._may_send)
            self._may_send -= size
            await self._say(piece(self.number, rest[:size]))
            rest = rest[size:]

    async def end(self) -> None:
        """Say that the request's body is complete.

        :raises Lost: it is over
        """
        self._check_lost()
        self._over_here = True
        await self._say(_text(End(self.number)))

    async def head(self) -> Answer:
        """Return the head of the answer when it has come.

        :raises Lost: none will come
        """
        while self._head is None:
            self._check_lost()
            self._changed.clear()
            await self._changed.wait()
        return self._head

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the answer's body. When the next is asked for, the last counts as consumed, and credit is given.

        :raises Lost: the rest won't come
        """
        while True:
            while not self._came and not self._over_there:
                self._check_lost()
                self._changed.clear()
                await self._changed.wait()
            if not self._came:
                return
            content, self._came = bytes(self._came), bytearray()
            yield content
            self._consumed += len(content)
            if self._consumed >= WINDOW // 4 and not self._over_there:
                size, self._consumed = self._consumed, 0
                self._may_come += size
                await self._say(_text(Credit(self.number, size)))

    async def reset(self, why: str) -> None:
        """Tell the router that nobody wants the rest; nothing if it is over."""
        if not self.is_over:
            self.lose(why)
            await self._say(_text(Reset(self.number, why)))

    def _check_lost(self) -> None:
        if self._lost:
            raise Lost(self._lost)

    async def _say(self, frame: str | bytes) -> None:
        try:
            await self._send(frame)
        except OSError:
            raise Lost("its link ended") from None


def _text(message: Message) -> str:
    return encode(message).decode()
