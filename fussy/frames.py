"""Compression in frames: a plain .gz or .zst stream whose parts can be skipped unread.

A bundle's tar is cut where members begin, about every mebibyte, and each piece is compressed by itself. Any gzip or
zstd reads the result as one stream (RFC 1952 section 2.2: members concatenate; RFC 8878 section 3.1: so do frames, and
section 3.1.2: skippable frames are passed over). In front of each piece stand sixteen bytes that say how long it is and
which entries of the manifest it holds, so that an installer which has those files already need not decompress them:
in a gzip member they are the extra field ``FU`` (RFC 1952 section 2.3.1.1), in zstd a skippable frame of its own.

The sixteen bytes, little-endian: bytes that follow, bytes they decompress to, first entry, number of entries. A piece
that holds no entry (the manifest, the end of the tar) has NO_ENTRY and 0. A member that is longer than one piece has
its pieces to itself, so a piece always begins at a member or continues one whose beginning is not skipped either.
"""

import io
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from fussy.errors import BadBundle

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

# Large enough to compress well, small enough to skip often and to keep memory low.
FRAME_SIZE = 1 << 20
NO_ENTRY = 0xFFFFFFFF
# How much of a stream that is not cut into pieces is held at once.
_BLOCK = 1 << 18
# A piece is closed once it is FRAME_SIZE long; the member that closes it adds at most as much, and its headers.
_MAX_FRAME = 4 * FRAME_SIZE
# Each member has a header of 512 bytes at least.
_MAX_COUNT = _MAX_FRAME // 512

_FACTS = struct.Struct("<IIII")
# Member header of RFC 1952: magic, deflate, FEXTRA, no time, no flags, unknown system; XLEN; the subfield's head.
_GZIP_HEAD = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H2sH", 4 + _FACTS.size, b"FU", _FACTS.size)
_ZSTD_HEAD = struct.pack("<II", 0x184D2A5F, _FACTS.size)
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# Memory a foreign zstd stream may ask for; `zstd -19` uses 8 MiB windows.
_WINDOW_LOG_MAX = 23


class Compress(Protocol):
    """Turns one piece of the tar into a whole frame."""

    def __call__(self, data: bytes | memoryview, first: int, count: int) -> bytes: ...


def gzip_frame(data: bytes | memoryview, first: int, count: int) -> bytes:
    """Compress one piece into a gzip member; six times faster with libdeflate (package ``deflate``)."""
    body: bytes | bytearray
    try:
        import deflate
    except ImportError:
        deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
        body, crc = deflater.compress(data) + deflater.flush(), zlib.crc32(data)
    else:
        body, crc = deflate.deflate_compress(data, 1), deflate.crc32(data)
    tail = struct.pack("<II", crc, len(data) & 0xFFFFFFFF)
    return b"".join((_GZIP_HEAD, _FACTS.pack(len(body) + len(tail), len(data), first, count), body, tail))


def zstd_frame(data: bytes | memoryview, first: int, count: int) -> bytes:
    """Compress one piece into a skippable frame and a zstd frame (level 3)."""
    body = zstd.compress(data, 3)
    return b"".join((_ZSTD_HEAD, _FACTS.pack(len(body), len(data), first, count), body))


@dataclass(frozen=True)
class Format:
    """A way to compress bundles; ``suffix`` is what a packed file's name ends with."""

    suffix: str
    compress: Compress


FORMATS = {"gzip": Format(".tar.gz.gpg", gzip_frame), "zstd": Format(".tar.zst.gpg", zstd_frame)}


class Source:
    """Exact reads over a callable that returns any number of bytes (b"" at the end), with a little look-ahead."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._ahead = memoryview(b"")

    def peek(self, size: int) -> bytes:
        """Return the next SIZE bytes without taking them; fewer at the end."""
        while len(self._ahead) < size and (more := self._read()):
            self._ahead = memoryview(bytes(self._ahead) + more)
        return bytes(self._ahead[:size])

    def block(self) -> bytes | memoryview:
        """Return the next bytes there are, b"" at the end."""
        if self._ahead:
            block, self._ahead = self._ahead, memoryview(b"")
            return block
        return self._read()

    def take(self, size: int) -> bytes:
        """Return exactly SIZE bytes.

        :raises BadBundle: the stream ends before.
        """
        if len(self._ahead) >= size:
            taken, self._ahead = self._ahead[:size], self._ahead[size:]
            return bytes(taken)
        parts: list[bytes | memoryview] = []
        missing = size
        while missing:
            block = memoryview(self.block())
            if not block:
                raise BadBundle("cannot unpack the bundle: it ends too early; pack or download it again")
            parts.append(block[:missing])
            self._ahead = block[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Pass over exactly SIZE bytes without joining them."""
        while size:
            if len(self._ahead) > size:
                self._ahead = self._ahead[size:]
                return
            block = self.block()
            if not block:
                raise BadBundle("cannot unpack the bundle: it ends too early; pack or download it again")
            if len(block) > size:
                self._ahead = memoryview(block)
            else:
                size -= len(block)


