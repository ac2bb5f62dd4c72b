"""The snapshots in their directory, by release, and whose state the router has now (see paradrop.image.snapshots)."""

import shutil
from pathlib import Path

from fussy import disk
from paradrop.image.places import Root
from paradrop.lib.utils import pdosq

NOBODY, SEVERAL = "", "/"
"""What owner() says if it is not a release: who runs next takes over; or one release ran on what another one had."""
_OLD, _OWNER = ".old~", ".owner"


def everything(root: Root) -> list[Path]:
    """Return all snapshots that are complete."""
    if not root.snapshots.is_dir():
        return []
    return [path for path in root.snapshots.iterdir()
            if not path.name.startswith(".") and path.name.rpartition("~")[2].isdecimal()]


def of(root: Root, release: str) -> list[Path]:
    """Return the snapshots of a release, the newest last."""
    return sorted((path for path in everything(root) if release_of(path) == release), key=_number)


def release_of(path: Path) -> str:
    """Return the name of the release that a snapshot is of."""
    return path.name.rpartition("~")[0]


def next_name(older: list[Path], release: str) -> str:
    """Return the name of a new snapshot of a release that had OLDER ones."""
    return f"{release}~{_number(older[-1]) + 1 if older else 1}"


def discard(root: Root, path: Path) -> None:
    """Delete a snapshot; it loses its name first."""
    old = root.snapshots / _OLD
    remove(old)
    path.rename(old)
    disk.sync_directory(root.snapshots)
    remove(old)


def remove(path: Path) -> None:
    """Delete what is at PATH, if there is something."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def owner(root: Root) -> str:
    """Return the release whose state the router has, NOBODY or SEVERAL."""
    try:
        return (root.snapshots / _OWNER).read_text()
    except FileNotFoundError:
        return NOBODY


def own(root: Root, release: str) -> None:
    """Note whose the router's state is now; durable when this returns."""
    pdosq.replaceFile(root.snapshots / _OWNER, release.encode())


def _number(path: Path) -> int:
    return int(path.name.rpartition("~")[2])
