"""A disk with a volatile write cache: what was not flushed lives in memory, and a power cut decides what is left of it.

The file of the disk holds what is durable, and nothing else, at each moment.
"""

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pdimage.lab.writelog import Entry, Flush, Mark, Policy, Write, survivors

_BLOCK = 1 << 20


class PowerCut(Exception):
    """The disk has no power: nothing is read or written any more."""


@dataclass(frozen=True)
class Kept:
    """What a disk was at some moment: DURABLE is in a file, WINDOW was not flushed yet; it had taken so many WRITES."""

    durable: Path
    window: tuple[Write, ...] = ()
    writes: int = 0


class Disk:
    """The disk in the file PATH. Its power is cut at the CUT_AT-th write (from 1), unless that is None.

    POLICY and SEED choose which unflushed writes, and which of the one that is on its way, survive (see
    :func:`pdimage.lab.writelog.survivors`). ``writes`` counts them, from those of KEPT on, if PATH is a copy of what
    that has. With RECORD, ``log`` has all that happened. All methods may be called by several threads.
    """

    def __init__(self, path: Path, *, cut_at: int | None = None, policy: Policy = "none", seed: int = 0,
                 record: bool = False, kept: Kept | None = None) -> None:
        self.path, self.cut_at, self.policy, self.seed, self.record = path, cut_at, policy, seed, record
        self.size = path.stat().st_size
        self.log: list[Entry] = []
        self.writes = kept.writes if kept else 0
        self.has_power = True
        # Whether a flush is answered and does nothing.
        self.ignores_flush = False
        self.on_cut: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self._window = list(kept.window) if kept else []
        self._durable = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        # what the disk answers: the durable content with all writes since
        self._seen = os.memfd_create("disk", os.MFD_CLOEXEC)
        copy(self._durable, self._seen)
        apply(self._seen, self._window)

    def keep(self, path: Path) -> Kept:
        """Return what it is now, with what is durable in the new file PATH."""
        with self._lock, path.open("xb") as file:
            copy(self._durable, file.fileno())
            return Kept(path, tuple(self._window), self.writes)

    def close(self) -> None:
        """Let go of the file. Without a power cut before, everything that was answered is in it."""
        with self._lock:
            if self.has_power:
                apply(self._durable, self._window)
                self.has_power = False
            os.close(self._durable)
            os.close(self._seen)

    def read(self, offset: int, length: int) -> bytes:
        """Return LENGTH bytes at OFFSET.

        :raises PowerCut: it has no power
        """
        with self._lock:
            self._check_power()
            return os.pread(self._seen, length, offset)

    def write(self, write: Write) -> None:
        """Take a write; it is durable when this returns if it says so.

        :raises PowerCut: this was the write at which power is cut, or it has none
        """
        with self._lock:
            self._check_power()
            self.writes += 1
            if self.writes == self.cut_at:
                # never answered, so nothing about it is promised
                self._window.append(Write(write.offset, write.length, write.data))
                self._cut()
                raise PowerCut
            self._note(write)
            self._window.append(write)
            apply(self._seen, [write])
            if write.durable:
                apply(self._durable, [write])

    def flush(self) -> None:
        """Make everything durable that was taken so far.

        :raises PowerCut: it has no power
        """
        with self._lock:
            self._check_power()
            if self.ignores_flush:
                return
            self._note(Flush())
            apply(self._durable, self._window)
            self._window.clear()

    def mark(self, text: str) -> None:
        """Note in the log that something happened."""
        with self._lock:
            self._note(Mark(text))

    def cut(self) -> None:
        """Cut the power now; nothing happens if it is cut already."""
        with self._lock:
            if self.has_power:
                self._cut()

    def _cut(self) -> None:
        self.has_power = False
        # durable ones are among them: an older write that survives must not win over a newer one
        apply(self._durable, survivors(self._window, self.policy, self.seed))
        for call in self.on_cut:
            call()

    def _check_power(self) -> None:
        if not self.has_power:
            raise PowerCut

    def _note(self, entry: Entry) -> None:
        if self.record:
            self.log.append(entry)


def apply(file: int, writes: Iterable[Write]) -> None:
    """Do WRITES to an open file, in order."""
    for write in writes:
        done = 0
        while done < write.length:
            block = write.data[done:] if write.data is not None else bytes(min(_BLOCK, write.length - done))
            done += os.pwrite(file, block, write.offset + done)


def copy_file(source: Path, target: Path) -> None:
    """Make the file TARGET a copy of SOURCE; holes stay holes."""
    with source.open("rb") as one, target.open("wb") as other:
        copy(one.fileno(), other.fileno())


def copy(source: int, target: int) -> None:
    """Make the open file TARGET, which is empty, a copy of SOURCE; holes stay holes."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole follows
            return
        end = os.lseek(source, start, os.SEEK_HOLE)
        while start < end:
            start += os.pwrite(target, os.pread(source, min(_BLOCK, end - start), start), start)
