"""Showing the progress of an operation: one moving line on a terminal, plain lines anywhere else."""

import contextlib
import itertools
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_KEPT = 30


class Display:
    """Shows lines of progress. On a terminal only the latest is seen; ``failed`` then shows the last thirty."""

    def __init__(self, out: IO[str], moving: bool) -> None:
        self._out = out
        self._moving = moving
        self._began = time.monotonic()
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self.shown = 0
        """How many lines are to be seen."""

    def line(self, text: str) -> None:
        """Show a line."""
        text = _printable(text)
        if not text.strip():
            return
        self._lines.append(text)
        if not self._moving:
            self._write(text + "\n")

    def failed(self) -> None:
        """Show what led to a failure, where it was not shown before."""
        if self._moving:
            self._write("".join(f"{line}\n" for line in self._lines))

    @contextlib.contextmanager
    def running(self) -> Iterator["Display"]:
        """Keep the moving line moving inside a ``with`` block."""
        if not self._moving:
            yield self
            return
        done = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(done.wait,), daemon=True)
        ticker.start()
        try:
            yield self
        finally:
            done.set()
            ticker.join()
            self._out.write("\r\033[K")
            self._out.flush()

    def _tick(self, wait: Callable[[float], bool]) -> None:
        for frame in itertools.cycle(_FRAMES):
            latest = self._lines[-1] if self._lines else ""
            text = f"{frame} {time.monotonic() - self._began:4.0f} s  {latest}"
            width = shutil.get_terminal_size().columns
            self._out.write(f"\r\033[K{text[:width - 1]}")
            self._out.flush()
            if wait(0.1):
                return

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
        self.shown += 1


def _printable(text: str) -> str:
    """Return a line without what could steer a terminal."""
    return "".join(character if character.isprintable() or character == "\t" else "\N{REPLACEMENT CHARACTER}"
                   for character in text.rstrip("\r\n"))
