"""Takes times out of the tar archive of a container's layer, and leaves every other byte as the engine wrote it.

The formats are those of POSIX.1-2017 (pax, "ustar Interchange Format") and GNU tar. Headers are changed in place, so
this runs at the speed of the disk; :mod:`tarfile` would need longer for the headers of a large image than its files.
"""

from collections.abc import Iterator
from typing import Any

_BLOCK = 512
_AT_ONCE = 1 << 20
_NO_CONTENT = b"123456"
_SIZE, _MTIME, _SUM, _KIND, _MAGIC = slice(124, 136), slice(136, 148), slice(148, 156), slice(156, 157), slice(257, 265)
_GNU, _GNU_TIMES = b"ustar  \0", slice(345, 369)
_TIMES = (b"mtime", b"atime", b"ctime")


def settle(source: Any, target: Any, time: int) -> None:
    """Copy a tar archive between two files, with no time in it later than TIME, and none of last access or change.

    :raises ValueError: it is no tar archive, is cut off, or has sparse files as old GNU tars wrote them
    """
    size: int | None = None
    while (header := bytearray(_exactly(source, _BLOCK))).strip(b"\0"):
        _check(header)
        kind = bytes(header[_KIND])
        if kind == b"S":
            raise ValueError("it has sparse files in the form of old GNU tars")
        length = _number(header[_SIZE]) if size is None else size
        if kind in (b"x", b"g"):
            given = _settle_records(source, target, header, length, time)
            size = given if kind == b"x" else None
            continue
        if kind not in (b"L", b"K"):
            size = None
        _write(target, header, time)
        left = 0 if kind in _NO_CONTENT else _padded(length)
        while left:
            block = _exactly(source, min(left, _AT_ONCE))
            target.write(block)
            left -= len(block)
    target.write(bytes(2 * _BLOCK))


def _settle_records(source: Any, target: Any, header: bytearray, length: int, time: int) -> int | None:
    """Copy a pax header without its times; return the size that it gives the next file, if it does."""
    content = _exactly(source, _padded(length))[:length]
    records = list(_records(content))
    kept = b"".join(record for name, _, record in records if name not in _TIMES)
    if kept:
        header[_SIZE] = b"%011o\0" % len(kept)
        _write(target, header, time)
        target.write(kept + bytes(_padded(len(kept)) - len(kept)))
    return next((int(value) for name, value, _ in records if name == b"size"), None)


def _records(content: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield name, value and all of each record of a pax header: ``LENGTH NAME=VALUE`` and a newline."""
    while content:
        length = int(content[:content.index(b" ")])
        record, content = content[:length], content[length:]
        if len(record) != length or not record.endswith(b"\n"):
            raise ValueError("a pax header is damaged")
        name, _, value = record[record.index(b" ") + 1:-1].partition(b"=")
        yield name, value, record


def _write(target: Any, header: bytearray, time: int) -> None:
    header[_MTIME] = b"%011o\0" % max(0, min(_number(header[_MTIME]), time))
    if header[_MAGIC] == _GNU:
        header[_GNU_TIMES] = bytes(24)
    header[_SUM] = b"%06o\0 " % _sum(header)
    target.write(bytes(header))


def _sum(header: bytearray) -> int:
    return sum(header) - sum(header[_SUM]) + 8 * ord(" ")


def _check(header: bytearray) -> None:
    if _number(header[_SUM]) != _sum(header):
        raise ValueError("it is no tar archive, or damaged")


def _number(field: bytes | bytearray) -> int:
    """Return a number as tar archives have it: octal digits, or GNU's base 256 for large and negative ones."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7f | (field[0] & 0x40) << 1]) + field[1:], "big", signed=True)
    return int(field.strip(b" \0") or b"0", 8)


def _padded(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK


def _exactly(source: Any, length: int) -> bytes:
    blocks = []
    while length:
        block: bytes = source.read(length)
        if not block:
            raise ValueError("it is cut off")
        blocks.append(block)
        length -= len(block)
    return b"".join(blocks)
