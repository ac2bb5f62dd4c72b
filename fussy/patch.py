"""Rebuilds the contents of a release from a delta and the release it was made against (made by :mod:`fussy.delta`).

A delta is a bundle like any other, an OpenPGP message around a zstd-compressed tar with one top directory, so
``gpg -d FILE | zstd -d | tar x`` opens it. Its members::

    NAME/.fussy/delta.json       {"format": 1, "base": SHA-256 of the manifest of the base release,
                                  "manifest": SHA-256 of the manifest of the new one, "size": its size,
                                  "memory": MiB that applying it takes}
    NAME/.fussy/delta/0, 1, …    segments

The segments hold, one after the other: the new manifest, then each content that no file of the base has (by SHA-256),
in the order of the new manifest, the first of several same ones, empty ones left out. Everything else the device finds
in the base or has written already, wherever it lies, so a moved file costs nothing.

A segment begins with the lengths of its six parts (32 bit, little-endian); parts of the same kind stand together, for
that is what lets the one zstd stream compress them well:

========= =============================================================================================================
bases     for each content that begins here, the old file to which it refers: 0 none, 1 the manifest of the base, n + 2
          entry n of that manifest
seeks     for each step, how far to move in the old file, from the end of the step before
adds      for each step, how many bytes to take from the old file, with the differences added to them (modulo 256)
copies    for each step, how many bytes of the literals follow
changes   the differences
literals  the bytes that come as they are
========= =============================================================================================================

The first four are numbers in LEB128 (DWARF 5, section 7.6), seeks with the sign in the lowest bit. A content may go
over several segments; a step may not. This is how bsdiff describes a difference (Colin Percival, 2003).

Memory does not depend on the size of files: the window of zstd, one segment with its steps, one block of an old file.
Whoever packs says how much they may take together, from 1 to 32 MiB: a quarter each is for the window and for a
segment, the rest for its steps and the copies that are made on the way. A device refuses what needs more than it
allows (8 MiB unless it was set), before anything is written. This comes on top of what installing any bundle takes.

A delta is signed, yet nothing in it is believed: no segment is larger than its memory allows, nothing is read outside
the old file that is named, no content gets longer than its manifest says, and each must have its SHA-256.
"""

import os
import struct
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from fussy import manifest
from fussy.errors import BadBundle, UnusableDelta
from fussy.oldfiles import Find, OldFiles, broken
from fussy.tarball import Member

FORMAT = 1
HEAD = b".fussy/delta.json"
SEGMENTS = b".fussy/delta/"
PARTS = struct.Struct("<6I")
# MiB that applying a delta takes: what is usual, and the most; zstd's window is 8 MiB then, as for any bundle.
MEMORY, MOST_MEMORY = 8, 32

