"""How many routers may come at once: after a restart all of them do. The others are told when it is their turn."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 300
# What is told to one of too many from the same address.
OTHERS_FIRST = 10
# A process that is later than this with what it does each second has too much to do.
_LATE = 0.25
_SLOWEST = 4
# One address may have this part of those that are on their way in; many routers may share one.
_SHARE = 2


class Admission:
    """Lets RATE routers in each second, in turns, and at most PENDING that have not proved yet who they are.

    >>> gate = Admission(rate=2.0)
    >>> [gate.wait(now=10.0) for _ in range(6)]
    [0, 0, 1, 1, 2, 2]
    >>> gate.wait(now=12.0)
    0
    >>> gate.pace(late=1.0)
    >>> [gate.wait(now=20.0) for _ in range(3)]
    [0, 1, 1]
    """

    def __init__(self, rate: float, pending: int = 200) -> None:
        self._full_rate = self._rate = rate
        self._most = pending
        self._left = rate
        self._since = -math.inf
        self._turn = -math.inf
        self._pending: Counter[str] = Counter()

    def wait(self, now: float, address: str = "") -> int:
        """Let one in (0), or return in how many seconds it is its turn. NOW: seconds of a clock that does not jump."""
        if self._pending[address] >= self._most // _SHARE:
            return OTHERS_FIRST
        seconds = self.turn(now)
        if not seconds:
            self._left -= 1
        return seconds

    def turn(self, now: float) -> int:
        """Return 0 if :meth:`wait` may let one in, or in how many seconds it is its turn."""
        self._left = min(max(self._rate, 1.0), self._left + (now - self._since) * self._rate)
        self._since = now
        if self._left >= 1 and self._pending.total() < self._most:
            return 0
        self._turn = max(self._turn, now) + 1 / self._full_rate
        return min(math.ceil(self._turn - now), LONGEST)

    def pace(self, late: float) -> None:
        """Let in only half as many, down to a quarter of the rate, while the process is LATE (seconds) for what it does
        each second, so that clients are still answered; then more again."""
        self._rate = max(self._rate / 2, self._full_rate / _SLOWEST) if late > _LATE else \
            min(self._rate * 1.25, self._full_rate)

    @contextmanager
    def proving(self, address: str) -> Iterator[None]:
        """Count one that proves who it is."""
        self._pending[address] += 1
        try:
            yield
        finally:
            self._pending[address] -= 1
            if not self._pending[address]:
                del self._pending[address]
