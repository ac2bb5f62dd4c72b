"""Which links are to be looked at next: looking at all of many thousands each second would cost more than their pings.
"""

import heapq
import itertools
from typing import Generic, TypeVar

T = TypeVar("T")


class Rota(Generic[T]):
    """Things that are due at a time (seconds of any clock). Each is in it until it is due.

    >>> rota = Rota()
    >>> for due, one in ((3.0, "late"), (1.0, "soon"), (1.0, "soon too"), (2.0, "then")):
    ...     rota.add(due, one)
    >>> rota.due(0.9), rota.due(2.0), rota.due(2.0)
    ([], ['soon', 'soon too', 'then'], [])
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._numbers = itertools.count()

    def add(self, due: float, one: T) -> None:
        """Have ONE among those that are due at that time."""
        heapq.heappush(self._heap, (due, next(self._numbers), one))

    def due(self, now: float) -> list[T]:
        """Take out those that are due, the longest due first."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            found.append(heapq.heappop(self._heap)[2])
        return found
