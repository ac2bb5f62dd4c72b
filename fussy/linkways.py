"""The ways to bring a file of a distribution into a system: a symbolic link, a hard link, a copy."""

import filecmp
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Way:
    """One way: ``make(source, place)``, and ``is_done(source, place)`` says whether PLACE is that already.

    ``problem(source, device)`` says why it can't be done in a directory on that device, if so.
    """

    make: Callable[[str, str], None]
    is_done: Callable[[str, str], bool]
    problem: Callable[[str, int], str | None]


def _link(source: str, place: str) -> None:
    os.symlink(source, place)


def is_linked(source: str, place: str) -> bool:
    return os.path.islink(place) and os.readlink(place) == source


def _link_hard(source: str, place: str) -> None:
    os.link(source, place, follow_symlinks=False)


def _is_linked_hard(source: str, place: str) -> bool:
    return os.path.samestat(os.lstat(source), os.lstat(place))


def _copy(source: str, place: str) -> None:
    if os.path.islink(source):
        os.symlink(os.readlink(source), place)
    else:
        # Private until it has its own mode: it may hold secrets, and lies where everybody looks.
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        shutil.copyfile(source, place)
    own(source, place)
    shutil.copystat(source, place, follow_symlinks=False)


def _is_copied(source: str, place: str) -> bool:
    one, other = os.lstat(source), os.lstat(place)
    if os.path.samestat(one, other) or one.st_mode != other.st_mode:
        return False
    if os.geteuid() == 0 and (one.st_uid, one.st_gid) != (other.st_uid, other.st_gid):
        return False
    if stat.S_ISLNK(one.st_mode):
        return os.readlink(source) == os.readlink(place)
    return filecmp.cmp(source, place, shallow=False)


def own(source: str, place: str) -> None:
    """Give PLACE the owner of SOURCE; only root can."""
    if os.geteuid() == 0:
        facts = os.lstat(source)
        os.chown(place, facts.st_uid, facts.st_gid, follow_symlinks=False)


def _elsewhere(path: str, device: int) -> str | None:
    if os.lstat(path).st_dev == device:
        return None
    return "is on another file system, where a hard link can't lead to it (--copy can)"


def _uncopiable(path: str, device: int) -> str | None:
    mode = os.lstat(path).st_mode
    return None if stat.S_ISREG(mode) or stat.S_ISLNK(mode) else "is neither a file nor a link and can't be copied"


SYMBOLIC = Way(_link, is_linked, lambda path, device: None)
HARD = Way(_link_hard, _is_linked_hard, _elsewhere)
COPY = Way(_copy, _is_copied, _uncopiable)
