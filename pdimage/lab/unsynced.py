"""Runs a command of fussy with some of its syncs left out, to see what they are good for; or, with a library, with all.

``python -m pdimage.lab.unsynced WORD…``, with the words that follow ``fussy``, or ``swap_link`` and what that
documented function takes, or ``put`` and the path of a file that is to be there. ``PDIMAGE_LAB_WITHOUT`` has the
points, separated by commas. A point is a function of fussy and what it syncs: the content of a file, the names in a
directory, or the whole file system.
"""

import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fussy.cli
from fussy import disk, install
from fussy.errors import SystemSetup

# Every sync that the scenes come by; fussy/disk.py says what each is for.
POINTS = (
    "publish:filesystem", "publish:directory", "publish:directory-2", "replace_file:file", "replace_file:filesystem",
    "replace_file:directory",
    "swap_link:filesystem", "swap_link:directory", "make_failsafe:filesystem", "exchange:directory",
    "withdraw:directory", "clean:directory",
)
WITHOUT = "PDIMAGE_LAB_WITHOUT"
# How many directories a function syncs, if more than one; the second is point NAME-2.
_DIRECTORIES = {"publish": 2}


def eatmydata() -> Path:
    """Return the library that turns each sync of a program which has it in LD_PRELOAD into nothing.

    :raises SystemSetup: it is not there
    """
    library = Path(f"/usr/lib/{platform.machine()}-linux-gnu/libeatmydata.so")
    if not library.exists():
        raise SystemSetup(f"cannot turn syncs into nothing: {library} is not there; install libeatmydata1")
    return library


def leave_out(points: str) -> None:
    """Let the syncs at POINTS (separated by commas) do nothing in this process, each time."""
    for kind in ("filesystem", "directory"):
        _lack(f"sync_{kind}", kind, set(points.split(",")))
    if "replace_file:file" in points.split(","):
        setattr(disk, "os", _OsWithout())  # noqa: B010


def _lack(name: str, kind: str, points: set[str]) -> None:
    """Put a function in the place of the sync NAME that does nothing at POINTS."""
    sync: Callable[[Path], None] = getattr(disk, name)
    calls: Counter[str] = Counter()

    def lacking(path: Path) -> None:
        function = sys._getframe(1).f_code.co_name
        number = calls[function] % _DIRECTORIES.get(function, 1) + 1 if kind == "directory" else 1
        calls[function] += 1
        if f"{function}:{kind}" + (f"-{number}" if number > 1 else "") not in points:
            sync(path)

    setattr(disk, name, lacking)


class _OsWithout:
    """The module ``os``, in which ``fsync`` does nothing for a file that is written."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        """Sync, unless it is the content of a file: files are synced by descriptor, in a helper."""
        if sys._getframe(1).f_code.co_name != "_write_beside":
            os.fsync(descriptor)


def run(words: Sequence[str], points: str) -> None:
    """Run a command without the syncs at POINTS; as click's commands it ends with SystemExit."""
    if points:
        leave_out(points)
    if words[0] == "swap_link":
        install.swap_link(*words[1:])
        raise SystemExit(0)
    if words[0] == "put":
        disk.replace_file(Path(words[1]), b"of some other origin\n")
        raise SystemExit(0)
    sys.argv = ["fussy", *words]
    fussy.cli.main()


def main() -> None:
    """Run the command that the words are."""
    run(sys.argv[1:], os.environ.get(WITHOUT, ""))


if __name__ == "__main__":
    main()
