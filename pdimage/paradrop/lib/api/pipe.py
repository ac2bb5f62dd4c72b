"""Text that threads write and one connection reads: nothing is dropped, who writes waits for who reads."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable


class Pipe:
    """A text on its way, of which at most ``limit`` characters, and one piece of each writer, are held."""

    def __init__(self, limit: int = 32 << 10) -> None:
        self._limit = limit
        self._pieces: list[str] = []
        self._size = 0
        self._closed = False
        self._changed = threading.Condition()
        self._wake: Callable[[], object] = lambda: None

    def write(self, text: str) -> bool:
        """Append a text, as soon as there is room. Returns False if nobody will read it."""
        with self._changed:
            while self._size >= self._limit and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._pieces.append(text)
            self._size += len(text)
        self._wake()
        return True

    def close(self) -> None:
        """Nothing more is written: the reader ends after what is there. Or nothing more is read: writers end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._wake()

    async def read(self) -> AsyncIterator[str]:
        """Yield the text as it is written, until close."""
        loop, fresh = asyncio.get_running_loop(), asyncio.Event()
        self._wake = lambda: None if loop.is_closed() else loop.call_soon_threadsafe(fresh.set)
        while True:
            fresh.clear()
            with self._changed:
                text, closed = "".join(self._pieces), self._closed
                self._pieces, self._size = [], 0
                self._changed.notify_all()
            if text:
                yield text
            elif closed:
                return
            else:
                await fresh.wait()
