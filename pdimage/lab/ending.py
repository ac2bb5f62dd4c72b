"""Lets a command that a signal ends clean up first. It then ends by that signal, so a shell sees 128 and its number."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Ended(SystemExit):
    """A signal came. Nothing on the way out takes it for an error; asyncio lets a SystemExit through, too."""


@contextlib.contextmanager
def cleanly() -> Iterator[None]:
    """Have each of SIGNALS that is not ignored raise Ended in the main thread; when all is undone the process ends.

    Only the first counts: nothing interrupts what cleans up.
    """
    came: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        if not came:
            came.append(number)
            raise Ended(128 + number)

    handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in handled}
    try:
        yield
    finally:
        if came:
            sys.stdout.flush()
            signal.signal(came[0], signal.SIG_DFL)
            # the first process of a namespace lives on: it ends with the code of Ended
            os.kill(os.getpid(), came[0])
        for number, handler in before.items():
            signal.signal(number, handler)
