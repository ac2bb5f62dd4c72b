"""Where the data of a pipe pass through Python: from a source past functions to a target, one block at a time."""

import codecs
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fussy.nbio_streams import BLOCK, DID_NOTHING, FileLike, Lines, encoded, plain_descriptor, writer

MANY = 64
"""An iterator which yields so many empty items in a row is taken to have nothing to say at the moment."""


class Feed:
    """The input of a process: takes one block at a time, and is ready for the next when that has gone."""

    def __init__(self, file: io.FileIO) -> None:
        os.set_blocking(file.fileno(), False)
        self.file = file
        self.rest = memoryview(b"")
        self.ending = False

    @property
    def ready(self) -> bool:
        return not self.rest

    @property
    def closed(self) -> bool:
        return self.file.closed

    def take(self, block: bytes) -> None:
        self.rest = memoryview(block)
        self.flush()

    def flush(self) -> None:
        """Write what the pipe takes now. A process that no longer reads is no error: its exit code tells."""
        try:
            while self.rest:
                self.rest = self.rest[os.write(self.file.fileno(), self.rest):]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.drop()
        if self.ending:
            self.drop()

    def finish(self) -> None:
        """Close when all has been written."""
        self.ending = True
        if self.ready:
            self.drop()

    def drop(self) -> None:
        self.rest = memoryview(b"")
        self.file.close()


class Sink:
    """A file-like thing at the end of a pipe. It stays open; a text file without bytes behind it gets decoded text."""

    ready = True
    closed = False

    def __init__(self, fh: FileLike) -> None:
        if hasattr(fh, "flush"):
            fh.flush()
        self.file = getattr(fh, "buffer", fh) if isinstance(fh, io.TextIOBase) else fh
        self.descriptor = plain_descriptor(self.file)
        self.decoder = codecs.getincrementaldecoder("utf8")("replace")

    def take(self, block: bytes) -> None:
        if self.descriptor is not None:
            writer(block, self.descriptor)
        elif isinstance(self.file, io.TextIOBase):
            self.file.write(self.decoder.decode(block))
        else:
            self.file.write(block)

    def finish(self) -> None:
        if isinstance(self.file, io.TextIOBase):
            self.file.write(self.decoder.decode(b"", final=True))
        if hasattr(self.file, "flush"):
            self.file.flush()


@dataclass(eq=False)
class Link:
    """One stretch of a pipe through Python; without a target its data go to the caller."""

    source: io.FileIO | Iterator[object]
    lines: Lines | None = None
    taps: list[Callable[[bytes], object]] = field(default_factory=list)
    target: Feed | Sink | None = None
    open: bool = True
    empties: int = 0

    @property
    def ready(self) -> bool:
        return self.open and (self.target is None or self.target.ready)

    @property
    def direct(self) -> io.FileIO | None:
        """The file itself if nothing in Python needs to see the data."""
        return self.source if isinstance(self.source, io.FileIO) and not self.lines and not self.taps else None

    def read(self) -> list[bytes]:
        """Read from the file and return what is for the caller."""
        assert isinstance(self.source, io.FileIO)
        try:
            block = os.read(self.source.fileno(), BLOCK)
        except BlockingIOError:
            return []
        return self.deliver(block) if block else self.finish()

    def pull(self) -> list[bytes] | None:
        """Ask the iterator for one item and return what is for the caller; None if it had nothing at the moment."""
        assert not isinstance(self.source, io.FileIO)
        try:
            item = next(self.source)
        except StopIteration:
            return self.finish()
        if item is None or item is DID_NOTHING:
            return None
        block = encoded(item)
        self.empties = 0 if block else self.empties + 1
        return self.deliver(block) if self.empties < MANY else None

    def deliver(self, block: bytes) -> list[bytes]:
        return self.pass_on(self.lines.split(block) if self.lines else [block])

    def pass_on(self, blocks: list[bytes]) -> list[bytes]:
        for block in blocks:
            for tap in self.taps:
                tap(block)
        if self.target is None:
            return blocks
        if block := b"".join(blocks):
            self.target.take(block)
        if self.target.closed:
            self.drop()
        return []

    def finish(self) -> list[bytes]:
        """The source is at its end."""
        blocks = self.pass_on(self.lines.rest() if self.lines else [])
        if self.target is not None and not self.target.closed:
            self.target.finish()
        self.drop()
        return blocks

    def drop(self) -> None:
        """Nobody wants the rest."""
        self.open = False
        if isinstance(self.source, io.FileIO):
            self.source.close()
