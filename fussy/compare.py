"""Compares a window of a new file with a part of an old one, for a delta; runs in processes of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fussy.frames import zstd


@dataclass(frozen=True)
class Job:
    """A window of a new content, to be compared with a part of an old file; file names, offsets and lengths.

    ``kept``: a file that has the result, or gets it: where the same two contents are compared for several deltas.
    """

    new: bytes | str
    start: int
    size: int
    old: bytes
    old_start: int
    old_size: int
    kept: str = ""


@dataclass(frozen=True)
class Difference:
    """The steps that make a window: (absolute place in the old file, bytes added to, bytes copied)."""

    steps: Sequence[tuple[int, int, int]]
    changes: bytes
    literals: bytes


def compare(job: Job) -> Difference:
    """Compare the two sides of a job; without an old side, or where it is smaller, the content goes whole."""
    if not job.kept:
        return _compared(job)
    kept = Path(job.kept)
    if kept.exists():
        return msgspec.msgpack.decode(zstd.decompress(kept.read_bytes()), type=Difference)
    found = _compared(job)
    kept.write_bytes(zstd.compress(msgspec.msgpack.encode(found), 1))
    return found


def _compared(job: Job) -> Difference:
    new = _read(job.new, job.start, job.size)
    whole = Difference([(0, 0, len(new))], b"", new)
    if not job.old_size:
        return whole
    old = _read(job.old, job.old_start, job.old_size)
    same = job.start - job.old_start
    if same >= 0 and old[same:same + len(new)] == new:
        return Difference([(job.start, len(new), 0)], bytes(len(new)), b"")
    import bsdiff4.core

    control, changes, literals = bsdiff4.core.diff(old, new)
    values = [bsdiff4.core.decode_int64(control[i:i + 8]) for i in range(0, len(control), 8)]
    steps, place = [], job.old_start
    for added, copied, seek in zip(values[::3], values[1::3], values[2::3], strict=True):
        if added or copied:
            steps.append((place, added, copied))
        place += added + seek
    found = Difference(steps, changes, literals)
    costs = len(zstd.compress(changes, 3)) + len(zstd.compress(literals, 3)) + 4 * len(steps)
    return found if costs < len(zstd.compress(new, 3)) else whole


def _read(file: bytes | str, start: int, size: int) -> bytes:
    with open(file, "rb") as source:
        source.seek(start)
        return source.read(size)
