"""Writes files into a tree that is being built; the one place that decides modes, times and owners."""

import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from pdimage import threads

# The time of all files where SOURCE_DATE_EPOCH is not set: 1980-01-01, the first that zip archives can hold.
EPOCH = 315532800
# What may be read by root alone: a device's keyring holds the secret half of its key.
PRIVATE = "etc/fussy/keys"
# Debian packages say what modes their files have, such as the setuid bit.
_MODES_KEPT = "debian"


def write(tree: Path, target: str, content: bytes | str, mode: int = 0o644) -> None:
    """Write the file TARGET of TREE; what was there before is replaced."""
    path = _cleared(tree, target)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


def copy(tree: Path, target: str, source: Path) -> None:
    """Copy a file or a symbolic link to TARGET of TREE; what was there before is replaced."""
    _copy(os.fspath(source), os.fspath(_cleared(tree, target)))


def copy_all(tree: Path, directories: Sequence[str], files: Mapping[str, str]) -> None:
    """Make DIRECTORIES of TREE, then copy FILES (sources by their place in the tree) into them.

    What was there before is replaced. The directories that others lie in come first; TREE itself need not be named.
    """
    top = os.fspath(tree)
    for directory in directories:
        _have_directory(os.path.join(top, directory))
    threads.each(lambda item: _replace(item[1], os.path.join(top, item[0])), list(files.items()))


def _replace(source: str, place: str) -> None:
    _clear(place)
    _copy(source, place)


def _copy(source: str, place: str) -> None:
    if os.path.islink(source):
        os.symlink(os.readlink(source), place)
    else:
        shutil.copyfile(source, place)
        os.chmod(place, 0o755 if os.stat(source).st_mode & 0o100 else 0o644)


def make_directory(tree: Path, target: str) -> Path:
    """Have the directory TARGET in TREE; whatever else is there is replaced, and no link is followed."""
    path = os.fspath(tree)
    for name in target.split("/"):
        path = os.path.join(path, name)
        _have_directory(path)
    return Path(path)


def _have_directory(path: str) -> None:
    try:
        os.mkdir(path)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            os.mkdir(path)


def _cleared(tree: Path, target: str) -> Path:
    """Return the path of TARGET with the directories above it made, and nothing there."""
    above, _, name = target.rpartition("/")
    path = (make_directory(tree, above) if above else tree) / name
    _clear(os.fspath(path))
    return path


def _clear(path: str) -> None:
    """Remove what is at PATH."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def epoch(environment: Mapping[str, str] = os.environ) -> int:
    """Return the time that all files of a tree get, in seconds of Unix time (see reproducible-builds.org)."""
    text = environment.get("SOURCE_DATE_EPOCH", "")
    return int(text) if text.isdecimal() else EPOCH


def normalise(tree: Path, time: int, modes: Mapping[str, int]) -> None:
    """Give everything in TREE modes, owners and times that depend on what it is, not on who built it where.

    Files are 0644, or 0755 if their owner may run them, directories 0755, save those with a mode of their own in
    MODES (by path) and what came out of Debian packages; the keyring is private. Owners are root if the builder is.
    """
    root = os.geteuid() == 0
    for directory, names, files in os.walk(tree, topdown=False):
        inside = os.fspath(directory).removeprefix(os.fspath(tree)).lstrip("/")
        for name in (*files, *names):
            target = os.path.join(inside, name)
            _normalise(os.path.join(directory, name), target, time, root, modes.get(target))
    _normalise(os.fspath(tree), ".", time, root, None)


def _normalise(path: str, inside: str, time: int, root: bool, mode: int | None) -> None:
    facts = os.lstat(path)
    if root and (facts.st_uid or facts.st_gid):
        os.chown(path, 0, 0, follow_symlinks=False)
    if not stat.S_ISLNK(facts.st_mode) and inside.partition("/")[0] != _MODES_KEPT:
        if mode is None:
            mode = 0o755 if stat.S_ISDIR(facts.st_mode) or facts.st_mode & 0o100 else 0o644
        if inside == PRIVATE or inside.startswith(PRIVATE + "/"):
            mode &= 0o700
        if stat.S_IMODE(facts.st_mode) != mode:
            os.chmod(path, mode)
    os.utime(path, (time, time), follow_symlinks=False)
