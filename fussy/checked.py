"""What is known to be whole: files that were checked at install and have not been touched since.

Checking again, at every upgrade, each old file that a new release would share costs more than the upgrade itself. So an
install notes for every file of the release its inode, size, times of modification and change, and its identity (see
:meth:`fussy.manifest.Entry.identity`). Whatever changes content, mode, owner or attributes of a file changes ctime
(inode(7)), which no ordinary call can set back; only then is the file read again. Damage below the file system shows in
``fussy verify``, which reads everything.

The file is a cache: ``RECORDS SHA-256``; if it is missing or damaged, files are read again.
"""

import hashlib
import os
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from fussy import disk, tree
from fussy.target import Target

_RECORD = struct.Struct("<QQqq16s")
_DIGEST = hashlib.sha256().digest_size


class Record(NamedTuple):
    """The facts of one file when it was last known to be whole."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    identity: bytes

    def holds(self, facts: os.stat_result) -> bool:
        """Whether FACTS show an untouched file."""
        return self[:4] == (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def record(facts: os.stat_result, identity: bytes) -> Record:
    """Return the record of a file that is whole now."""
    return Record(facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, identity)


def load(target: Target) -> dict[int, Record]:
    """Return the records by inode; none if the file is missing or damaged."""
    try:
        data = target.checked.read_bytes()
    except FileNotFoundError:
        return {}
    records, digest = data[:-_DIGEST], data[-_DIGEST:]
    if hashlib.sha256(records).digest() != digest or len(records) % _RECORD.size:
        return {}
    return {fields[0]: Record(*fields) for fields in _RECORD.iter_unpack(records)}


def save(target: Target, records: list[Record]) -> None:
    """Write RECORDS, in place of all others."""
    data = b"".join(_RECORD.pack(*item) for item in records)
    disk.replace_file(target.checked, data + hashlib.sha256(data).digest(), durable=False)


def forget(target: Target, inodes: Collection[int]) -> None:
    """Forget what was known of files that turned out to be broken, so that no release comes to share them."""
    records = load(target)
    if not records.keys().isdisjoint(inodes):
        save(target, [known for inode, known in records.items() if inode not in inodes])


@contextmanager
def kept(target: Target) -> Iterator[None]:
    """Keep the records true while other releases are deleted.

    Deleting one name of a file changes the ctime of the inode that its other names share.
    """
    records = load(target)
    release = target.current_release()
    whole: list[tuple[str, Record]] = []
    if release and records:
        for path in files(release):
            facts = os.lstat(path)
            known = records.get(facts.st_ino)
            if known and known.holds(facts):
                whole.append((path, known))
    try:
        yield
    finally:
        if whole:
            save(target, [record(os.lstat(path), known.identity) for path, known in whole])


def files(release: Path) -> Iterator[str]:
    """Yield the regular files of a release (fast: nothing but names and types is read)."""
    pending = [os.fspath(release)]
    while pending:
        directory = pending.pop()
        with suppress(FileNotFoundError), tree.listed(os.fsencode(directory)) as items:
            for item in items:
                path = f"{directory}/{item.name}"
                if item.is_dir(follow_symlinks=False):
                    pending.append(path)
                elif item.is_file(follow_symlinks=False):
                    yield path