_BLOCK = 1 << 14
_OUT = 1 << 18
_LOW = int.from_bytes(b"\x7f" * _BLOCK, "little")
_HIGH = int.from_bytes(b"\x80" * _BLOCK, "little")
_ZEROS = bytes(_BLOCK)
_GOES_ON = bytes(range(0x80, 0x100))


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first member of a delta."""

    format: int
    base: str
    manifest: str
    size: int
    memory: int


def window_log(memory: int) -> int:
    """Return the logarithm of zstd's window for as many MiB of memory: a quarter, rounded down to a power of two.

    >>> [1 << window_log(memory) >> 10 for memory in (1, 8, 12, 32)]
    [256, 2048, 2048, 8192]
    """
    return 17 + memory.bit_length()


def largest_segment(memory: int) -> int:
    """Return the bytes that a segment may have."""
    return memory << 18


def most_steps(memory: int) -> int:
    """Return how many steps a segment may have; each takes 24 bytes while it is applied."""
    return memory << 11


def numbers(data: bytes | memoryview) -> Iterator[int]:
    """Yield the LEB128 numbers in DATA, each below 2**63.

    >>> list(numbers(bytes([5, 0x80, 1])))
    [5, 128]
    """
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            yield value
            value = shift = 0
        elif (shift := shift + 7) > 56:
            raise broken("a number is too long")
    if shift:
        raise broken("a number ends too early")


def add(old: bytes, change: bytes) -> bytes:
    """Add the bytes of CHANGE to those of OLD, modulo 256; both have the same length, at most 16 KiB.

    >>> add(bytes([1, 255, 130]), bytes([1, 1, 130]))
    b'\\x02\\x00\\x04'
    """
    if _ZEROS.startswith(change):
        return old
    one, other = int.from_bytes(old, "little"), int.from_bytes(change, "little")
    return (((one & _LOW) + (other & _LOW)) ^ ((one ^ other) & _HIGH)).to_bytes(len(old), "little")


class Patch:
    """A delta whose head has been read; ``manifest`` is the new release's, rebuilt."""

    def __init__(self, head: Member, members: Iterator[Member], search: Find, memory: int = MOST_MEMORY) -> None:
        """Read HEAD and the first of MEMBERS, which follow it. MEMORY: MiB that it may take.

        :raises UnusableDelta: it needs more memory, SEARCH finds no base, or it was altered
        :raises BadBundle: the delta is malformed
        """
        said = _head(head)
        if said.memory > memory:
            raise UnusableDelta(f"cannot install the delta: it needs {said.memory} MiB of memory, {memory} are allowed "
                                "(--memory, or memory in update.toml); allow more, or install the full bundle")
        self._base = OldFiles(search(said.base))
        self._memory = said.memory
        self._segments = _segments(members, said.memory)
        self._steps = _Steps((), (), ())
        self._bases: deque[int] = deque()
        self._changes = self._literals = _Part(b"")
        self.manifest = _filled(said.size, self._content(said.size))
        if manifest.digest(self.manifest) != said.manifest:
            raise broken("the manifest it makes is not the one it promises")

    def members(self, new: manifest.Manifest, missing: set[int], directory: Path) -> Iterator[Member]:
        """Yield the files of NEW with their contents, in order; those not in MISSING only if the delta has them.

        What is written already is read again from DIRECTORY.
        """
        made: dict[str, bytes] = {}
        for i, entry in enumerate(new.entries):
            if entry.type != "file":
                continue
            held = self._base.holds(entry.sha256)
            if entry.size and not held and entry.sha256 not in made:
                data = self._content(entry.size)
                made[entry.sha256] = entry.name
            elif i not in missing:
                continue
            elif held and entry.size:
                data = self._base.content(held, entry.size)
            else:
                data = _written(directory, made[entry.sha256]) if entry.size else iter(())
            yield Member("file", b"/".join((new.name.encode(), entry.name)), b"", 0, 0, 0, 0, entry.size, (0, 0),
                         data=data)
            for _ in data:
                pass
        if self._steps or next(self._segments, None) is not None:
            raise broken("it has more than its manifest lists")

    def check_base(self) -> None:
        """Compare the files of the base that were used with its manifest, to find out why something is wrong.

        :raises UnusableDelta: one was altered
        """
        self._base.check()

    def _content(self, size: int) -> Iterator[bytes]:
        """Yield the next content, which has SIZE bytes, in blocks."""
        if not self._steps:
            self._advance()
        if not self._bases:
            raise broken("a content has no base")
        out, position = bytearray(), 0
        with self._base.opened(self._bases.popleft()) as old:
            while size:
                if not self._steps:
                    self._advance()
                steps = self._batch(size)
                before = []
                for seek, added, _ in steps:
                    position += seek
                    before.append(old.read(position, added))
                    position += added
                after = self._added(b"".join(before))
                start = 0
                for _, added, copied in steps:
                    out += after[start:start + added]
                    start += added
                    if copied:
                        out += self._literals.take(copied)
                    size -= added + copied
                if len(out) >= _OUT:
                    yield bytes(out)
                    out.clear()
        if out:
            yield bytes(out)

    def _batch(self, size: int) -> list[tuple[int, int, int]]:
        """Take some of the steps at hand, which may make SIZE bytes; many small ones are quicker at once."""
        steps, changed = [], 0
        while self._steps and size and changed < _BLOCK:
            step = self._steps.take()
            made = step[1] + step[2]
            if not 0 < made <= size:
                raise broken("a content is longer than its manifest says")
            steps.append(step)
            size -= made
            changed += step[1]
        return steps

    def _added(self, old: bytes) -> bytes:
        """Return OLD with the next changes added."""
        if len(old) <= _BLOCK:
            return add(old, self._changes.take(len(old)))
        return b"".join(add(old[i:i + _BLOCK], self._changes.take(min(_BLOCK, len(old) - i)))
                        for i in range(0, len(old), _BLOCK))

    def _advance(self) -> None:
        """Take the next segment."""
        self._changes = self._literals = _Part(b"")  # frees the last segment before the next one takes memory
        data = next(self._segments, None)
        if data is None:
            raise broken("it ends too early")
        bases, steps, changes, literals = _parsed(data, self._memory)
        self._bases.extend(bases)
        self._steps = steps
        self._changes, self._literals = _Part(changes), _Part(literals)


