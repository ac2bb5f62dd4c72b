"""Cuts the archive of a tree into the pieces that :mod:`fussy.frames` compresses, and compresses them on all cores."""

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from fussy import manifest, tarball, tree
from fussy.frames import FRAME_SIZE, NO_ENTRY, Compress


@dataclass(frozen=True)
class Slice:
    """A part of a file's content that a piece takes from the disk."""

    found: tree.Found
    offset: int
    size: int


@dataclass(frozen=True)
class Piece:
    """What one frame holds: header blocks, padding and slices of files; ``first`` and ``count`` are entries."""

    first: int
    count: int
    parts: Sequence[bytes | Slice]

    @property
    def size(self) -> int:
        """Bytes of files' contents in it."""
        return sum(part.size for part in self.parts if isinstance(part, Slice))


def cut(top: str, described: bytes, found: Sequence[tree.Found]) -> Iterator[Piece]:
    """Yield the pieces of the archive of FOUND: the manifest (DESCRIBED) first, the end-of-archive blocks last.

    Small members share a piece until it is FRAME_SIZE long; a larger member has pieces of its own.
    """
    yield from cut_manifest(top, described)
    parts: list[bytes | Slice] = []
    first, size = 0, 0
    for i, item in enumerate(found):
        head, length = tarball.head(top, item.entry), item.entry.data_size
        if parts and (size >= FRAME_SIZE or length > FRAME_SIZE):
            yield Piece(first, i - first, parts)
            parts, first, size = [], i, 0
        if length > FRAME_SIZE:
            yield from _large(i, head, item, length)
            first = i + 1
            continue
        parts.append(head)
        if length:
            parts += [Slice(item, 0, length), tarball.padding(length)]
        size += len(head) + length
    if parts:
        yield Piece(first, len(found) - first, parts)
    yield Piece(NO_ENTRY, 0, [tarball.END])


def cut_manifest(top: str, described: bytes) -> Iterator[Piece]:
    """Yield the pieces of the archive's first member."""
    text, raw = manifest.spell(manifest.PATH)
    own = manifest.Entry(type="file", path=text, raw_path=raw, size=len(described))
    whole = tarball.head(top, own) + described + tarball.padding(len(described))
    for start in range(0, len(whole), FRAME_SIZE):
        yield Piece(NO_ENTRY, 0, [whole[start:start + FRAME_SIZE]])


def _large(index: int, head: bytes, item: tree.Found, length: int) -> Iterator[Piece]:
    """Yield the pieces of one member that is longer than a piece."""
    for offset in range(0, length, FRAME_SIZE):
        parts: list[bytes | Slice] = [Slice(item, offset, min(FRAME_SIZE, length - offset))]
        if offset == 0:
            parts.insert(0, head)
        if offset + FRAME_SIZE >= length:
            parts.append(tarball.padding(length))
        yield Piece(index, 1, parts)


def compressed(pieces: Iterator[Piece], compress: Compress) -> Iterator[tuple[Piece, bytes]]:
    """Yield PIECES in order, each with its frame, made on all cores, a few pieces ahead of the reader.

    :raises FussyError: a file is not what it was when its digest was taken.
    """
    workers = os.cpu_count() or 1
    waiting: deque[tuple[Piece, Future[bytes]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for piece in pieces:
                waiting.append((piece, pool.submit(_compress, piece, compress)))
                if len(waiting) > 3 * workers:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        finally:
            for _, future in waiting:
                future.cancel()


def _first(waiting: deque[tuple[Piece, Future[bytes]]]) -> tuple[Piece, bytes]:
    piece, future = waiting.popleft()
    return piece, future.result()


class _Buffers(threading.local):
    """Where a thread puts a piece together; new memory for each piece costs as much as reading the files."""

    def __init__(self) -> None:
        self.piece = bytearray()


_buffers = _Buffers()


def _compress(piece: Piece, compress: Compress) -> bytes:
    size = sum(len(part) if isinstance(part, bytes) else part.size for part in piece.parts)
    if len(_buffers.piece) < size:
        _buffers.piece = bytearray(size)
    data = memoryview(_buffers.piece)[:size]
    end = 0
    for part in piece.parts:
        start, end = end, end + (len(part) if isinstance(part, bytes) else part.size)
        if isinstance(part, bytes):
            data[start:end] = part
        else:
            _read(part, data[start:end])
    return compress(data, piece.first, piece.count)


def _read(part: Slice, into: memoryview) -> None:
    """Read a part of a file, which must be what it was when its digest was taken."""
    descriptor = os.open(part.found.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.preadv(descriptor, [into], part.offset) != part.size or not part.found.unchanged(os.fstat(descriptor)):
            raise tree.changed(part.found.file)
    finally:
        os.close(descriptor)
