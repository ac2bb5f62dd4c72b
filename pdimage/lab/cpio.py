"""Writes archives that a kernel unpacks into its first file system: cpio in the format "newc".

Archives can simply be joined: the kernel unpacks one after the other, also when some are compressed. So what is the
same for all machines is made once, and what is one machine's own is put behind it.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """A file (or, with ``mode`` of a directory, a directory): permission bits and type in ``mode``, owned by root."""

    content: bytes = b""
    mode: int = stat.S_IFREG | 0o644

    @classmethod
    def program(cls, content: bytes) -> "Entry":
        """Return a file that can be run."""
        return cls(content, stat.S_IFREG | 0o755)

    @classmethod
    def secret(cls, content: bytes) -> "Entry":
        """Return a file that root alone can read."""
        return cls(content, stat.S_IFREG | 0o600)


def archive(entries: Mapping[str, Entry]) -> bytes:
    """Return ENTRIES (by path, without a leading slash) as one archive; missing parents are made with mode 0755.

    The same entries give the same bytes.

    >>> archive({"etc/hostname": Entry(b"router")})[:6]
    b'070701'
    """
    return b"".join(_records({**{path: Entry(mode=stat.S_IFDIR | 0o755) for path in _parents(entries)}, **entries}))


def _parents(paths: Iterable[str]) -> Iterator[str]:
    """Yield every directory above PATHS, each before what it holds."""
    yield from sorted({str(parent) for path in paths for parent in Path(path).parents if str(parent) != "."})


def _records(entries: Mapping[str, Entry]) -> Iterator[bytes]:
    for number, (path, entry) in enumerate(entries.items(), 1):
        yield _record(path, entry.mode, entry.content, number)
    yield _record("TRAILER!!!", 0, b"", 0)


def _record(path: str, mode: int, content: bytes, number: int) -> bytes:
    name = os.fsencode(path) + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    """Return DATA filled up to a multiple of four bytes.

    >>> _padded(b"abcde")
    b'abcde\\x00\\x00\\x00'
    """
    return data + b"\0" * (-len(data) % 4)