def check(members: Iterator[Member]) -> int:
    """Check what can be checked of segments without the base; return how many bytes they make.

    :raises BadBundle: they are malformed
    """
    return sum(_parsed(data, MOST_MEMORY)[1].size for data in _segments(members, MOST_MEMORY))


def _parsed(data: bytearray, memory: int) -> tuple[list[int], "_Steps", memoryview, memoryview]:
    """Return bases, steps, changes and literals of a segment, which fit together."""
    if len(data) < PARTS.size:
        raise broken("it ends too early")
    parts, start = [], PARTS.size
    for length in PARTS.unpack_from(data):
        parts.append(memoryview(data)[start:start + length])
        start += length
    if any(_count(part) > most_steps(memory) for part in parts[1:4]):
        raise broken("a segment has too many steps")
    seeks, adds, copies = (array("q", numbers(part)) for part in parts[1:4])
    if start != len(data) or not len(seeks) == len(adds) == len(copies) > 0:
        raise broken("a segment has parts that do not fit together")
    if (sum(adds), sum(copies)) != (len(parts[4]), len(parts[5])):
        raise broken("a segment's steps do not fit its parts")
    return list(numbers(parts[0])), _Steps(seeks, adds, copies), parts[4], parts[5]


def _count(part: memoryview) -> int:
    """Return how many LEB128 numbers end in PART: each at a byte below 0x80."""
    return len(bytes(part).translate(None, _GOES_ON))


def _head(member: Member) -> Head:
    if member.size > 1 << 16:
        raise broken("its head is too long")
    try:
        said = msgspec.json.decode(b"".join(member.data), type=Head)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise broken(f"its head: {error}") from error
    if said.format != FORMAT:
        raise BadBundle(f"cannot read the delta: it has format {said.format}, this fussy reads {FORMAT}; "
                        "install the full bundle")
    if not 0 < said.size <= manifest.MAX_SIZE:
        raise broken(f"a manifest of {said.size} bytes, at most {manifest.MAX_SIZE} are allowed")
    if not 0 < said.memory <= MOST_MEMORY:
        raise broken(f"{said.memory} MiB of memory, from 1 to {MOST_MEMORY} are possible")
    return said


def _segments(members: Iterator[Member], memory: int) -> Iterator[bytearray]:
    for i, member in enumerate(members):
        if member.name.partition(b"/")[2] != b"%s%d" % (SEGMENTS, i) or member.size > largest_segment(memory):
            raise broken(f"{os.fsdecode(member.name)!r} is not segment {i}, or too long")
        yield _filled(member.size, member.data)


def _filled(size: int, blocks: Iterable[bytes | memoryview]) -> bytearray:
    """Return SIZE bytes out of BLOCKS; to join these would take the memory twice."""
    data, start = bytearray(size), 0
    for block in blocks:
        data[start:start + len(block)] = block
        start += len(block)
    return data


class _Steps:
    """The steps of a segment, taken from the first to the last. Seeks have the sign in the lowest bit."""

    def __init__(self, seeks: Sequence[int], adds: Sequence[int], copies: Sequence[int]) -> None:
        self._seeks, self._adds, self._copies = seeks, adds, copies
        self._next = 0

    def __len__(self) -> int:
        return len(self._seeks) - self._next

    @property
    def size(self) -> int:
        """How many bytes they make."""
        return sum(self._adds) + sum(self._copies)

    def take(self) -> tuple[int, int, int]:
        """Return the next step: how far to seek, bytes to add to, bytes to copy."""
        i = self._next
        self._next += 1
        return (self._seeks[i] >> 1) ^ -(self._seeks[i] & 1), self._adds[i], self._copies[i]


class _Part:
    """A part of a segment, taken from its beginning to its end."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._start = 0

    def take(self, size: int) -> bytes:
        taken = bytes(self._data[self._start:self._start + size])
        if len(taken) != size:
            raise broken("a part is shorter than its steps need")
        self._start += size
        return taken


def _written(directory: Path, name: bytes) -> Iterator[bytes]:
    with open(os.path.join(os.fsencode(directory), name), "rb") as file:
        while block := file.read(_OUT):
            yield block
