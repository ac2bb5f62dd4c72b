"""Operations on files that log nothing, so that whoever writes the logs can use them."""

import fcntl
import os
import stat
from pathlib import Path

from paradrop.lib import settings


def makedirs(p: str | os.PathLike[str]) -> bool:
    """Make a directory and those above it. Return True if it was made, False if it was there.

    Raises:
        OSError: any other difficulty, also when something that is no directory has that name.
    """
    path = Path(p)
    if path.is_dir():
        return False
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if path.is_dir():
            return False
        raise
    return True


def replaceFile(filename: str | os.PathLike[str], content: bytes) -> None:
    """Put content into a file so that, whatever happens, it holds either all of the new or all of the old.

    The order on disk: content of a temporary file in the same directory, its rename, the directory. The file's mode and
    owner stay; a new one is 0644. A symbolic link stays and its target is replaced; but one to a file of a release
    gives way to a file of its own, for releases must stay what was signed.

    Raises:
        OSError: it cannot be written; the old file is untouched.
    """
    path = _place(filename)
    temporary = path.with_name(f".{path.name}.new")
    with os.fdopen(_open_locked(temporary), "wb") as file:
        try:
            file.truncate(0)
            file.write(content)
            file.flush()
            _take_over(Path(filename), file.fileno())
            os.fsync(file.fileno())
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    syncDir(path.parent)


def _place(filename: str | os.PathLike[str]) -> Path:
    """Return the path without links at which a file is to be replaced."""
    directory, name = os.path.split(os.path.abspath(filename))
    path, own = Path(os.path.realpath(filename)), Path(os.path.realpath(directory), name)
    releases = os.path.realpath(settings.FIRMWARE_TARGET)
    return own if path.is_relative_to(releases) and not own.is_relative_to(releases) else path


def syncDir(directory: str | os.PathLike[str]) -> None:
    """Make sure that what was created, renamed or removed in a directory survives a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    """Open a file for writing, making it if need be, as soon as no other writer has it.

    The name is always the same, so that one who was killed leaves no more than one file behind.
    """
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the writer before gave it its final name


def _take_over(old: Path, descriptor: int) -> None:
    """Give the file behind a descriptor the mode and owner of an old file, if there is one."""
    try:
        before = old.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, 0o644)
        return
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
    if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, before.st_uid, before.st_gid)
