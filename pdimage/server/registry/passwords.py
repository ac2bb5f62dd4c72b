"""Passwords: argon2id (RFC 9106), beside the loop and few at a time, for each takes memory and a core for a while.

The parameters are the least that OWASP recommends (19 MiB, 2 passes): the same small machine serves all the routers.
"""

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import anyio
import anyio.to_thread
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from pdimage.server.refusals import Refused

T = TypeVar("T")

AT_ONCE = 2
WAITING = 64
# A password longer than this is none: hashing takes longer for more.
LONGEST = 200


class Passwords:
    """Hashes and compares passwords for one serving process."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 << 10, parallelism=1)
        self._here = 0

    @cached_property
    def _limit(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(AT_ONCE)

    @cached_property
    def _nobodys(self) -> str:
        return self._hasher.hash("the password of nobody")

    async def digest(self, password: str) -> str:
        """Return what to keep of a password: argon2's text.

        :raises Refused: too many are waiting (503)
        """
        return await self._do(self.digest_now, password)

    async def are_same(self, kept: str, password: str) -> bool:
        """Tell whether this password was kept. Nothing kept (empty) takes as long, and is never the same.

        :raises Refused: too many are waiting (503)
        """
        return await self._do(self._compare, kept, password)

    def digest_now(self, password: str) -> str:
        """Do as :meth:`digest` does, for who has no loop."""
        return self._hasher.hash(password.encode(errors="replace"))

    def _compare(self, kept: str, password: str) -> bool:
        try:
            return self._hasher.verify(kept or self._nobodys, password.encode(errors="replace")) and kept != ""
        except (VerificationError, InvalidHashError):
            return False

    async def _do(self, work: Callable[..., T], *arguments: str) -> T:
        if self._here >= AT_ONCE + WAITING:
            raise Refused(503, "too many log in at the moment; try again in 5 seconds", {"Retry-After": "5"})
        self._here += 1
        try:
            return await anyio.to_thread.run_sync(work, *arguments, limiter=self._limit)
        finally:
            self._here -= 1
