"""What may stand in a pipe beside processes, and how Python objects are turned into it.

Each part can be read from (at the start of a pipe), can receive (after the start), or both. It says which by what
`read` and `receive` return, or refuses with NBIOError.
"""

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO

from fussy.nbio_errors import NBIOError
from fussy.nbio_link import Sink
from fussy.nbio_streams import BLOCK, DID_NOTHING, FileLike, plain_descriptor

Reading = io.FileIO | Iterator[object]
Tap = Callable[[bytes], object]


@dataclass(frozen=True)
class Text:
    """A string: '-' is standard input or output, '' collects (or is no input at all), any other is input."""

    content: str | bytes

    def read(self, stack: ExitStack) -> Reading:
        return File(sys.stdin).read(stack) if self.content == "-" else iter([self.content])

    def receive(self, stack: ExitStack) -> Tap | Sink | None:
        if self.content == "-":
            return Sink(sys.stdout)
        if self.content:
            raise NBIOError(f"cannot pipe into the string {self.content!r}: use > for the name of a file")
        return None


@dataclass(frozen=True)
class Function:
    """A callable: called for its content at the start of a pipe, with each block after it."""

    function: Callable[..., object]

    def read(self, stack: ExitStack) -> Reading:
        made = self.function()
        return iter(()) if made is None else part(made).read(stack)

    def receive(self, stack: ExitStack) -> Tap | Sink | None:
        return self.function


@dataclass(frozen=True)
class Items:
    """An iterable: its items are the input at the start of a pipe; after it, a list gets each block appended."""

    iterable: Iterable[object]

    def read(self, stack: ExitStack) -> Reading:
        return iter(self.iterable)

    def receive(self, stack: ExitStack) -> Tap | Sink | None:
        if isinstance(self.iterable, list):
            return self.iterable.append
        raise NBIOError(f"cannot pipe into {self.iterable!r}: it only can be the start of a pipe")


@dataclass(frozen=True)
class File:
    """An open file, socket or the like. It is used from its present position and never closed."""

    fh: FileLike

    def read(self, stack: ExitStack) -> Reading:
        fh = getattr(self.fh, "buffer", self.fh) if self.fh is sys.stdin else self.fh
        descriptor = plain_descriptor(fh)
        if descriptor is None:
            return _blocks(fh)
        if hasattr(fh, "seekable") and fh.seekable():
            os.lseek(descriptor, fh.tell(), os.SEEK_SET)  # where the reader of a buffered file believes to be
        return stack.enter_context(io.FileIO(os.dup(descriptor), "rb"))

    def receive(self, stack: ExitStack) -> Tap | Sink | None:
        return Sink(self.fh)


@dataclass(frozen=True)
class Named:
    """A file known by its name, opened when the pipe runs and closed after it."""

    name: str | os.PathLike[str]

    def read(self, stack: ExitStack) -> Reading:
        return File(stack.enter_context(self._opened("rb", "read"))).read(stack)

    def receive(self, stack: ExitStack) -> Tap | Sink | None:
        return Sink(stack.enter_context(self._opened("wb", "write")))

    def _opened(self, mode: str, verb: str) -> IO[bytes]:
        try:
            return open(self.name, mode)
        except OSError as error:
            raise NBIOError(f"cannot {verb} {str(self.name)!r}: {error.strerror}") from error


Part = Text | Function | Items | File | Named


def part(other: object) -> Part:
    """Return the part for a Python object. Raises NBIOError for one which cannot stand in a pipe."""
    if isinstance(other, Part):
        return other
    if isinstance(other, str | bytes):
        return Text(other)
    if isinstance(other, bytearray | memoryview):
        return Text(bytes(other))
    if hasattr(other, "fileno") or hasattr(other, "read") or hasattr(other, "write"):
        return File(other)
    if callable(other):
        return Function(other)
    if isinstance(other, Iterable):
        return Items(other)
    raise NBIOError(f"cannot pipe {other!r}: give a process, a file, a string, an iterable or a callable")


def _blocks(fh: FileLike) -> Iterator[object]:
    """Yield what a file-like thing without a plain descriptor reads; this may wait."""
    read = getattr(fh, "read1", None) or getattr(fh, "read", None) or fh.recv
    while True:
        block = read(BLOCK)
        if block is None:  # a raw file in non-blocking mode has nothing now
            yield DID_NOTHING
        elif block:
            yield block
        else:
            return
