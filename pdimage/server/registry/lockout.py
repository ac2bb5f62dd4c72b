"""Who guesses passwords is locked out: by the name that is guessed at, and by the address that guesses.

An attempt counts before it is looked at, so that many at once are no more than many one after the other; one that was
right is taken back. Unknown names count as known ones do, so nobody learns which there are.
"""

import math
import time
from collections.abc import Callable

import sqlalchemy as sa

from pdimage.server.names import is_good
from pdimage.server.refusals import too_many
from pdimage.server.registry.tables import failures
from pdimage.server.upsert import add


class Lockout:
    """Counts failures in one database: MOST of them lock out for SECONDS after the last."""

    def __init__(self, engine: sa.Engine, most: int, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._most = most
        self._seconds = seconds
        self._clock = clock

    def attempt(self, *keys: str) -> None:
        """Count an attempt for each of the keys.

        :raises Refused: one of them is locked out (429)
        """
        now = self._clock()
        with self._engine.begin() as connection:
            connection.execute(sa.delete(failures).where(failures.c.last < now - self._seconds))
            for key in keys:  # whoever else adds to the same row waits for the end of this transaction
                add(connection, failures, {"key": key}, {"count": 1, "last": 0})
            last = connection.scalar(sa.select(sa.func.max(failures.c.last)).where(
                failures.c.key.in_(keys), failures.c.count > self._most))
            if last is not None:
                seconds = max(1, math.ceil(last + self._seconds - now))
                raise too_many(f"too many attempts; try again in {seconds} seconds", seconds)
            connection.execute(sa.update(failures).where(failures.c.key.in_(keys)).values(last=now))

    def passed(self, of_address: str, of_name: str) -> None:
        """Take back an attempt from an address that was right; what failed for a name before is forgotten."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(failures).where(failures.c.key == of_name))
            connection.execute(sa.update(failures).where(failures.c.key == of_address).values(
                count=failures.c.count - 1))


def of_name(name: str) -> str:
    """Return the key of a name that somebody tries; all that can't be names count as one."""
    return f"name {name.lower()}" if is_good("account", name) else "name"


def of_address(address: str) -> str:
    """Return the key of an address that somebody tries from."""
    return f"address {address}"
