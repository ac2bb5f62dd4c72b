"""What was written to a disk, in order, and what a power cut can leave of it. Nothing but values here.

A disk with a volatile cache answers a write before it is on the platter. A flush makes everything durable that was
answered before it; a write with FUA is durable itself when it is answered. Of all else any part may survive a power
cut, in any order, and of a write that was on its way only some sectors (NBD protocol, "Ordering of messages and
writes"; the kernel's ``writeback_cache_control``).
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec

# A sector is written as a whole or not at all.
SECTOR = 512

Policy = Literal["none", "all", "prefix", "subset", "torn"]
POLICIES: tuple[Policy, ...] = get_args(Policy)


class Write(msgspec.Struct, frozen=True, tag="write", array_like=True):
    """LENGTH bytes at OFFSET: ``data``, or zeroes when that is None. ``durable``: whether FUA was asked for."""

    offset: int
    length: int
    data: bytes | None
    durable: bool = False

    def part(self, start: int, end: int) -> "Write":
        """Return what of it lies between two offsets of the disk."""
        start, end = max(start, self.offset), min(end, self.offset + self.length)
        data = None if self.data is None else self.data[start - self.offset:end - self.offset]
        return Write(start, end - start, data, self.durable)

    def sectors(self) -> list["Write"]:
        """Return it cut at the borders of sectors."""
        first = self.offset - self.offset % SECTOR
        return [self.part(start, start + SECTOR) for start in range(first, self.offset + self.length, SECTOR)]


class Flush(msgspec.Struct, frozen=True, tag="flush", array_like=True):
    """Everything before it is durable."""


class Mark(msgspec.Struct, frozen=True, tag="mark", array_like=True):
    """Something that happened at that moment, as whoever recorded the log calls it."""

    text: str


Entry = Write | Flush | Mark


def survivors(window: Sequence[Write], policy: Policy, seed: int) -> list[Write]:
    """Return which writes of WINDOW (those since the last flush) are on the disk after a power cut, in order.

    ``none`` and ``all`` say it; ``prefix``: those up to some write; ``subset``: some of them; ``torn``: some, and one
    more only in some of its sectors. What SEED chooses is the same each time. Durable writes are there in any case.
    """
    chance = random.Random(seed)
    match policy:
        case "none":
            kept = [False] * len(window)
        case "all":
            kept = [True] * len(window)
        case "prefix":
            length = chance.randint(0, len(window))
            kept = [i < length for i in range(len(window))]
        case "subset":
            kept = [chance.random() < 0.5 for _ in window]
        case "torn":
            return list(_torn(window, chance))
    return [write for write, keep in zip(window, kept, strict=True) if keep or write.durable]


def _torn(window: Sequence[Write], chance: random.Random) -> Iterator[Write]:
    tearable = [i for i, write in enumerate(window) if not write.durable and len(write.sectors()) > 1]
    torn = chance.choice(tearable) if tearable else None
    for i, write in enumerate(window):
        if i == torn:
            sectors = write.sectors()
            lost = chance.randrange(len(sectors))
            kept = (lost + chance.randrange(1, len(sectors))) % len(sectors)
            yield from (sector for number, sector in enumerate(sectors)
                        if number != lost and (number == kept or chance.random() < 0.5))
        elif write.durable or chance.random() < 0.5:
            yield write


class State(msgspec.Struct, frozen=True):
    """What a power cut left: the first ``settled`` entries of a log, and ``window``: survivors of those after them.

    ``marks``: what had happened by then. ``name`` says in short which state it is; the same log has the same states.
    """

    name: str
    settled: int
    window: tuple[Write, ...]
    marks: tuple[str, ...]


def crash_states(log: Sequence[Entry], seed: int, samples: int) -> Iterator[State]:
    """Yield what power cuts during LOG can leave: every flush point, and SAMPLES ways to lose writes before the next.

    Samples take turns: all writes but one, a subset, one write torn. Windows without writes have none.
    """
    marks: list[str] = []
    window: list[Write] = []
    start = 0
    yield State("flush 0", 0, (), ())
    number = 0
    for place, entry in enumerate([*log, Flush()]):
        if isinstance(entry, Write):
            window.append(entry)
            continue
        # what happened at a mark counts from there on, so the cut before it is a state of its own
        yield from _lossy(number, place, start, window, tuple(marks), seed, samples)
        if isinstance(entry, Mark):
            marks.append(entry.text)
            yield State(f"mark {entry.text} and nothing since flush {number}", start, (), tuple(marks))
        else:
            number, start, window = number + 1, place, []
            yield State(f"flush {number}", start, (), tuple(marks))


def _lossy(number: int, place: int, start: int, window: Sequence[Write], marks: tuple[str, ...], seed: int,
           samples: int) -> Iterator[State]:
    """Yield the sampled states of the writes between flush NUMBER (entry START) and entry PLACE."""
    ways: tuple[str, ...] = ("all but one", "subset", "torn")
    for sample in range(samples if window else 0):
        own = random.Random(f"{seed} {place} {sample}").getrandbits(32)
        way = ways[sample % len(ways)]
        if way == "all but one":
            lost = own % len(window)
            kept = [write for i, write in enumerate(window) if i != lost or write.durable]
        else:
            kept = survivors(window, "subset" if way == "subset" else "torn", own)
        yield State(f"after flush {number}, before entry {place}: {way}, sample {sample}", start, tuple(kept), marks)


def save(log: Iterable[Entry], path: Path) -> None:
    """Write a log to a file."""
    path.write_bytes(msgspec.msgpack.encode(list(log)))


def load(path: Path) -> list[Entry]:
    """Return the log in a file.

    :raises msgspec.MsgspecError: it is none
    """
    return msgspec.msgpack.decode(path.read_bytes(), type=list[Entry])
