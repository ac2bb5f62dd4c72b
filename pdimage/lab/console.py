"""What a machine prints on its serial line, and a terminal for it."""

import contextlib
import os
import re
import select
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pdimage.lab import keeping

# Written by guest/ready.
_READY = re.compile(rb"lab-ready ([0-9a-f-]{36})")
LEAVE = b"\x1d"  # Ctrl-]
_KEPT_LOGS = 5


class Console:
    """The log PATH of a serial line; QEMU writes it from the start of a machine to its end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rotate(self) -> None:
        """Begin a new log; the last few stay as PATH.1, PATH.2 …"""
        for number in range(_KEPT_LOGS - 1, -1, -1):
            source = Path(f"{self.path}.{number}") if number else self.path
            with contextlib.suppress(FileNotFoundError):
                source.rename(f"{self.path}.{number + 1}")

    def boot_id(self) -> str:
        """Return the kernel's name for the boot that is up, empty if none has come up since the start."""
        found = _READY.findall(self._content())
        return found[-1].decode() if found else ""

    def boots(self) -> int:
        """Return how often it has come up since the start."""
        return len(set(_READY.findall(self._content())))

    def text(self) -> str:
        """Return all it printed since the start."""
        return self._content().decode(errors="replace").replace("\r", "")

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of it."""
        return "\n".join(self.text().splitlines()[-lines:])

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""


def interact(directory: Path, name: str, terminal: IO[bytes] = sys.stdin.buffer) -> None:
    """Join this terminal with the serial line of the machine NAME until Ctrl-] is typed, or the line ends.

    :raises OSError: the machine does not run
    """
    with keeping.connected(directory, f"{name}.console") as line, _raw(terminal.fileno()):
        line.settimeout(None)
        waiting: list[Any] = [line, terminal]
        while True:
            ready = select.select(waiting, [], [])[0]
            if line in ready:
                data = line.recv(4096)
                if not data:
                    return
                os.write(sys.stdout.fileno(), data)
            if terminal in ready:
                typed = os.read(terminal.fileno(), 4096)
                if not typed or LEAVE in typed:
                    line.sendall(typed.partition(LEAVE)[0])
                    return
                line.sendall(typed)


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Have a terminal pass every key on; what is no terminal is left as it is."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)  # what was typed already counts
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
