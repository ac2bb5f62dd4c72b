"""Deletes what nobody can need: superseded metadata, and targets that no metadata names, each after a time of grace.

A client may have read a timestamp some time ago and fetch what it led to only now; so may a copy of the channel. What
a file's own time says is when it came here: a later copy only makes it stay longer.
"""

import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from fussy import disk
from fussy.publishing import metadata, offers
from fussy.publishing.metadata import Published
from fussy.publishing.places import Places
from fussy.publishing.settle import Work

_DAY = 86400.0


def prune(work: Work, keep: int) -> list[str]:
    """Stop offering what no device can need any more; return the paths."""
    gone = []
    for product, meta in work.now().products.items():
        if paths := offers.needless(meta.signed, keep):
            targets = work.edit_targets(product)
            for path in paths:
                targets.targets.pop(path, None)
            gone += paths
    return gone


def garbage(where: Places, published: Published, grace: float) -> list[Path]:
    """Return the files of the channel that can go: metadata first, then targets."""
    before = time.time() - grace * _DAY
    doomed = list(old_metadata(where, published, before))
    named = set(referenced(where, set(doomed)))
    for path in sorted(where.targets.rglob("*")):
        if path.is_file() and path not in named and path.stat().st_mtime < before:
            doomed.append(path)
    return doomed


def old_metadata(where: Places, published: Published, before: float) -> Iterator[Path]:
    """Yield superseded metadata whose successor came before a time; roots are kept for ever."""
    rows: dict[str, dict[int, Path]] = {}
    for path in where.metadata.glob("*.*.json"):
        number, role = path.name.split(".")[:2]
        if number.isdigit() and role != "root":
            rows.setdefault(role, {})[int(number)] = path
    for role, row in rows.items():
        now = published.role(role)
        present = now.signed.version if now else max(row)
        there = sorted(version for version in row if version <= present)
        for version, successor in pairwise(there):
            if row[successor].stat().st_mtime < before:
                yield row[version]


def referenced(where: Places, doomed: set[Path]) -> Iterator[Path]:
    """Yield the files that metadata names, published or prepared, what is DOOMED left out."""
    for path in [*where.metadata.glob("*.*.json"), *where.prepared.glob("*.json")]:
        if path in doomed:
            continue
        targets: Mapping[str, object] = getattr(metadata.read(path).signed, "targets", {})
        for name, one in targets.items():
            directory, _, file = name.rpartition("/")
            hashes: Mapping[str, str] = getattr(one, "hashes", {})
            yield where.targets / directory / f"{hashes['sha256']}.{file}"


def delete(where: Places, doomed: list[Path]) -> None:
    """Delete files, metadata before the targets that it names."""
    for path in doomed:
        path.unlink(missing_ok=True)
    for directory in {path.parent for path in doomed}:
        disk.sync_directory(directory)
