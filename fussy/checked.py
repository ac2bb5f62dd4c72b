"""What is known to be whole: files that were checked at install and have not been touched since.

Checking again, at every upgrade, each old file that a new release would share costs more than the upgrade itself. So an
install notes for every file of the release its inode, size, times of modification and change, and its identity (see
:meth:`fussy.manifest.Entry.identity`). Whatever changes content, mode, owner or attributes of a file changes ctime
(inode(7)), which no ordinary call can set back; only then is the file read again. Damage below the file system shows in
``fussy verify``, which reads everything.

The file is a cache: the records, compressed with zstd (RFC 8878), and the SHA-256 of that; if it is missing or damaged,
files are read again.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from fussy import disk, tree
from fussy.frames import zstd
from fussy.target import Target

_FACTS = struct.Struct("<QQqq")
_IDENTITY = 16
_RECORD = _FACTS.size + _IDENTITY
_DIGEST = hashlib.sha256().digest_size


class Record(bytes):
    """The facts of one file when it was last known to be whole: inode, size, mtime and ctime in ns, identity.

    It stays packed, because there is one for each file of a release, and a router has little memory.
    """

    __slots__ = ()

    @property
    def inode(self) -> int:
        return int.from_bytes(self[:8], "little")

    @property
    def identity(self) -> bytes:
        return self[_FACTS.size:]

    def holds(self, facts: os.stat_result) -> bool:
        """Whether FACTS show an untouched file."""
        return self.startswith(_packed(facts))


# Gives the records by inode, loaded when they are first asked for.
Known = Callable[[], Mapping[int, Record]]


def record(facts: os.stat_result, identity: bytes) -> Record:
    """Return the record of a file that is whole now."""
    return Record(_packed(facts) + identity)


def _packed(facts: os.stat_result) -> bytes:
    return _FACTS.pack(facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def load(target: Target) -> dict[int, Record]:
    """Return the records by inode; none if the file is missing or damaged."""
    try:
        data = target.checked.read_bytes()
    except FileNotFoundError:
        return {}
    packed, digest = data[:-_DIGEST], data[-_DIGEST:]
    if hashlib.sha256(packed).digest() != digest:
        return {}
    try:
        records = zstd.decompress(packed)
    except zstd.ZstdError:
        return {}
    found = (Record(records[start:start + _RECORD]) for start in range(0, len(records), _RECORD))
    return {known.inode: known for known in found}


def save(target: Target, records: Iterable[Record]) -> None:
    """Write RECORDS, in place of all others."""
    packed = zstd.compress(b"".join(records), 1)
    disk.replace_file(target.checked, packed + hashlib.sha256(packed).digest(), durable=False)


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
