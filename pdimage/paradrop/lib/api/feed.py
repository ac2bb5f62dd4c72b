"""Text that one thread writes and any number of connections read as it comes: build output, progress, logs."""

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable

AT_ONCE = 16 << 10
"""Characters that a reader gets at once."""


class Feed:
    """An append-only text of bounded size.

    ``write`` and ``close`` may be called from any thread. A reader that joins late gets what is still held first; one
    that is so slow that text was dropped meanwhile goes on with the oldest text held. Nobody waits for a reader.
    """

    def __init__(self, limit: int = 1 << 20) -> None:
        """Hold at most ``limit`` characters, but always the last piece written."""
        self._limit = limit
        self._pieces: deque[str] = deque()
        self._size = 0
        self._first = 0  # number of the oldest piece held
        self._closed = False
        self._lock = threading.Lock()
        self._wake: set[Callable[[], None]] = set()

    def write(self, text: str) -> None:
        """Append a text. After close it is dropped, as is an empty one."""
        with self._lock:
            if self._closed or not text:
                return
            self._pieces.append(text)
            self._size += len(text)
            while self._size > self._limit and len(self._pieces) > 1:
                self._size -= len(self._pieces.popleft())
                self._first += 1
        self._notify()

    def close(self) -> None:
        """Nothing more comes: readers end after what is there."""
        with self._lock:
            self._closed = True
        self._notify()

    def pieces(self) -> list[str]:
        """Return what is held, one text for each write."""
        with self._lock:
            return list(self._pieces)

    async def follow(self, backlog: int | None = None,
                     dropped: Callable[[int], str] | None = None) -> AsyncIterator[str]:
        """Yield the last ``backlog`` pieces held (None: all), then each piece as it is written, until close.

        What a reader gets at once is no longer than AT_ONCE, or one piece. ``dropped`` returns what to yield where
        pieces, their number, were dropped before he came to read them.
        """
        loop, fresh = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(fresh.set)

        with self._lock:
            end = self._first + len(self._pieces)
            position = self._first if backlog is None else max(self._first, end - backlog)
            self._wake.add(wake)
        try:
            while True:
                fresh.clear()
                with self._lock:
                    missed = self._first - position
                    position = max(position, self._first)
                    batch = self._some(position - self._first)
                    closed = self._closed
                position += len(batch)
                if dropped and missed > 0:
                    yield dropped(missed)
                if batch:
                    yield "".join(batch)
                elif closed:
                    return
                else:
                    await fresh.wait()
        finally:
            with self._lock:
                self._wake.discard(wake)

    @property
    def readers(self) -> int:
        """How many follow it now."""
        with self._lock:
            return len(self._wake)

    def _some(self, index: int) -> list[str]:
        """Return pieces from an index on, as many as are given at once."""
        found: list[str] = []
        size = 0
        for piece in itertools.islice(self._pieces, index, None):
            size += len(piece)
            if found and size > AT_ONCE:
                break
            found.append(piece)
        return found

    def _notify(self) -> None:
        with self._lock:
            wakers = list(self._wake)
        for wake in wakers:
            try:
                wake()
            except RuntimeError:
                continue  # the reader's loop has ended, and its follow() with it
