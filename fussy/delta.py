"""Makes a delta: what a device lacks that has a certain release already (the format is told in :mod:`fussy.patch`).

Each content that the base does not have is compared with the old file of the same path, or else with one whose name
differs in digits only (``libfoo.so.1.2``, ``libfoo.so.1.3``), or that has the same name elsewhere; it goes whole where
that is smaller. The differences come from the library bsdiff4, in processes of their own for each core. Files are
compared in windows of 4 MiB with what lies around the same place in the old one, so memory stays below 0.3 GB a core.
"""

import json
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from fussy import manifest, patch, tarball, tree
from fussy.compare import Difference, Job, compare
from fussy.errors import SystemSetup
from fussy.frames import zstd
from fussy.oldfiles import BASE_MANIFEST, FIRST_ENTRY, NO_BASE

_WINDOW = 4 << 20
_AROUND = 4 << 20
# Below as many bytes to compare, starting processes takes longer than comparing.
_SMALL = 4 << 20
_LEVEL = 19
_DIGITS = re.compile(rb"[0-9]+")


@dataclass(frozen=True)
class Base:
    """The release that a delta is made against: its manifest as bytes and as entries, and where its files are."""

    described: bytes
    entries: Sequence[manifest.Entry]
    root: bytes

    @property
    def digest(self) -> str:
        return manifest.digest(self.described)


def base_release(directory: Path) -> Base:
    """Return the release in DIRECTORY, which is whole and has its manifest: installed or unpacked by fussy.

    :raises SystemSetup: it has no manifest, or differs from it
    """
    from fussy import verify

    if damage := verify.damage(directory):
        raise SystemSetup(f"cannot make a delta from {directory}: {damage[0]} ({len(damage)} differences from its "
                          "manifest); unpack its bundle again")
    described = (directory / os.fsdecode(manifest.PATH)).read_bytes()
    return Base(described, manifest.decode(described).entries, os.path.realpath(os.fsencode(directory)))


def segment_size(memory: int) -> int:
    """Return the bytes of contents after which a segment is closed, for as many MiB of memory on the device.

    Its last step makes twice as many at most, so it fits into ``patch.largest_segment``.
    """
    return memory << 16


def suffix(base: Base) -> str:
    """Return what follows the name of a release in the name of its delta."""
    return f".from-{base.digest[:16]}.delta.gpg"


class _Segments:
    """Puts steps together to segments."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._numbers: list[bytearray] = [bytearray() for _ in range(4)]
        self._changes: list[bytes] = []
        self._literals: list[bytes] = []
        self.size = self.steps = 0

    def begin(self, base: int) -> None:
        """Begin a content."""
        self._numbers[0] += number(base)

    def put(self, seek: int, changes: bytes, literals: bytes) -> None:
        """Add one step."""
        for part, value in zip(self._numbers[1:], (2 * seek if seek >= 0 else -2 * seek - 1, len(changes),
                                                   len(literals)), strict=True):
            part += number(value)
        self._changes.append(changes)
        self._literals.append(literals)
        self.size += len(changes) + len(literals)
        self.steps += 1

    def take(self) -> bytes:
        """Return the segment and begin the next."""
        parts = [*map(bytes, self._numbers), b"".join(self._changes), b"".join(self._literals)]
        self._clear()
        return patch.PARTS.pack(*map(len, parts)) + b"".join(parts)


def number(value: int) -> bytes:
    """Return VALUE in LEB128.

    >>> number(5), number(128)
    (b'\\x05', b'\\x80\\x01')
    """
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


@dataclass(frozen=True)
class Content:
    """A content that a delta has: its file and size, and the old file (by its number, 0: none) that it refers to.

    ``kept``: the beginning of the names of files that keep how its windows differ, for further deltas; or "".
    """

    file: bytes | str
    size: int
    base: int
    old: bytes
    old_size: int
    kept: str = ""

    def jobs(self) -> Iterator[Job]:
        """Yield its windows."""
        for start in range(0, self.size, _WINDOW):
            size = min(_WINDOW, self.size - start)
            middle = start * self.old_size // self.size
            left = max(0, middle - _AROUND)
            right = min(self.old_size, middle + _WINDOW + _AROUND)
            yield Job(self.file, start, size, self.old, left, right - left, self.kept and f"{self.kept}-{start}")


def contents(base: Base, found: Sequence[tree.Found], kept: Path | None = None) -> Iterator[Content]:
    """Yield what the base does not have, in the order of the new manifest."""
    there = {entry.sha256 for entry in base.entries}
    choose = _Chooser(base, found)
    for item in found:
        entry = item.entry
        if entry.type == "file" and entry.size and entry.sha256 not in there:
            there.add(entry.sha256)
            index = choose.old(entry)
            if index is None:
                yield Content(item.file, entry.size, NO_BASE, b"", 0)
            else:
                old = base.entries[index]
                yield Content(item.file, entry.size, index + FIRST_ENTRY, base.root + b"/" + old.name, old.size,
                              f"{kept}/{entry.sha256}-{old.sha256}" if kept else "")


class _Chooser:
    """Finds the old file that a new one was probably made from."""

    def __init__(self, base: Base, found: Sequence[tree.Found]) -> None:
        self._base = base
        self._named: dict[bytes, int] = {}
        self._like: dict[bytes, list[int]] = {}
        stays = {item.entry.name for item in found}
        # further names of each new file
        self._others: dict[bytes, list[bytes]] = {}
        for item in found:
            if item.entry.type == "hardlink":
                self._others.setdefault(item.entry.link, []).append(item.entry.name)
        for i, entry in enumerate(base.entries):
            if entry.type == "hardlink" and entry.link in self._named:
                self._named[entry.name] = self._named[entry.link]
            if entry.type == "file" and entry.size:
                self._named[entry.name] = i
                for key in self._keys(entry.name):
                    # one that is gone has probably moved
                    self._like.setdefault(key, []).insert(0 if entry.name not in stays else 1 << 30, i)

    @staticmethod
    def _keys(name: bytes) -> tuple[bytes, bytes]:
        alike = _DIGITS.sub(b"#", name)
        return alike, b"/" + alike.rpartition(b"/")[2]

    def old(self, entry: manifest.Entry) -> int | None:
        """Return the index of the old file, if there is one."""
        for name in [entry.name, *self._others.get(entry.name, [])]:
            if name in self._named:
                return self._named[name]
        for key in self._keys(entry.name):
            if alike := self._like.get(key):
                return min(alike[:16], key=lambda i: abs(self._base.entries[i].size - entry.size))
        return None


def segments(wanted: Sequence[Content], memory: int) -> Iterator[tuple[int, bytes]]:
    """Yield the segments of a delta that holds WANTED, each with the bytes of contents it makes."""
    size, steps = segment_size(memory), patch.most_steps(memory)
    out = _Segments()
    for content, windows in _compared(wanted):
        out.begin(content.base)
        place = 0
        for window in windows:
            for goal, change, literal in _small(window, size):
                out.put(goal - place if change else 0, change, literal)
                place = goal + len(change) if change else place
                if out.size >= size or out.steps == steps:
                    yield out.size, out.take()
    if out.size:
        yield out.size, out.take()


def _small(window: Difference, most: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the steps of a window with their bytes, at most MOST to take and as many to add."""
    changed = copied = 0
    for place, adds, copies in window.steps:
        for start in range(0, adds, most):
            size = min(most, adds - start)
            last = start + size == adds and copies <= most
            yield (place + start, window.changes[changed:changed + size],
                   window.literals[copied:copied + copies] if last else b"")
            changed += size
        if not adds or copies > most:
            for start in range(0, copies, most):
                yield 0, b"", window.literals[copied + start:copied + min(start + most, copies)]
        copied += copies


