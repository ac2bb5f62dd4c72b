"""Holds the hardware watchdog (watchdog-api of the kernel's documentation) while a release must prove itself.

It is fed every second, so each watchdog's own time limit will do and no ioctl is needed (their numbers differ between
architectures). If this process dies, or takes longer than it ever may, feeding ends and the board resets itself; what
becomes of the release is decided at the boot (see fussy.recover). When all is decided, the "magic close" (a ``V``)
stops it.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fussy.errors import FussyError

log = logging.getLogger(__name__)

_PAUSE = 1.0
_FOOD = b"\0"
_MAGIC_CLOSE = b"V"


@contextmanager
def held(device: str, seconds: float) -> Iterator[None]:
    """Hold the watchdog DEVICE ("": none) meanwhile, fed for at most SECONDS.

    It is stopped when the block ends, also with an error that is told to the operator; any other error leaves it
    running. A device that can't be opened, because systemd holds it or it is not there, is done without.
    """
    descriptor = _open(device) if device else None
    if descriptor is None:
        yield
        return
    fed = threading.Event()
    feeder = threading.Thread(target=_feed, args=(descriptor, fed, time.monotonic() + seconds), daemon=True)
    feeder.start()
    stop = False
    try:
        yield
        stop = True
    except (FussyError, OSError):
        stop = True
        raise
    finally:
        fed.set()
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
        log.warning("cannot hold the watchdog %s: %s; going on without", device, error.strerror)
        return None


def _never_stops(device: str) -> bool:
    """Whether the kernel says that closing DEVICE would not stop it."""
    try:
        number = os.stat(device).st_rdev
        file = Path(f"/sys/dev/char/{os.major(number)}:{os.minor(number)}/nowayout")
        return file.read_text().strip() == "1"
    except OSError:
        return False


def _feed(descriptor: int, enough: threading.Event, end: float) -> None:
    while time.monotonic() < end:
        with suppress(OSError):
            os.write(descriptor, _FOOD)
        if enough.wait(_PAUSE):
            return
