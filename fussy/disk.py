"""The order of things on disk. Everything that must survive a power cut is written here, and nowhere else.

What each step may rely on (measured on ext4, xfs, btrfs, f2fs and overlayfs by replaying write logs to every flush):

1. A release is written into the private staging directory, then :func:`sync_filesystem`: one ``syncfs(2)`` of the
   target makes all its contents durable as well as a sync of each file, with a tenth of the flushes. Without it a
   power cut leaves a ``current`` that points at files with wrong content.
2. :func:`publish` renames it to its final name and syncs the directory: a name without ``.`` in front is a complete
   release, always.
3. :func:`replace_file` makes the record of the transaction durable before that, and again before the first hook runs:
   temporary file, sync (``fsync``, or ``syncfs`` with the release that was just written), rename, ``fsync`` of the
   directory.
4. :func:`swap_link` makes the new link under another name, syncs the file system (a link that a rename replaces may be
   empty after a power cut otherwise), renames it over ``current``, and syncs the directory before it returns: only
   then may anybody say "done".
5. Only then is anything deleted: :func:`discard` renames it into the trash first, so that half a release never has the
   name of a whole one. :func:`withdraw` is that step, also for a release of which something is kept.

A ``volatile`` overlay turns each sync into nothing (:func:`check_durable` refuses it).
"""

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from fussy.errors import SystemSetup

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, path: Path) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fspath(path))


def sync_filesystem(path: Path) -> None:
    """Make everything on the file system of PATH durable (syncfs(2)); errors of earlier writes surface here."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc().syncfs(descriptor), path)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes, *, durable: bool = True, everything: bool = False) -> None:
    """Write DATA to PATH so that a reader sees the old content or the new, also after a power cut when DURABLE.

    With EVERYTHING, all that was written to the file system before is durable then as well. That writes less than two
    syncs, one after the other, of metadata that the file shares with the rest.
    """
    temporary = _write_beside(path, data, 0o600, durable=durable and not everything)
    if everything:
        sync_filesystem(path.parent)
    temporary.rename(path)
    if durable:
        sync_directory(path.parent)


def create_file(path: Path, data: bytes, mode: int) -> None:
    """Write DATA to a new file: after a power cut there is all of it or nothing; durable when this returns.

    :raises FileExistsError: the name is taken
    """
    _rename(_write_beside(path, data, mode, durable=True), path, _RENAME_NOREPLACE)
    sync_directory(path.parent)


def _write_beside(path: Path, data: bytes, mode: int, *, durable: bool) -> Path:
    temporary = path.with_name(path.name + "~")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        if durable:
            os.fsync(descriptor)
    return temporary


def put(made: Sequence[tuple[Path, Path]], aside: Path) -> None:
    """Give each file or directory its place, in the stead of what is there; durable with its content at the end.

    MADE has pairs of what was made, on the same file system, and its place; a file may be given several. At each moment
    a place has what was there before or what was made. ASIDE is a name for what is under way.
    """
    if not made:
        return
    sync_filesystem(aside.parent)
    for source, place in made:
        if source.is_dir() and not source.is_symlink():
            source.rename(place)
            continue
        aside.unlink(missing_ok=True)
        os.link(source, aside, follow_symlinks=False)
        aside.rename(place)
        aside.unlink(missing_ok=True)  # rename(2) does nothing between two names of one file
    sync_filesystem(aside.parent)


def publish(staged: Path, final: Path) -> None:
    """Give a staged release its final name, durable with all its contents when this returns.

    :raises FileExistsError: the name is taken.
    """
    sync_filesystem(staged)
    _rename(staged, final, _RENAME_NOREPLACE)
    sync_directory(final.parent)
    sync_directory(staged.parent)


def swap_link(link: Path, destination: str) -> None:
    """Make LINK a symbolic link to DESTINATION in one step; durable when this returns.

    :raises IsADirectoryError: LINK is a directory.
    """
    temporary = link.with_name(link.name + "~")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(destination)
    sync_filesystem(link.parent)
    temporary.rename(link)
    sync_directory(link.parent)


def remove_link(link: Path) -> None:
    """Remove a symbolic link, durable when this returns; it need not be there."""
    link.unlink(missing_ok=True)
    sync_directory(link.parent)


def exchange(one: Path, other: Path) -> None:
    """Let two names change places in one step (renameat2(2), RENAME_EXCHANGE)."""
    _rename(one, other, _RENAME_EXCHANGE)
    sync_directory(one.parent)


def _rename(old: Path, new: Path, flags: int) -> None:
    result = _libc().renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags)
    if result != 0 and ctypes.get_errno() in (errno.EINVAL, errno.ENOSYS) and flags == _RENAME_NOREPLACE:
        # A file system without the flag; the target's lock keeps others of us away.
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(new))
        old.rename(new)
        return
    _check(result, new)


def discard(path: Path, trash: Path) -> None:
    """Delete a tree: its name goes first, in one durable step. TRASH is a directory on the same file system."""
    trash.mkdir(mode=0o700, exist_ok=True)
    withdraw(path, Path(tempfile.mkdtemp(dir=trash)) / "tree")
    empty(trash)


def withdraw(release: Path, place: Path) -> None:
    """Rename a release to PLACE, where nobody takes it for one; durable when this returns, so it may be changed."""
    release.rename(place)
    sync_directory(release.parent)


def empty(directory: Path) -> None:
    """Delete what a directory holds, whatever its modes; it need not be there."""
    if directory.is_dir() and not directory.is_symlink():
        for item in directory.iterdir():
            if item.is_symlink() or not item.is_dir():
                item.unlink()
            else:
                shutil.rmtree(item)


def free(path: Path) -> int:
    """Return the bytes that are free for this user on the file system of PATH."""
    there = os.statvfs(path)
    return there.f_bavail * there.f_frsize


def check_durable(path: Path) -> None:
    """Refuse a directory whose file system ignores syncs.

    :raises SystemSetup: it lies on an overlay mounted ``volatile`` (kernel documentation, overlayfs).
    """
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        kind, options = fields[fields.index("-") + 1], fields[-1].split(",")
        # newer kernels spell the option as fsync=volatile
        if fields[2] == number and kind == "overlay" and {"volatile", "fsync=volatile"} & set(options):
            raise SystemSetup(f"cannot install to {path}: it lies on a volatile overlay, which loses everything at a "
                              "power cut; choose a target on a real file system with --target")
