"""A clock that stands elsewhere, for a Python program and for the gpg that it runs.

libfaketime shifts the monotonic clock too, which ends a timer of Python's at once, so it is for gpg only.
"""

import os
from datetime import datetime
from pathlib import Path

_PYTHON = """
import datetime
import time
shift = {then!r} - time.time()
real = time.time
time.time = lambda: real() + shift

class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

datetime.datetime = Shifted
"""
_GPG = """#!/bin/sh
exec env PATH="${PATH#*:}" NO_FAKE_STAT=1 faketime "$SHOWN" gpg "$@"
"""


def standing_at(when: str, place: Path) -> tuple[str, dict[str, str]]:
    """Return Python source to begin a program with, and its environment; WHEN is UTC, PLACE gets a wrapper of gpg."""
    wrapper = place / "clock/gpg"
    wrapper.parent.mkdir(exist_ok=True)
    wrapper.write_text(_GPG)
    wrapper.chmod(0o755)
    environment = {**os.environ, "TZ": "UTC", "PATH": f"{wrapper.parent}:{os.environ['PATH']}", "SHOWN": when}
    return _PYTHON.format(then=datetime.fromisoformat(f"{when}+00:00").timestamp()), environment
