"""Writes the files of a release into the staging directory. Entries come checked (see fussy.manifest)."""

import errno
import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from fussy import manifest
from fussy.errors import BadBundle, SystemSetup

# Only root can give files away or make devices; another user unpacks as himself.
_IS_ROOT = os.geteuid() == 0
_BLOCK = 1 << 20


class Stage:
    """A release being written at DIRECTORY, which is empty or has nothing that is written again."""

    def __init__(self, directory: bytes) -> None:
        self.directory = directory

    def path(self, name: bytes) -> bytes:
        return self.directory if name == b"." else self.directory + b"/" + name

    def make_directory(self, entry: manifest.Entry) -> None:
        """Make a directory, for now ours alone; :meth:`finish` gives it its mode."""
        if entry.name != b".":
            os.mkdir(self.path(entry.name), 0o700)

    def finish(self, entries: Iterable[manifest.Entry], described: bytes | bytearray | None) -> None:
        """Put the manifest (DESCRIBED) into the release, and give the directories among ENTRIES their facts.

        The deepest come first. Nothing may be written into the release after that.
        """
        if described is not None:
            path = self.path(manifest.PATH)
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            with open(path, "wb") as file:
                file.write(described)
            os.chmod(path, 0o644)
        for entry in reversed([entry for entry in entries if entry.type == "directory"]):
            path = self.path(entry.name)
            self.dress(path, entry)
            os.utime(path, (entry.mtime, entry.mtime))

    def remove(self, names: Iterable[bytes]) -> None:
        """Remove names that are there, a directory with all it holds."""
        for name in names:
            path = self.path(name)
            if stat.S_ISDIR(os.lstat(path).st_mode):
                shutil.rmtree(path)
            else:
                os.unlink(path)

    @contextmanager
    def linking(self, files: Iterable[tuple[manifest.Entry, bytes]]) -> Iterator[None]:
        """Meanwhile, make each entry of FILES a further name of its source; all are there when the block has ended.

        A source that can't have another name (EMLINK) is copied.
        """
        with ThreadPoolExecutor(1) as pool:
            stop = threading.Event()
            links = pool.submit(self._link_all, files, stop)
            try:
                yield
            except BaseException:
                stop.set()
                raise
            links.result()

    def _link_all(self, files: Iterable[tuple[manifest.Entry, bytes]], stop: threading.Event) -> None:
        for entry, source in files:
            if stop.is_set():
                return
            try:
                os.link(source, self.path(entry.name), follow_symlinks=False)
            except OSError as error:
                if error.errno != errno.EMLINK:
                    raise
                if self.write(entry, blocks_of(source)) != entry.sha256:
                    raise BadBundle(f"cannot unpack {os.fsdecode(entry.name)!r}: the file it is shared with changes; "
                                    "stop what writes to it") from error

    def replace(self, entry: manifest.Entry, source: bytes) -> None:
        """Put a further name of SOURCE in the place of a file that was written and turned out to be the same."""
        temporary = self.directory + b"~"
        os.link(source, temporary, follow_symlinks=False)
        os.rename(temporary, self.path(entry.name))

    def link_inside(self, entry: manifest.Entry) -> None:
        """Make a hard link to an earlier file of the release itself."""
        os.link(self.path(entry.link), self.path(entry.name), follow_symlinks=False)

    def write(self, entry: manifest.Entry, blocks: Iterable[bytes | memoryview]) -> str:
        """Write a regular file, once, and return the SHA-256 of what was written, in hex."""
        digest = hashlib.sha256()
        path = self.path(entry.name)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            for block in blocks:
                digest.update(block)
                view = memoryview(block)
                while view:
                    view = view[os.write(descriptor, view):]
            self.dress(descriptor, entry)
            os.utime(descriptor, (entry.mtime, entry.mtime))
        finally:
            os.close(descriptor)
        return digest.hexdigest()

    def make_special(self, entry: manifest.Entry) -> None:
        """Make a symbolic link, fifo or device node."""
        path = self.path(entry.name)
        if entry.type == "symlink":
            os.symlink(entry.link, path)
            if _IS_ROOT:
                os.lchown(path, entry.uid, entry.gid)
            os.utime(path, (entry.mtime, entry.mtime), follow_symlinks=False)
            return
        if entry.type == "fifo":
            os.mkfifo(path, 0o600)
        elif entry.type in ("character", "block"):
            kind = {"character": 0o020000, "block": 0o060000}[entry.type]
            os.mknod(path, kind | 0o600, os.makedev(*entry.device))
        else:
            raise BadBundle(f"cannot unpack {os.fsdecode(entry.name)}: a {entry.type} is not special")
        self.dress(path, entry)
        os.utime(path, (entry.mtime, entry.mtime))

    def dress(self, file: int | bytes, entry: manifest.Entry) -> None:
        """Give a file its owner, mode and extended attributes."""
        # The owner first: changing it clears set-id bits and capabilities (chown(2)).
        if _IS_ROOT:
            os.chown(file, entry.uid, entry.gid)
        os.chmod(file, entry.mode)
        for name, value in entry.attributes().items():
            try:
                os.setxattr(file, name, value)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL, errno.E2BIG, errno.ERANGE):
                    raise
                raise SystemSetup(f"cannot give {os.fsdecode(entry.name)} its extended attribute {name}: "
                                  f"{error.strerror}; install as root, to a file system that has them") from error


def blocks_of(path: bytes) -> Iterator[bytes]:
    """Yield the content of a regular file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while block := os.read(descriptor, _BLOCK):
            yield block
    finally:
        os.close(descriptor)
