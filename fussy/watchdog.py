"""Holds the hardware watchdog (watchdog-api of the kernel's documentation) while a release must prove itself.

It is fed every second, so each watchdog's own time limit will do and no ioctl is needed (their numbers differ between
architectures). If this process dies, or takes longer than it ever may, feeding ends and the board resets itself; what
becomes of the release is decided at the boot (see fussy.recover). When all is decided, the "magic close" (a ``V``)
stops it.
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fussy.errors import FussyError

log = logging.getLogger(__name__)

_PAUSE = 1.0
_FOOD = b"\0"
_MAGIC_CLOSE = b"V"
# Devices that this process holds.
_held: set[str] = set()

# Given seconds from now, has the watchdog fed for so long.
Prolong = Callable[[float], None]


@contextmanager
def held(device: str, seconds: float) -> Iterator[Prolong]:
    """Hold the watchdog DEVICE ("": none) meanwhile, fed for at most SECONDS, or for as long as what it gives is told.

    It is stopped when the block ends, also with an error that is told to the operator; any other error leaves it
    running. A device that can't be opened, because systemd holds it or it is not there, is done without, and one that
    is held by this process already is left to where that was done.
    """
    descriptor = _open(device) if device and device not in _held else None
    if descriptor is None:
        yield lambda _: None
        return
    feeder = _Feeder(descriptor, seconds)
    feeder.start()
    _held.add(device)
    stop = False
    try:
        yield feeder.prolong
        stop = True
    except (FussyError, OSError):
        stop = True
        raise
    finally:
        _held.remove(device)
        feeder.enough.set()
        feeder.join()
        if stop:
            with suppress(OSError):
                os.write(descriptor, _MAGIC_CLOSE)
        os.close(descriptor)


def _open(device: str) -> int | None:
    if _never_stops(device):
        log.warning("cannot hold the watchdog %s: it can't be stopped (nowayout); leave it to the system", device)
        return None
    try:
        return os.open(device, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        # busy: systemd, or a fussy trial --hold, sees to it
        level = logging.INFO if error.errno == errno.EBUSY else logging.WARNING
        log.log(level, "cannot hold the watchdog %s: %s; going on without", device, error.strerror)
        return None


def _never_stops(device: str) -> bool:
    """Whether the kernel says that closing DEVICE would not stop it."""
    try:
        number = os.stat(device).st_rdev
        file = Path(f"/sys/dev/char/{os.major(number)}:{os.minor(number)}/nowayout")
        return file.read_text().strip() == "1"
    except OSError:
        return False


class _Feeder(threading.Thread):
    """Feeds a watchdog until it is enough, or the time is over."""

    def __init__(self, descriptor: int, seconds: float) -> None:
        super().__init__(daemon=True, name="watchdog")
        self.enough = threading.Event()
        self._descriptor = descriptor
        self.prolong(seconds)

    def prolong(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def run(self) -> None:
        while time.monotonic() < self._end:
            with suppress(OSError):
                os.write(self._descriptor, _FOOD)
            if self.enough.wait(_PAUSE):
                return
