"""Reads a directory into manifest entries: types, modes, owners, digests, links, extended attributes."""

import ctypes
import hashlib
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import msgspec

from fussy import manifest
from fussy.errors import FussyError

log = logging.getLogger(__name__)

# Version control data never belongs to a firmware (as fussy 1.0 did).
ALWAYS_EXCLUDED = frozenset({b".svn", b".bzr", b".git"})
_fnmatch = ctypes.CDLL(None).fnmatch
_BLOCK = 1 << 18
# Disks answer several readers sooner than one, whatever the number of cores.
_READERS = 8
# Files that a reader takes at once.
_BATCH = 32


@dataclass(frozen=True)
class Found:
    """One file of the tree, with the facts that tell whether it was changed since."""

    entry: manifest.Entry
    file: bytes
    facts: os.stat_result

    def unchanged(self, facts: os.stat_result) -> bool:
        """Whether FACTS, taken later, are of the same content."""
        return stamp(facts) == stamp(self.facts)


def stamp(facts: os.stat_result) -> tuple[int, int, int, int]:
    """Return what changes whenever a file's content does: inode, size, times of change (inode(7))."""
    return facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def scan(root: bytes, *, excludes: Iterable[str] = (), hashed: Callable[[int], object] | None = None) -> list[Found]:
    """Read the tree at ROOT: directories first, then everything else, each in the order of the bytes of its path.

    EXCLUDES are patterns as tar's ``--exclude`` takes them: shell wildcards (``*`` matches ``/`` too) matched against
    ``NAME/path`` and against what follows any slash in it; an excluded directory goes with all it holds. A slash at
    the end of a pattern means nothing (tar would match nothing). Sockets are left out, as tar does. HASHED is called
    with the number of bytes read, from several threads.

    :raises FussyError: the patterns leave out the whole tree, or a file is being changed.
    :raises OSError: something can't be read.
    """
    excluded, top = _excluder(excludes), os.path.basename(root)
    if excluded(top):
        raise FussyError(f"cannot pack {os.fsdecode(root)}: a pattern of --exclude matches it as a whole; "
                         "name what is to be left out more exactly")
    found = list(_walk(root, excluded, top))
    found.sort(key=lambda item: (item.entry.type != "directory", item.entry.name))
    found = list(_join_links(found))
    starts = range(0, len(found), _BATCH)
    with ThreadPoolExecutor(_READERS) as pool:
        batches = pool.map(lambda start: [_digested(item, hashed) for item in found[start:start + _BATCH]], starts)
        return [item for batch in batches for item in batch]


def _excluder(excludes: Iterable[str]) -> Callable[[bytes], bool]:
    patterns = [os.fsencode(pattern.rstrip("/")) for pattern in excludes]

    def excluded(path: bytes) -> bool:
        if path.rpartition(b"/")[2] in ALWAYS_EXCLUDED:
            return True
        if not patterns:
            return False
        parts = path.split(b"/")
        tails = [b"/".join(parts[i:]) for i in range(len(parts))]
        # tar asks fnmatch(3) too; Python's fnmatch knows neither backslashes nor [^a] nor [[:alpha:]]
        return any(_fnmatch(pattern, tail, 0) == 0 for pattern in patterns for tail in tails)

    return excluded


def _walk(root: bytes, excluded: Callable[[bytes], bool], top: bytes) -> Iterator[Found]:
    """Yield everything below ROOT, without digests, in no particular order."""
    yield _found(root, b".")
    pending = [(root, b"")]
    while pending:
        directory, prefix = pending.pop()
        with os.scandir(directory) as items:
            for item in items:
                path = prefix + item.name
                if excluded(top + b"/" + path) or path == manifest.PATH:
                    continue
                if stat.S_ISSOCK(item.stat(follow_symlinks=False).st_mode):
                    log.warning("leaving out %s: a socket", os.fsdecode(path))
                    continue
                found = _found(item.path, path)
                yield found
                if found.entry.type == "directory":
                    pending.append((item.path, path + b"/"))


def _found(file: bytes, path: bytes) -> Found:
    facts = os.lstat(file)
    kind = kind_of(facts.st_mode)
    text, raw = manifest.spell(path)
    target, raw_target = manifest.spell(os.readlink(file)) if kind == "symlink" else ("", "")
    device = (os.major(facts.st_rdev), os.minor(facts.st_rdev)) if kind in ("character", "block") else (0, 0)
    xattrs = xattrs_of(file)
    if not all(map(manifest.usable_attribute, xattrs)):
        raise FussyError(f"cannot pack {os.fsdecode(file)}: it has an extended attribute whose name is not UTF-8; "
                         "remove it with setfattr -x")
    return Found(manifest.Entry(
        type=kind, path=text, raw_path=raw, mode=0o777 if kind == "symlink" else stat.S_IMODE(facts.st_mode),
        uid=facts.st_uid, gid=facts.st_gid, mtime=int(facts.st_mtime), size=facts.st_size if kind == "file" else 0,
        target=target, raw_target=raw_target, device=device, xattrs=xattrs,
    ), file, facts)


