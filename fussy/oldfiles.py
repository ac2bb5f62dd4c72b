"""The files of the release that a delta was made against, as :mod:`fussy.patch` reads them: nothing outside of them."""

import os
import stat
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path

from fussy import manifest, tree
from fussy.errors import BadBundle, UnusableDelta
from fussy.target import Target

# What stands for an old file in a delta.
NO_BASE, BASE_MANIFEST, FIRST_ENTRY = 0, 1, 2
_BLOCK = 1 << 16
_NO_FILE = -1

# Given the digest of a manifest, returns the release that has it.
Find = Callable[[str], Path]


class MissingBase(UnusableDelta):
    """The release that a delta was made against is not here."""


def find(target: Target, digest: str) -> Path:
    """Return the release of TARGET whose manifest has DIGEST, the current one first.

    :raises MissingBase: there is none
    """
    current = target.current_release()
    for release in [*([current] if current else []), *target.releases()]:
        if manifest.release_digest(release) == digest:
            return release
    raise MissingBase(f"cannot install the delta: its base, the release with manifest {digest[:16]}…, is not in "
                      f"{target.root}; install the full bundle")


def nowhere(digest: str) -> Path:
    """Find no base: for those who unpack outside a target."""
    raise MissingBase("cannot unpack a delta by itself: it needs its base release; take the full bundle")


def broken(why: str) -> BadBundle:
    """Return the error for a delta that is malformed."""
    return BadBundle(f"cannot apply the delta: {why}; make it again, or install the full bundle")


class OldFile:
    """An open file of the base; a context manager. Reads are near each other, so they go through a buffer."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._start = 0
        self._buffer = b""

    def __enter__(self) -> "OldFile":
        return self

    def __exit__(self, *error: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, position: int, size: int) -> bytes:
        """Return exactly SIZE bytes at POSITION.

        :raises BadBundle: the file has, or had when it was installed, no such place
        :raises UnusableDelta: it became shorter, or the disk does not give it
        """
        if position < 0 or position + size > self._size:
            raise broken("it refers to bytes outside of an old file")
        start = position - self._start
        if not 0 <= start <= len(self._buffer) - size:
            self._start = max(0, position - _BLOCK // 4)
            start = position - self._start
            self._buffer = self._at(self._start, start + max(size, _BLOCK)) if size else b""
            if len(self._buffer) < start + size:
                raise UnusableDelta("cannot apply the delta: a file of its base release became shorter; "
                                    "install the full bundle")
        return self._buffer[start:start + size]

    def _at(self, position: int, size: int) -> bytes:
        try:
            return os.pread(self._descriptor, size, position)
        except OSError as error:
            raise UnusableDelta(f"cannot apply the delta: a file of its base release can't be read: {error.strerror}; "
                                "install the full bundle") from error


class OldFiles:
    """The files of the release that a delta refers to."""

    def __init__(self, release: Path) -> None:
        self._release = os.path.realpath(os.fsencode(release))
        # What is asked of the entries, in a tenth of the memory that they take themselves: their paths, all in one;
        # where each begins; its size; and the files in the order of their digests, of which the first 64 bits are
        # enough to find one, as its content will be checked.
        paths = bytearray()
        self._starts, self._sizes = array("Q"), array("q")
        digests, numbers = array("Q"), array("Q")
        for i, entry in enumerate(self._entries()):
            self._starts.append(len(paths))
            self._sizes.append(entry.size if entry.type == "file" else _NO_FILE)
            paths += entry.name
            if entry.type == "file":
                digests.append(_beginning(entry.sha256))
                numbers.append(i + FIRST_ENTRY)
        self._starts.append(len(paths))
        self._paths = bytes(paths)
        order = sorted(range(len(digests)), key=digests.__getitem__)
        self._digests = array("Q", (digests[i] for i in order))
        self._numbers = array("Q", (numbers[i] for i in order))
        self._used: set[int] = set()

    def _entries(self) -> Iterator[manifest.Entry]:
        return manifest.stored_entries(Path(os.fsdecode(self._release + b"/" + manifest.PATH)))

    def holds(self, sha256: str) -> int:
        """Return the number of a file with this content, or NO_BASE."""
        digest = _beginning(sha256)
        place = bisect_left(self._digests, digest)
        return self._numbers[place] if place < len(self._digests) and self._digests[place] == digest else NO_BASE

    def content(self, number: int, size: int) -> Iterator[bytes]:
        """Yield the first SIZE bytes of an old file."""
        with self.opened(number) as old:
            for position in range(0, size, _BLOCK):
                yield old.read(position, min(_BLOCK, size - position))

    def opened(self, number: int) -> OldFile:
        """Open an old file by its number; NO_BASE opens as an empty one.

        :raises BadBundle: there is no such file in the manifest of the base
        :raises UnusableDelta: it is not what that manifest says, as far as can be seen without reading it
        """
        if number == NO_BASE:
            return OldFile(-1, 0)
        if number == BASE_MANIFEST:
            name, size = manifest.PATH, -1
        else:
            i = number - FIRST_ENTRY
            name, size = self._file(i) if i < len(self._sizes) else (b"", _NO_FILE)
            if size == _NO_FILE or manifest.unsafe_path(name):
                raise broken("it refers to a file that its base does not have")
            self._used.add(number)
        path = self._release + b"/" + name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _altered(path, f"can't be opened: {error.strerror}") from error
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or size not in (-1, facts.st_size) or os.path.realpath(path) != path:
            os.close(descriptor)
            raise _altered(path, "is not the file that was installed")
        return OldFile(descriptor, facts.st_size)

    def _file(self, i: int) -> tuple[bytes, int]:
        """Return the path of entry I, and its size or _NO_FILE."""
        return self._paths[self._starts[i]:self._starts[i + 1]], self._sizes[i]

    def check(self) -> None:
        """Compare the files that were opened with their entries.

        :raises UnusableDelta: one was altered
        """
        for i, entry in enumerate(self._entries()):
            if i + FIRST_ENTRY in self._used:
                path = self._release + b"/" + entry.name
                try:
                    problems = tree.differences(path, os.lstat(path), entry)
                except OSError as error:
                    problems = [f"can't be read: {error.strerror}"]
                if problems:
                    raise _altered(path, problems[0])


def _beginning(sha256: str) -> int:
    return int(sha256[:16], 16)


def _altered(path: bytes, how: str) -> UnusableDelta:
    return UnusableDelta(f"cannot apply the delta: {os.fsdecode(path)!r} of its base release {how}; "
                         "install the full bundle")
