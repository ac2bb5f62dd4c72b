"""Writes files into a tree that is being built; the one place that decides modes, times and owners."""

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

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
    path = _cleared(tree, target)
    if source.is_symlink():
        path.symlink_to(os.readlink(source))
    else:
        shutil.copyfile(source, path)
        path.chmod(0o755 if os.stat(source).st_mode & 0o100 else 0o644)


def make_directory(tree: Path, target: str) -> Path:
    """Have the directory TARGET in TREE; whatever else is there is replaced, and no link is followed."""
    path = tree
    for name in target.split("/"):
        path /= name
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            path.unlink()
        path.mkdir(exist_ok=True)
    return path


def _cleared(tree: Path, target: str) -> Path:
    """Return the path of TARGET with the directories above it made, and nothing there."""
    above, _, name = target.rpartition("/")
    path = (make_directory(tree, above) if above else tree) / name
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return path


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
        inside = os.path.relpath(directory, tree)
        for name in (*files, *names):
            target = os.path.normpath(os.path.join(inside, name))
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
