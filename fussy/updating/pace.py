"""How fast and for how long a source may send: the lowest speed, the cap of the bandwidth, the deadline."""

import time
from dataclasses import dataclass

from fussy.errors import TooSlow


@dataclass(frozen=True)
class Limits:
    """What a source is allowed.

    ``patience``: seconds in which something must come, and over which the speed is judged. ``lowest_speed`` and
    ``bandwidth`` (0: no cap) are bytes a second. ``deadline`` is a time of ``time.monotonic``.
    """

    patience: float = 30.0
    lowest_speed: int = 1000
    bandwidth: int = 0
    deadline: float = float("inf")

    def check(self) -> None:
        """:raises TooSlow: the deadline has passed"""
        if time.monotonic() >= self.deadline:
            raise TooSlow("the time for it is over")


class Pace:
    """Watches one transfer."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._begun = self._judged = time.monotonic()
        self._sent = self._recent = 0

    def count(self, size: int) -> None:
        """Note that SIZE bytes came; sleep where they came faster than allowed.

        :raises TooSlow: they come too slowly (a slow retrieval attack), or the deadline has passed
        """
        self._limits.check()
        now = time.monotonic()
        self._sent += size
        self._recent += size
        if (passed := now - self._judged) >= self._limits.patience:
            if self._recent < self._limits.lowest_speed * passed:
                raise TooSlow(f"it sends {self._recent / passed:.0f} bytes a second, fewer than "
                              f"{self._limits.lowest_speed} (slow retrieval)")
            self._judged, self._recent = now, 0
        if self._limits.bandwidth:
            ahead = self._sent / self._limits.bandwidth - (now - self._begun)
            if ahead > 0:
                time.sleep(min(ahead, max(self._limits.deadline - now, 0)))
