"""Builds our own images: the version's description, and what each package adds to it, by :func:`pdimage.build.build`.

Descriptions are based on one another, one file for each package, so that their lists join as they do for everybody
(:mod:`pdimage.inherit`). Nothing of a request reaches them but names that were checked.
"""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fussy import ondemand
from pdimage import merge
from pdimage.build import build as build_tree
from pdimage.check import check
from pdimage.description import Image
from pdimage.errors import Mistakes
from pdimage.server import packages
from pdimage.server.builders import Impossible, Product, Task, Tell, TooBig, size_told
from pdimage.server.catalogue import Board

DEFAULTS = "etc/uci-defaults/99-server-defaults"
# Keys of a description that are paths, relative to the catalogue.
_PATHS = {"overlay": "", "keys": "", "hooks.pre_install": "", "hooks.post_install": "", "platform.requirements": "",
          "platform.wheels": "", "chutes": "path archive", "templates": "source"}


def manifest(task: Task, tell: Tell) -> Mapping[str, str]:
    """Return the packages with versions; chutes that can't be together on the board are refused."""
    assert task.target is not None
    known = task.target.packages
    chosen = selection(task)
    if found := packages.conflicts(known, chosen):
        raise Impossible(*found)
    tell(f"packages: {', '.join(chosen)}")
    _image(task, chosen)
    return {name: known[name].version for name in chosen}


def selection(task: Task) -> tuple[str, ...]:
    """Return the packages of the image: those of the request, what they need, and the board's own ones unless the
    request is for nothing but its own."""
    assert task.target is not None
    asked, taken_away = wanted(task)
    chosen = packages.complete(task.target.packages, asked)
    if left := sorted(taken_away & set(chosen)):
        who = [name for name in chosen if set(left) & set(task.target.packages[name].needs)]
        raise Impossible(f"{', '.join(left)} can't be left out: {', '.join(who) or 'it'} needs it")
    return chosen


def wanted(task: Task) -> tuple[set[str], set[str]]:
    """Return the packages that are asked for, and those that must not be there."""
    assert task.target is not None
    listed = set(task.request.packages) - packages.PLATFORM
    taken_away = {name[1:] for name in listed if name.startswith("-")}
    asked = {name for name in listed if not name.startswith("-")}
    if not task.request.diff_packages:
        asked |= {*task.target.defaults, *task.board.packages} - taken_away
    return asked, taken_away


def build(task: Task, manifest: Mapping[str, str], tell: Tell) -> Product:
    """Build the tree, and refuse one that is larger than the board's storage."""
    image = _image(task, tuple(manifest))
    built = build_tree(image, Path(task.place, image.name), cache=Path(task.cache, "images"),
                       engine=task.engine or None, progress=tell)
    size = tree_size(built.tree)
    if task.board.storage and size > task.board.storage:
        raise TooBig(size_told(size, task.board.storage, task.board))
    return Product(tree=str(built.tree), details={"title": task.board.model, "installed_size": size})


def tree_size(tree: Path) -> int:
    """Return the bytes that a tree takes on a device: files in blocks of 4096, each file once."""
    sizes = {}
    for path, mode in merge.walk(tree):
        facts = os.lstat(tree / path)
        sizes[facts.st_ino] = -(-facts.st_size // 4096) * 4096 if stat.S_ISREG(mode) else 4096
    return sum(sizes.values())


def _image(task: Task, chosen: tuple[str, ...]) -> Image:
    """Write the descriptions and check them.

    :raises Impossible: chutes are in each other's way, with all reasons
    """
    assert task.target is not None
    place = Path(task.place, "descriptions")
    place.mkdir(exist_ok=True)
    base = Path(task.root, task.distro.versions[task.request.version].image)
    for name in chosen:
        base = _write(place / f"{name}.yaml", base, _absolute(task.target.packages[name].image, Path(task.root)))
    try:
        return check(_write(place / "_image.yaml", base, _top(task)), task.board.profile)
    except Mistakes as error:
        raise Impossible(*[f"{Path(one.file).parent.name}: {one.path}: {one.text}" for one in error.mistakes]) \
            from error


def compatible(board: Board) -> tuple[str, ...]:
    """Return what a board may call itself: the profile ``generic`` alone would be the board of too many targets."""
    own = {board.profile, *board.names} - {"generic", "Generic"}
    return tuple(sorted({*own, f"{board.target}/{board.profile}"}))


def _top(task: Task) -> dict[str, Any]:
    """Return what the request decides: name, version, board, metadata, first-boot script."""
    request, board = task.request, task.board
    top: dict[str, Any] = {
        "name": f"{request.distro}-{request.version}-{task.hash[:12]}", "version": request.version,
        "compatible": list(compatible(board)),
        "metadata": {ondemand.FIELD: task.hash, "distro": request.distro, "target": request.target,
                     "profile": request.profile, ondemand.PACKAGES: _told(task)},
        "boards": {board.profile: {"resources": board.resources} if board.resources else {}},
    }
    if task.defaults:
        file = Path(task.place, "defaults", DEFAULTS)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(task.defaults, encoding="utf-8")
        top["overlay"] = [str(Path(task.place, "defaults"))]
    return top


def _told(task: Task) -> str:
    """Return the packages that the device will name when it asks what is new: not those that others brought in."""
    assert task.target is not None
    known = task.target.packages
    return " ".join(f"{name}={known[name].version}" for name in sorted(wanted(task)[0]))


def _write(file: Path, base: Path, content: Mapping[str, Any]) -> Path:
    file.write_text(json.dumps({"base": str(base), **content}), encoding="utf-8")
    return file


def _absolute(content: Mapping[str, Any], root: Path, above: str = "") -> dict[str, Any]:
    """Return a part of a description with full paths."""
    return {key: _resolved(value, root, f"{above}{key}") for key, value in content.items()}


def _resolved(value: Any, root: Path, where: str) -> Any:
    if isinstance(value, dict):
        return _absolute(value, root, f"{where}.")
    if where not in _PATHS:
        return value
    if isinstance(value, list):
        return [{key: str(root / item) if key in _PATHS[where].split() else item for key, item in one.items()}
                if isinstance(one, dict) else str(root / str(one)) for one in value]
    return str(root / str(value))
