"""Does blocking work for many who ask at about the same time, at once: what is asked meanwhile makes the next batch."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from pdimage.server.http import in_thread

A = TypeVar("A")
B = TypeVar("B")


class Batch(Generic[A, B]):
    """WORK gets what was asked and gives an answer to each. LOCK is held meanwhile. At most MOST in a batch."""

    def __init__(self, work: Callable[[Sequence[A]], Sequence[B]], lock: asyncio.Lock, most: int = 200) -> None:
        self._work = work
        self._lock = lock
        self._most = most
        self._waiting: list[tuple[A, asyncio.Future[B]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, asked: A) -> B:
        """Return the answer to one question; what the work raises is raised to all of its batch."""
        future: asyncio.Future[B] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                async with self._lock:
                    batch, self._waiting = self._waiting[:self._most], self._waiting[self._most:]
                    await self._answer(batch)
        finally:
            self._task = None

    async def _answer(self, batch: list[tuple[A, asyncio.Future[B]]]) -> None:
        try:
            answers = await in_thread(self._work, [asked for asked, _ in batch])
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
