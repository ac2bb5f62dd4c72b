"""How long the device has run, by clocks that nobody can set.

A router may boot in 1970 and learn the time later, or be set to 2100 by mistake. So what must be over by a certain time
is measured in seconds that the device was up (CLOCK_BOOTTIME of clock_gettime(2), suspended time included), and boots
are told apart by the kernel's random id of each. Time without power does not count.
"""

import time
from pathlib import Path
from typing import NamedTuple

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Moment(NamedTuple):
    """A point in the device's life: the id of the boot, and seconds since it."""

    boot: str
    up: float


def now() -> Moment:
    """Return this moment."""
    return Moment(BOOT_ID.read_text().strip(), time.clock_gettime(time.CLOCK_BOOTTIME))


def between(earlier: Moment, later: Moment) -> float:
    """Return the seconds that the device was up between two moments, as far as they tell.

    >>> between(Moment("a", 10.0), Moment("a", 25.0)), between(Moment("a", 10.0), Moment("b", 7.0))
    (15.0, 7.0)
    """
    return max(0.0, later.up - earlier.up) if later.boot == earlier.boot else later.up
