"""Puts the files of one part into the tree, which many parts share."""

import filecmp
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from pdimage.errors import PartFailed


def merge(source: Path, tree: Path, what: str) -> tuple[str, ...]:
    """Copy all below SOURCE into TREE with its modes; return the paths of files and links, sorted.

    What is there already must be the same, except that directories join. WHAT names the part in the message.

    :raises PartFailed: something else has one of the paths; all such paths are told
    """
    found = sorted(walk(source))
    clashes = [path for path, _ in found if _clash(source / path, tree / path)]
    if clashes:
        raise PartFailed(f"cannot put {what} into the tree: something else is already at {', '.join(clashes[:10])}"
                         f"{' and more' if len(clashes) > 10 else ''}; leave one of the two out")
    files = []
    tree.mkdir(parents=True, exist_ok=True)
    for path, mode in found:
        if stat.S_ISDIR(mode):
            (tree / path).mkdir(exist_ok=True)
            (tree / path).chmod(stat.S_IMODE(mode))
            continue
        files.append(path)
        if not os.path.lexists(tree / path):
            _copy(source / path, tree / path, mode)
    return tuple(files)


def walk(top: Path) -> Iterator[tuple[str, int]]:
    """Yield (path below TOP, mode) of all that is there, directories before what they hold."""
    for directory, directories, files in os.walk(top):
        for name in [*directories, *files]:
            path = os.path.join(directory, name)
            yield os.path.relpath(path, top), os.lstat(path).st_mode


def _copy(source: Path, target: Path, mode: int) -> None:
    if stat.S_ISLNK(mode):
        target.symlink_to(os.readlink(source))
    else:
        shutil.copyfile(source, target)
        target.chmod(stat.S_IMODE(mode))


def _clash(source: Path, target: Path) -> bool:
    """Tell whether TARGET is there and is something else than SOURCE."""
    try:
        there, new = os.lstat(target).st_mode, os.lstat(source).st_mode
    except OSError:
        return False
    if stat.S_IFMT(there) != stat.S_IFMT(new):
        return True
    if stat.S_ISLNK(new):
        return os.readlink(source) != os.readlink(target)
    return stat.S_ISREG(new) and not filecmp.cmp(source, target, shallow=False)
