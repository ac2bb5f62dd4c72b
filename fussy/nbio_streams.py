"""Reading and writing file-like things piece by piece: the functions documented for fussy.nbio (section 4.5.1)."""

import io
import os
import select
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

FileLike = Any  # an int (descriptor) or whatever has the usual file methods; the contract does not narrow it
BLOCK = 64 * 1024


class _Nothing(bytes):
    """The type of DID_NOTHING: false like any empty bytes, but told apart from an empty line by identity."""


DID_NOTHING: bytes = _Nothing()
"""What a reader yields when there is nothing to read at the moment. Compare with `is`."""


def pause(duration: float) -> None:
    """Sleep for `duration` seconds: the one place where a silent pipe sleeps, so that a test can replace it."""
    time.sleep(duration)


def fileno(fh: FileLike) -> int:
    """Return the descriptor of a file-like thing; a descriptor (int) is its own.

    Raises OSError or AttributeError when it has none.
    """
    return fh if isinstance(fh, int) else int(fh.fileno())


def close(fh: FileLike) -> None:
    """Close a file, socket or descriptor, except the process's own standard output and error."""
    if fh is sys.stdout or fh is sys.stderr:
        return
    if isinstance(fh, int):
        os.close(fh)
    else:
        fh.close()


def plain_descriptor(fh: FileLike) -> int | None:
    """Return the descriptor through which exactly the bytes of `fh` pass, or None when there is none.

    Many objects have a fileno() behind which other bytes run than they show (gzip.GzipFile, TLS sockets, HTTP
    responses): only descriptors, plain binary files and plain sockets are taken at their word.
    """
    if isinstance(fh, int):
        return fh
    if type(fh) is socket.socket:
        return fh.fileno()
    raw = fh.raw if isinstance(fh, io.BufferedReader | io.BufferedWriter | io.BufferedRandom) else fh
    return raw.fileno() if isinstance(raw, io.FileIO) else None


def reader(fh: FileLike, blocksize: int = 4096) -> Iterator[bytes]:
    """Yield the content of `fh` in blocks of at most `blocksize` bytes without ever waiting, then close it.

    Yields DID_NOTHING when there is nothing to read at the moment. `fh` is read through its descriptor, so what a
    buffered file has read ahead is not seen; things without a descriptor (io.BytesIO) are read with their read().
    """
    try:
        descriptor = fileno(fh)
    except (OSError, AttributeError):
        while block := fh.read(blocksize):
            yield encoded(block)
    else:
        ready = select.poll()
        ready.register(descriptor, select.POLLIN)
        while True:
            block = _read_ready(descriptor, blocksize) if ready.poll(0) else DID_NOTHING
            if not block and block is not DID_NOTHING:
                break
            yield block
    close(fh)


def _read_ready(descriptor: int, size: int) -> bytes:
    try:
        return os.read(descriptor, size)
    except BlockingIOError:
        return DID_NOTHING


def writer(content: str | bytes, fh: FileLike, encoding: str = "utf8") -> list[int]:
    """Write all of `content` to `fh`, waiting where it is full, and return the sizes of the single writes.

    Writes through the descriptor of `fh` (after flushing it) if it has one, with its write() otherwise.
    """
    data = content.encode(encoding) if isinstance(content, str) else content
    try:
        descriptor = fileno(fh)
    except (OSError, AttributeError):
        if data:
            fh.write(data.decode(encoding) if isinstance(fh, io.TextIOBase) else data)
        return [len(data)] if data else []
    if hasattr(fh, "flush"):
        fh.flush()
    room = select.poll()
    room.register(descriptor, select.POLLOUT)
    sizes = []
    rest = memoryview(data)
    while rest:
        try:
            sizes.append(os.write(descriptor, rest))
        except BlockingIOError:
            room.poll()
            continue
        rest = rest[sizes[-1]:]
    return sizes


def writeiter(iterator: Iterable[str | bytes | None], fh: FileLike) -> list[int]:
    """Write the content of an iterable to `fh`, close `fh`, and return the sizes of the single writes.

    To write a file from a file::

        writeiter(reader(open(filename)), fh)

    To write a response into the input of a process::

        writeiter(response.iter_content(4096), process.stdin)

    The work is done when the call returns, as the documented examples expect, which call it and do not iterate over
    what it returns. Nothing else goes on meanwhile: to read from the process at the same time, use a Pipe.
    """
    sizes: list[int] = []
    for content in iterator:
        if content:
            sizes += writer(content, fh)
        elif content is DID_NOTHING or content is None:
            pause(0.01)
    close(fh)
    return sizes


def by_line(iterable: Iterable[bytes]) -> Iterator[bytes]:
    r"""Yield the lines of the blocks of `iterable`, each without its newline; the last one may be unfinished.

    DID_NOTHING is passed on. A line is held in memory until it is complete.

    >>> list(by_line([b"one\ntw", b"o\n\nthr", b"ee"]))
    [b'one', b'two', b'', b'three']
    """
    lines = Lines()
    for block in iterable:
        if block is DID_NOTHING:
            yield block
        else:
            yield from lines.split(block)
    yield from lines.rest()


class Lines:
    """Cuts blocks into lines. What has no newline yet is kept as pieces, so that long lines cost linear time."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def split(self, block: bytes) -> list[bytes]:
        """Return the lines which `block` completes."""
        first, newline, tail = block.partition(b"\n")
        self.pieces.append(first)
        if not newline:
            return []
        *lines, last = tail.split(b"\n")
        lines.insert(0, b"".join(self.pieces))
        self.pieces = [last]
        return lines

    def rest(self) -> list[bytes]:
        """Return the unfinished last line, if there is one."""
        last = b"".join(self.pieces)
        self.pieces = []
        return [last] if last else []


def encoded(item: object) -> bytes:
    """Return an item of a stream as bytes; str is encoded as UTF-8. Raises TypeError for what is neither."""
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytearray | memoryview):
        return bytes(item)
    raise TypeError(f"cannot pipe {item!r}: yield bytes or str")
