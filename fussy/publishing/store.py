"""The last releases of each product line, unpacked and verified as a device has them: deltas are made from these."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fussy import bundle, disk, manifest, oldfiles, target
from fussy.errors import BadBundle, SystemSetup
from fussy.publishing.places import Places
from fussy.unpack import unpack_release


@dataclass(frozen=True)
class Stored:
    """A release of the store."""

    path: Path
    digest: str
    description: manifest.Description
    added: int

    @property
    def name(self) -> str:
        return self.path.name


def stored(where: Places, product: str) -> list[Stored]:
    """Return the releases of a product line, the last added first."""
    directory = where.store(product)
    if not directory.is_dir():
        return []
    found = []
    for path in target.find(directory).releases():
        file = path / os.fsdecode(manifest.PATH)
        found.append(Stored(path, manifest.stored_digest(file), manifest.stored_description(file),
                            file.stat().st_mtime_ns))
    return sorted(found, key=lambda one: one.added, reverse=True)


def admit(where: Places, product: str, file: Path) -> Stored:
    """Verify a bundle as a device would, and unpack it into the store; it may be there already.

    :raises FussyError: a device would refuse it
    :raises SystemSetup: there is another release of that name
    """
    where.store(product).parent.mkdir(mode=0o700, exist_ok=True)
    with target.hold(where.store(product), create=True) as held:
        held.root.chmod(0o700)
        disk.empty(held.staging)
        held.staging.mkdir(mode=0o700, exist_ok=True)
        staged = held.staging / "tree"
        try:
            with bundle.opened(file, where.keyring) as (_, source):
                described = unpack_release(source, staged, lambda *_: {}, most=None, find=partial(oldfiles.find, held))
            data = (staged / os.fsdecode(manifest.PATH)).read_bytes()
            for one in stored(where, product):
                if one.digest == manifest.digest(data):
                    return one
                if one.name == described.name:
                    raise SystemSetup(f"cannot add {one.name}: {product} has another release of this name; devices "
                                      "tell releases by their names, so give this one a new name")
            disk.publish(staged, held.release(described.name))
        finally:
            disk.empty(held.staging)
    return next(one for one in stored(where, product) if one.name == described.name)


def drop(where: Places, product: str, doomed: Sequence[Stored]) -> None:
    """Delete releases from the store."""
    if doomed:
        with target.hold(where.store(product)) as held:
            for one in doomed:
                disk.discard(one.path, held.trash)


def entries(one: Stored) -> tuple[bytes, manifest.Manifest]:
    """Return the manifest of a stored release, as bytes and read."""
    data = (one.path / os.fsdecode(manifest.PATH)).read_bytes()
    return data, manifest.decode(data)


def is_encrypted(file: Path) -> bool:
    """Whether an OpenPGP message begins with a session key (RFC 9580, packets 1 and 3)."""
    with file.open("rb") as opened:
        first = opened.read(1)
    if not first or not first[0] & 0x80:
        raise BadBundle(f"cannot add {file}: it is no binary OpenPGP message; pack it with fussy-pack")
    tag = first[0] & 0x3F if first[0] & 0x40 else first[0] >> 2 & 0x0F
    return tag in (1, 3)