def _compared(wanted: Sequence[Content]) -> Iterator[tuple[Content, Iterator[Difference]]]:
    """Yield each content with its windows, compared on all cores, a few ahead of the reader."""
    if sum(content.size + content.old_size for content in wanted) < _SMALL:
        for content in wanted:
            yield content, map(compare, content.jobs())
        return
    workers = os.cpu_count() or 1
    waiting: deque[Future[Difference]] = deque()
    jobs = (job for content in wanted for job in content.jobs())
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:

        def results(count: int) -> Iterator[Difference]:
            for _ in range(count):
                while len(waiting) < 4 * workers and (job := next(jobs, None)):
                    waiting.append(pool.submit(compare, job))
                yield waiting.popleft().result()

        for content in wanted:
            yield content, results(-(-content.size // _WINDOW))


def stream(
    base: Base, name: str, described: bytes, found: Sequence[tree.Found], memory: int = patch.MEMORY,
    kept: Path | None = None,
) -> Iterator[tuple[int, bytes]]:
    """Yield the delta from BASE to the tree FOUND, compressed, with the bytes of contents that are done with each part.

    NAME is the name of the new release, DESCRIBED its manifest, MEMORY how many MiB a device may need to apply it. KEPT
    is a directory in which deltas to the same release from other bases find what they need not compare again.

    :raises SystemSetup: bsdiff4 is missing
    """
    import tempfile

    try:
        import bsdiff4.core  # noqa: F401
    except ImportError as error:
        raise SystemSetup("cannot make a delta: bsdiff4 is missing; install fussy[publish]") from error
    option = zstd.CompressionParameter
    compressor = zstd.ZstdCompressor(options={option.compression_level: _LEVEL,
                                              option.window_log: patch.window_log(memory)})
    head = json.dumps({"format": patch.FORMAT, "base": base.digest, "manifest": manifest.digest(described),
                       "size": len(described), "memory": memory}).encode() + b"\n"
    wanted = list(contents(base, found, kept))
    there = manifest.total_size(item.entry for item in found) - sum(content.size for content in wanted)
    yield there, compressor.compress(_member(name, patch.HEAD, head))
    with tempfile.NamedTemporaryFile(prefix="fussy-manifest-") as file:
        file.write(described)
        file.flush()
        old = base.root + b"/" + manifest.PATH
        first = Content(file.name, len(described), BASE_MANIFEST, old, len(base.described))
        for i, (size, segment) in enumerate(segments([first, *wanted], memory)):
            yield size, compressor.compress(_member(name, b"%s%d" % (patch.SEGMENTS, i), segment))
    yield 0, compressor.compress(tarball.END) + compressor.flush()


def _member(top: str, path: bytes, data: bytes) -> bytes:
    """Return a member of the tar."""
    entry = manifest.Entry(type="file", path=path.decode(), size=len(data))
    return tarball.head(top, entry) + data + tarball.padding(len(data))