def kind_of(mode: int) -> manifest.Type:
    """Return the manifest's word for a file type of inode(7)."""
    kinds: dict[int, manifest.Type] = {
        stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
        stat.S_IFCHR: "character", stat.S_IFBLK: "block",
    }
    return kinds[stat.S_IFMT(mode)]


def xattrs_of(file: bytes) -> dict[str, str]:
    """Return the extended attributes that belong to the firmware, values percent-encoded.

    Labels that the running system gives to every file (SELinux, IMA) are not the firmware's.
    """
    names = [name for name in os.listxattr(file, follow_symlinks=False)
             if name.startswith(("user.", "system.posix_acl_")) or name == "security.capability"]
    return manifest.quoted({name: os.getxattr(file, name, follow_symlinks=False) for name in names})


def _join_links(found: Sequence[Found]) -> Iterator[Found]:
    """Yield FOUND with every further name of a file as a hard link to its first."""
    first: dict[tuple[int, int], manifest.Entry] = {}
    for item in found:
        inode = (item.facts.st_dev, item.facts.st_ino)
        if item.entry.type != "file" or item.facts.st_nlink == 1:
            yield item
        elif inode in first:
            entry = first[inode]
            linked = msgspec.structs.replace(item.entry, type="hardlink", size=0, target=entry.path,
                                             raw_target=entry.raw_path, xattrs={})
            yield replace(item, entry=linked)
        else:
            first[inode] = item.entry
            yield item


def _digested(item: Found, hashed: Callable[[int], object] | None) -> Found:
    """Return ITEM with the digest of its content, if it is a regular file."""
    if item.entry.type != "file":
        return item
    descriptor = os.open(item.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        digest = digest_of(descriptor, hashed)
        if not item.unchanged(os.fstat(descriptor)):
            raise changed(item.file)
    finally:
        os.close(descriptor)
    return Found(msgspec.structs.replace(item.entry, sha256=digest), item.file, item.facts)


def digest_of(descriptor: int, hashed: Callable[[int], object] | None = None) -> str:
    """Return the SHA-256 of an open file's content from its current position, in hex."""
    digest = hashlib.sha256()
    buffer = _buffers.block
    while count := os.readv(descriptor, [buffer]):
        digest.update(buffer[:count])
        if hashed:
            hashed(count)
    return digest.hexdigest()


class _Buffers(threading.local):
    """A block to read into, one a thread; a new one for each file costs more than reading a small file."""

    def __init__(self) -> None:
        self.block = memoryview(bytearray(_BLOCK))


_buffers = _Buffers()


def changed(file: bytes) -> FussyError:
    """Return the error that says a file was written to while it was packed."""
    return FussyError(f"cannot pack {os.fsdecode(file)}: it is being changed; stop what writes to it and pack again")


def differences(
    file: bytes, facts: os.stat_result, entry: manifest.Entry, digest: Callable[[int], str] = digest_of
) -> list[str]:
    """Return in words how the file, with FACTS of lstat(2), differs from ENTRY.

    Its content is read, by DIGEST, if all else fits.
    """
    found = []
    if kind_of(facts.st_mode) != ("file" if entry.type == "hardlink" else entry.type):
        return [f"is a {kind_of(facts.st_mode)}, not a {entry.type}"]
    if (facts.st_uid, facts.st_gid) != (entry.uid, entry.gid):
        found.append(f"belongs to {facts.st_uid}:{facts.st_gid}, not {entry.uid}:{entry.gid}")
    if entry.type == "symlink":
        if os.readlink(file) != entry.link:
            found.append(f"points to {os.fsdecode(os.readlink(file))}, not {os.fsdecode(entry.link)}")
        return found
    if stat.S_IMODE(facts.st_mode) != entry.mode:
        found.append(f"has mode {stat.S_IMODE(facts.st_mode):04o}, not {entry.mode:04o}")
    if entry.type in ("character", "block") and (os.major(facts.st_rdev), os.minor(facts.st_rdev)) != entry.device:
        found.append("is another device")
    if entry.type != "hardlink" and xattrs_of(file) != entry.xattrs:
        found.append("has other extended attributes")
    if entry.type == "file" and facts.st_size != entry.size:
        found.append(f"has {facts.st_size} bytes, not {entry.size}")
    elif entry.type == "file" and not found:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if digest(descriptor) != entry.sha256:
                found.append("has other content")
        finally:
            os.close(descriptor)
    return found


@contextmanager
def listed(directory: bytes) -> Iterator[Iterator["os.DirEntry[str]"]]:
    """Open a directory to read its names; the time of that is not noted in it, which would be a write for each."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(directory, flags | os.O_NOATIME)
    except PermissionError:  # only its owner can have that
        descriptor = os.open(directory, flags)
    try:
        with os.scandir(descriptor) as items:
            yield items
    finally:
        os.close(descriptor)


def names(root: bytes) -> Iterator[bytes]:
    """Yield the path of everything below ROOT, relative to it."""
    pending = [b""]
    while pending:
        prefix = pending.pop()
        with os.scandir(os.path.join(root, prefix)) as items:
            for item in items:
                yield prefix + item.name
                if item.is_dir(follow_symlinks=False):
                    pending.append(prefix + item.name + b"/")
