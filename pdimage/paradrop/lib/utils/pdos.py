"""Operations on files, mounts and programs, under one roof."""

import contextlib
import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from paradrop.lib.utils import pdosq

log = logging.getLogger(__name__)

StrPath = str | os.PathLike[str]

# Seconds after which a program that oscall started is killed
OSCALL_TIMEOUT = 60


def getMountCmd() -> str:
    """Return the program that mounts."""
    return "mount"


def isMount(mnt: StrPath) -> bool:
    """Return True if something is mounted on mnt, as the kernel sees it, bind mounts included."""
    wanted = os.path.realpath(mnt)
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(_unescape(line.split(" ")[4]) == wanted for line in lines)


def ismount(p: StrPath) -> bool:
    """Return True if p is the root of a file system (os.path.ismount)."""
    return Path(p).is_mount()


def doMount(part: StrPath, mnt: StrPath) -> None:
    """Mount a partition, image or directory on mnt.

    Raises:
        OSError: it failed; the message holds what mount said.
    """
    _must([getMountCmd(), "--", str(part), str(mnt)])


def doUnmount(mnt: StrPath) -> None:
    """Unmount mnt.

    Raises:
        OSError: it failed; the message holds what umount said.
    """
    _must(["umount", "--", str(mnt)])


def oscall(cmd: str | Sequence[str], get: bool = False) -> tuple[str, int, str] | None:
    """Run a program, without a shell, for at most OSCALL_TIMEOUT seconds.

    Args:
        cmd: the program and its arguments; a text is cut into words as a shell would, and that is all.
        get: True returns the outcome in any case.

    Returns:
        None if all went well and get is False, else (output, exit status, error output). The status is 127 if the
        program cannot be started and 124 if it took too long.
    """
    argv = shlex.split(cmd) if isinstance(cmd, str) else list(cmd)
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=OSCALL_TIMEOUT,
                              stdin=subprocess.DEVNULL)
        outcome = done.stdout, done.returncode, done.stderr
    except OSError as error:
        outcome = "", 127, f"cannot start {argv[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        outcome = "", 124, f"{argv[0]} took more than {OSCALL_TIMEOUT} seconds"
    if outcome[1] != 0:
        log.debug("%s ended with %d: %s", shlex.join(argv), outcome[1], outcome[2].strip())
    return outcome if get or outcome[1] != 0 else None


def syncFS() -> None:
    """Have everything written to disk before returning."""
    os.sync()


def getFileType(f: StrPath) -> str | None:
    """Return what f is: ``file``, ``directory``, ``link``, ``other``, or None if there is nothing."""
    path = Path(f)
    if path.is_symlink():
        return "link"
    if not path.exists():
        return None
    return "file" if path.is_file() else "directory" if path.is_dir() else "other"


getFiletype = getFileType


def exists(p: StrPath) -> bool:
    """Return True if p is there, whatever it is, also a link to nothing."""
    return os.path.lexists(p)


def isdir(a: StrPath) -> bool:
    """Return True if a is a directory or a link to one."""
    return Path(a).is_dir()


def isfile(a: StrPath) -> bool:
    """Return True if a is a file or a link to one."""
    return Path(a).is_file()


def basename(x: StrPath) -> str:
    """Return the last part of a path."""
    return os.path.basename(x)


def fixpath(p: StrPath) -> str:
    """Return the path as the operating system takes it: ``~`` expanded, as text."""
    return str(Path(p).expanduser())


def unlink(p: StrPath) -> None:
    """Remove a file or link."""
    Path(p).unlink()


def mkdir(p: StrPath) -> None:
    """Make one directory."""
    Path(p).mkdir()


def symlink(a: StrPath, b: StrPath) -> None:
    """Make b a link to a."""
    Path(b).symlink_to(a)


def copy(a: StrPath, b: StrPath) -> None:
    """Copy a file with its mode. b may be a directory."""
    shutil.copy(a, b)


def copytree(a: StrPath, b: StrPath) -> None:
    """Copy a directory's content into b, which may be there already; links stay links."""
    shutil.copytree(a, b, symlinks=True, dirs_exist_ok=True)


def move(a: StrPath, b: StrPath) -> None:
    """Move a file or directory, across file systems too."""
    shutil.move(a, b)


def remove(a: StrPath) -> None:
    """Remove a file, a link or a whole directory. Nothing happens if it is not there."""
    path = Path(a)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def open(p: StrPath, mode: str) -> IO[Any]:
    """Open a file, as the built-in does."""
    return Path(p).open(mode)


def readFile(filename: StrPath, array: bool = True, delimiter: str = "\n") -> list[str] | str | None:
    """Read a text file.

    Args:
        filename: its path.
        array: True returns its lines, False one text.
        delimiter: with array False, what the lines are joined by.

    Returns:
        None if there is no such file.
    """
    try:
        lines = Path(filename).read_text().split("\n")
    except FileNotFoundError:
        return None
    if lines[-1] == "":
        lines.pop()
    return lines if array else delimiter.join(lines)


def writeFile(filename: StrPath, line: str | Sequence[str], mode: str = "a") -> None:
    """Write one line, or each of several, to a file, a line end after each."""
    lines = [line] if isinstance(line, str) else line
    with open(filename, mode) as file:
        file.write("".join(f"{one}\n" for one in lines))


def write(filename: StrPath, data: str, mode: str = "w") -> None:
    """Write a text to a file. With mode ``w`` the file holds all of the new text or all of the old at any moment."""
    if mode == "w":
        pdosq.replaceFile(filename, data.encode())
        return
    with open(filename, mode) as file:
        file.write(data)


def makeExecutable(*args: StrPath) -> None:
    """Make files executable by their owner and readable by all (0744). Those that are not there are skipped."""
    for path in args:
        with contextlib.suppress(FileNotFoundError):
            Path(path).chmod(0o744)


def _must(argv: list[str]) -> None:
    outcome = oscall(argv)
    if outcome:
        raise OSError(f"cannot run {shlex.join(argv)}: {outcome[2].strip()}")


def _unescape(field: str) -> str:
    """Return a path of mountinfo, where blanks are written as octal (proc(5))."""
    return field.encode().decode("unicode_escape").encode("latin-1").decode("utf-8", "surrogateescape")
