"""Opens a bundle so that nothing of it is parsed before all of it is verified, without a copy of it anywhere.

A bundle is read twice. The first reading judges the signature, and notes a digest of every mebibyte of what it covers;
the content itself is thrown away. Only when the verdict is good, the second reading decrypts again, and hands out each
mebibyte only if it has the digest that was noted: what was verified is what is parsed, even if the file is changed
meanwhile. That costs a second decryption, and saves memory or disk for the whole bundle. One that fits into 2 MiB, as
most deltas do, is held in memory instead.
"""

import hashlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fussy import gpg
from fussy.errors import SystemSetup, Untrusted
from fussy.frames import Source

_CHUNK = 1 << 20
_HELD = 2 << 20


class _FirstReading:
    """What is kept of a stream that nobody may parse yet: digests of its chunks, and all of it as long as it is small.

    ``size`` is its size so far, ``held`` its content or nothing.
    """

    def __init__(self) -> None:
        self.size = 0
        self.held = deque[bytes]()
        self.digests: list[bytes] = []
        self._open = hashlib.sha256()
        self._filled = 0

    def update(self, data: bytes) -> None:
        self.size += len(data)
        if self.size <= _HELD:
            self.held.append(data)
        else:
            self.held.clear()
        view = memoryview(data)
        while view:
            part = view[:_CHUNK - self._filled]
            self._open.update(part)
            self._filled += len(part)
            view = view[len(part):]
            if self._filled == _CHUNK:
                self.finish()

    def finish(self) -> None:
        """Close the chunk that is open."""
        if self._filled:
            self.digests.append(self._open.digest())
            self._open, self._filled = hashlib.sha256(), 0


def _checked(stream: BinaryIO, digests: list[bytes]) -> Iterator[bytes]:
    """Yield the chunks of STREAM, each only if it has its digest."""
    for digest in digests:
        chunk = b"".join(_exactly(stream, _CHUNK))
        if hashlib.sha256(chunk).digest() != digest:
            raise Untrusted("cannot install: the bundle was changed while it was read; fetch it again, "
                            "and find out what writes to it")
        yield chunk


def _exactly(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (data := stream.read(size)):
        yield data
        size -= len(data)


@contextmanager
def opened(filename: Path, keyring: Path) -> Iterator[tuple[gpg.Signer, Source]]:
    """Verify the bundle FILENAME against KEYRING, then give its signer and its content, still compressed.

    :raises Untrusted: the signature does not vouch for all of it.
    :raises SystemSetup: the file or the keyring can't be read, or gpg is missing.
    """
    try:
        file = open(filename, "rb", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise SystemSetup(f"cannot open the bundle {filename}: {error.strerror}") from error
    with file, gpg.open_keyring(keyring) as ring:
        first = _FirstReading()
        signer = ring.verify(file, first.update)
        first.finish()
        if first.size <= _HELD:
            yield signer, Source(lambda: first.held.popleft() if first.held else b"")
            return
        file.seek(0)
        with ring.decrypt(file) as content:
            chunks = _checked(content, first.digests)
            yield signer, Source(lambda: next(chunks, b""))
