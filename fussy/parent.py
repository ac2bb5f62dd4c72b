"""Ties a process to the one that started it."""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def end_with(parent: int, number: signal.Signals) -> bool:
    """Have this process get a signal when its parent ends (prctl(2)); return whether that is there still.

    PARENT is its process id: it may have ended while this process was starting, and then no signal comes.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent
