"""``pdimage diff``: what changes between two images: components, chutes, files, sizes."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fussy import tree
from fussy.errors import SystemSetup
from fussy.manifest import Entry

SBOM = ".fussy/sbom.cdx.json"
CHUTES = "share/chutes"
Components = Mapping[tuple[str, str], str]
_KINDS = {"pypi": "Python package", "deb": "Debian package", "oci": "container", "docker": "container"}


@dataclass(frozen=True, order=True)
class Change:
    """One thing that differs. kind: ``file``, ``chute``, ``Python package``, …; before, after: version or bytes.

    "" stands for not being there.
    """

    kind: str
    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Difference:
    """All that differs between two trees. Sizes are bytes of files; written: of files that are new or changed."""

    components: tuple[Change, ...]
    chutes: tuple[Change, ...]
    files: tuple[Change, ...]
    size_before: int
    size_after: int
    written: int


def diff(before: Path, after: Path) -> Difference:
    """Compare two trees, or installed releases. Times of files count for nothing.

    :raises SystemSetup: one is not a directory
    """
    for path in (before, after):
        if not path.is_dir():
            raise SystemSetup(f"cannot compare {path}: it is not a directory; name a tree, or an installed release")
    old, new = _entries(before), _entries(after)
    changed = {path for path in {*old, *new} if _facts(old.get(path)) != _facts(new.get(path))}
    chutes = {path.split("/")[2] for path in {*old, *new} if path.startswith(CHUTES + "/") and path.count("/") > 1}
    changed_chutes = {path.split("/")[2] for path in changed if path.startswith(CHUTES + "/") and path.count("/") > 1}
    return Difference(
        components=component_changes(_sbom(before), _sbom(after)),
        chutes=tuple(Change("chute", name, _there(old, name), _there(new, name)) for name in sorted(chutes)
                     if name in changed_chutes),
        files=tuple(Change("file", path, _size(old.get(path)), _size(new.get(path))) for path in sorted(changed)),
        size_before=sum(entry.data_size for entry in old.values()),
        size_after=sum(entry.data_size for entry in new.values()),
        written=sum(new[path].data_size for path in changed if path in new))


def _entries(top: Path) -> Mapping[str, Entry]:
    """Return what is in a tree by path, without directories."""
    found = tree.scan(os.fsencode(top))
    return {os.fsdecode(item.entry.name): item.entry for item in found if item.entry.type != "directory"}


def _facts(entry: Entry | None) -> object:
    return entry and (entry.type, entry.mode, entry.uid, entry.gid, entry.sha256, entry.link, entry.xattrs)


def _size(entry: Entry | None) -> str:
    return "" if entry is None else str(entry.data_size)


def _there(entries: Mapping[str, Entry], chute: str) -> str:
    return "there" if any(path.startswith(f"{CHUTES}/{chute}/") for path in entries) else ""


def _sbom(top: Path) -> Components:
    """Return what a tree's SBOM lists; nothing if it has none."""
    try:
        return components((top / SBOM).read_bytes(), f"{top}/{SBOM}")
    except FileNotFoundError:
        return {}


def components(sbom: bytes, where: str) -> Components:
    """Return the versions of what an SBOM (CycloneDX, JSON) lists, by kind and name. WHERE it lies is for errors.

    :raises SystemSetup: it is damaged
    """
    try:
        found = json.loads(sbom)
    except ValueError as error:
        raise SystemSetup(f"cannot compare: {where} is damaged: {error}; build the image again") from error
    versions: dict[tuple[str, str], list[str]] = {}
    for component in found.get("components", ()):
        key = (_kind(component), str(component.get("name")))
        versions.setdefault(key, []).append(str(component.get("version", "")))
    return {key: ", ".join(sorted(several)) for key, several in versions.items()}


def component_changes(old: Components, new: Components) -> tuple[Change, ...]:
    """Return what differs between the components of two images."""
    pairs = [Change(*key, old.get(key, ""), new.get(key, "")) for key in sorted({*old, *new})]
    return tuple(one for one in pairs if one.before != one.after)


def _kind(component: Mapping[str, Any]) -> str:
    purl = str(component.get("purl", "")).removeprefix("pkg:").partition("/")[0]
    return _KINDS.get(purl, "component")
