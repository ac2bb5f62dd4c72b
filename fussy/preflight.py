"""Everything that can be refused before a byte is written: wrong board, wrong version, too little space."""

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from fussy import __version__, manifest, versions
from fussy.errors import Incompatible, NoSpace
from fussy.target import Target

# What a file system loses to a directory, an inode and block lists beside the contents themselves.
_OVERHEAD = 1.02
_RESERVE = 1 << 20


def check_compatible(described: manifest.Description, *, boards: Collection[str], current: str, floor: str) -> None:
    """Refuse a release that is not for this device.

    :param boards: the names of this board
    :param current: version of the release in use, "" if unknown
    :param floor: version below which nothing may be installed, "" for none
    :raises Incompatible: wrong board, too old an installer, too big a step, or below the floor
    """
    if described.compatible and not set(described.compatible) & set(boards):
        mine = f"this board is {', '.join(sorted(boards))}" if boards else \
            "this device does not know its board: write its name into .fussy/board in the target"
        raise Incompatible(f"cannot install: the firmware is for {', '.join(described.compatible)}, {mine}")
    if described.installer and versions.key(__version__) < versions.key(described.installer):
        raise Incompatible(f"cannot install: the firmware needs fussy {described.installer}, this is {__version__}; "
                           "install a firmware in between that brings it")
    if described.upgrade_from and current and versions.key(current) < versions.key(described.upgrade_from):
        raise Incompatible(f"cannot install: the firmware can follow {described.upgrade_from} or newer, "
                           f"this device has {current}; install a version in between first")
    if floor and (not described.version or versions.key(described.version) < versions.key(floor)):
        raise Incompatible(f"cannot install version {described.version or '(none)'}: this device accepts {floor} or "
                           "newer, older ones have known security faults")


@dataclass(frozen=True)
class Need:
    """What a release takes on a file system, in bytes and inodes."""

    size: int
    inodes: int


def need(entries: Iterable[manifest.Entry], shared: Collection[int], block: int) -> Need:
    """Return what the ENTRIES take when those with an index in SHARED take nothing; BLOCK is the block size."""
    size, inodes = 0, 0
    for i, entry in enumerate(entries):
        if entry.type != "hardlink" and i not in shared:
            inodes += 1
            size += -(-entry.data_size // block) * block if entry.type != "directory" else block
    return Need(int(size * _OVERHEAD) + _RESERVE, inodes)


def check_space(entries: Sequence[manifest.Entry], shared: Collection[int], target: Target) -> None:
    """Refuse a release that does not fit.

    :raises NoSpace: too few free bytes or inodes; the message has the numbers
    """
    there = os.statvfs(target.root)
    needed = need(entries, shared, there.f_frsize)
    free = there.f_bavail * there.f_frsize
    if needed.size > free:
        raise NoSpace(f"cannot install: it needs {needed.size / 1e6:.1f} MB in {target.root}, {free / 1e6:.1f} MB are "
                      "free; run fussy-clean or make room")
    # some file systems have no fixed number of inodes and say 0
    if there.f_files and needed.inodes > there.f_favail:
        raise NoSpace(f"cannot install: it needs {needed.inodes} inodes in {target.root}, {there.f_favail} are free; "
                      "run fussy-clean or remove files")
