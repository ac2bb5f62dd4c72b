"""The files of the release that a delta was made against, as :mod:`fussy.patch` reads them: nothing outside of them."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from fussy import manifest, tree
from fussy.errors import BadBundle, UnusableDelta
from fussy.target import Target

# What stands for an old file in a delta.
NO_BASE, BASE_MANIFEST, FIRST_ENTRY = 0, 1, 2
_BLOCK = 1 << 18

# Given the digest of a manifest, returns the release that has it.
Find = Callable[[str], Path]


def find(target: Target, digest: str) -> Path:
    """Return the release of TARGET whose manifest has DIGEST, the current one first.

    :raises UnusableDelta: there is none
    """
    current = target.current_release()
    for release in [*([current] if current else []), *target.releases()]:
        try:
            if manifest.digest((release / os.fsdecode(manifest.PATH)).read_bytes()) == digest:
                return release
        except OSError:
            continue
    raise UnusableDelta(f"cannot install the delta: its base, the release with manifest {digest[:16]}…, is not in "
                        f"{target.root}; install the full bundle")


def nowhere(digest: str) -> Path:
    """Find no base: for those who unpack outside a target."""
    raise UnusableDelta("cannot unpack a delta by itself: it needs its base release; take the full bundle")


def broken(why: str) -> BadBundle:
    """Return the error for a delta that is malformed."""
    return BadBundle(f"cannot apply the delta: {why}; make it again, or install the full bundle")


class OldFile:
    """An open file of the base; a context manager."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size

    def __enter__(self) -> "OldFile":
        return self

    def __exit__(self, *error: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, position: int, size: int) -> bytes:
        """Return exactly SIZE bytes at POSITION."""
        if position < 0 or position + size > self._size:
            raise broken("it refers to bytes outside of an old file")
        data = os.pread(self._descriptor, size, position)
        if len(data) != size:
            raise UnusableDelta("cannot apply the delta: a file of its base release became shorter; "
                                "install the full bundle")
        return data


class OldFiles:
    """The release that a delta refers to."""

    def __init__(self, release: Path) -> None:
        self._release = os.path.realpath(os.fsencode(release))
        described = manifest.decode((release / os.fsdecode(manifest.PATH)).read_bytes())
        self._entries = described.entries
        self._numbers = {entry.sha256: i + FIRST_ENTRY for i, entry in reversed(list(enumerate(self._entries)))
                         if entry.type == "file"}
        self._used: set[int] = set()

    def holds(self, sha256: str) -> int:
        """Return the number of a file with this content, or NO_BASE."""
        return self._numbers.get(sha256, NO_BASE)

    def content(self, number: int, size: int) -> Iterator[bytes]:
        """Yield the first SIZE bytes of an old file."""
        with self.opened(number) as old:
            for position in range(0, size, _BLOCK):
                yield old.read(position, min(_BLOCK, size - position))

    def opened(self, number: int) -> OldFile:
        """Open an old file by its number; NO_BASE opens as an empty one.

        :raises UnusableDelta: it is not what the manifest of the base says, as far as can be seen without reading it
        """
        if number == NO_BASE:
            return OldFile(-1, 0)
        if number == BASE_MANIFEST:
            name, size = manifest.PATH, -1
        elif number - FIRST_ENTRY < len(self._entries) and self._entries[number - FIRST_ENTRY].type == "file":
            name, size = self._entries[number - FIRST_ENTRY].name, self._entries[number - FIRST_ENTRY].size
            self._used.add(number)
        else:
            raise broken("it refers to a file that its base does not have")
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

    def check(self) -> None:
        """Compare the files that were opened with their entries."""
        for number in sorted(self._used):
            entry = self._entries[number - FIRST_ENTRY]
            path = self._release + b"/" + entry.name
            try:
                problems = tree.differences(path, os.lstat(path), entry)
            except OSError as error:
                problems = [f"can't be read: {error.strerror}"]
            if problems:
                raise _altered(path, problems[0])


def _altered(path: bytes, how: str) -> UnusableDelta:
    return UnusableDelta(f"cannot apply the delta: {os.fsdecode(path)!r} of its base release {how}; "
                         "install the full bundle")