# Whether a piece with these entries (first, count) is needed.
Wanted = Callable[[int, int], bool]


def blocks(source: Source, wanted: Wanted) -> Iterator[bytes]:
    """Decompress a bundle's stream, leaving out the framed pieces that are not WANTED.

    Reads what :func:`gzip_frame` and :func:`zstd_frame` write, and plain gzip, zstd or uncompressed tar.

    :raises BadBundle: the compressed data is damaged or asks for too much memory.
    """
    magic = source.peek(len(_GZIP_HEAD))
    try:
        if magic == _GZIP_HEAD:
            yield from _framed(source, wanted, _GZIP_HEAD, _inflate)
        elif magic.startswith(_ZSTD_HEAD):
            yield from _framed(source, wanted, _ZSTD_HEAD, _unzstd)
        elif magic.startswith(b"\x1f\x8b"):
            yield from _plain(source, lambda: _Inflater())
        elif magic.startswith(_ZSTD_MAGIC) or magic[1:4] == b"\x2a\x4d\x18":
            yield from _plain(source, _zstd_decompressor)
        else:
            while block := source.block():
                yield bytes(block)
    except (zlib.error, zstd.ZstdError) as error:
        raise BadBundle(f"cannot decompress the bundle: {error}; pack it again") from error


def _framed(source: Source, wanted: Wanted, head: bytes, expand: Callable[[bytes, int], bytes]) -> Iterator[bytes]:
    """Yield the wanted pieces of a framed stream."""
    while start := source.peek(len(head)):
        if start != head:
            raise BadBundle("cannot unpack the bundle: bytes that are no frame stand between frames; pack it again")
        source.skip(len(head))
        packed, plain, first, count = _FACTS.unpack(source.take(_FACTS.size))
        if max(packed, plain) > _MAX_FRAME:
            raise BadBundle(f"cannot unpack the bundle: a frame of {max(packed, plain)} bytes; pack it again")
        if count > _MAX_COUNT:
            raise BadBundle(f"cannot unpack the bundle: a frame of {count} entries; pack it again")
        if first == NO_ENTRY or wanted(first, count):
            data = expand(source.take(packed), plain)
            if len(data) != plain:
                raise BadBundle("cannot unpack the bundle: a frame has another length than it says; pack it again")
            yield data
        else:
            source.skip(packed)


def _inflate(member: bytes, size: int) -> bytes:
    """Return what a gzip member without its header holds, at most SIZE + 1 bytes; its last eight are the trailer."""
    return zlib.decompressobj(-15).decompress(memoryview(member)[:-8], size + 1)


def _unzstd(frame: bytes, size: int) -> bytes:
    """Return the content of a zstd frame, at most SIZE + 1 bytes."""
    return _zstd_decompressor().decompress(frame, size + 1)


def _zstd_decompressor() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX})


class Decompressor(Protocol):
    """What the standard library's decompressors have in common."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


class _Inflater:
    """zlib's decompressor with the interface of the newer ones."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data


def _plain(source: Source, new: Callable[[], Decompressor]) -> Iterator[bytes]:
    """Yield the content of concatenated frames of any origin, in blocks of at most 256 KiB."""
    current = new()
    started = False
    data: bytes | memoryview = b""
    while True:
        if not data and current.needs_input:
            data = source.block()
            if not data:
                break
        started = True
        feed = io.DEFAULT_BUFFER_SIZE if current.needs_input else 0
        out = current.decompress(bytes(data[:feed]), _BLOCK)
        data = data[feed:]
        if out:
            yield out
        if current.eof:
            data = memoryview(current.unused_data + bytes(data))
            current, started = new(), False
            if not data and not source.peek(1):
                return
    if started:
        raise BadBundle("cannot decompress the bundle: it ends too early; pack or download it again")
