"""What is published, read from the channel's files, and pure changes to it. Nothing here writes.

What counts is what a client would find: the newest root of an unbroken row, and whatever ``timestamp.json`` leads to.
Files that a killed publish left behind are not led to, and overwritten by the next.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Role, Root, Snapshot, Targets, Timestamp

from fussy.errors import SystemSetup
from fussy.publishing.errors import BadChannel
from fussy.publishing.places import Days, Places

# A file of metadata; what is inside is told by its role.
Meta = Metadata[Any]


@dataclass(frozen=True)
class Published:
    """A channel as clients see it. ``roots``: every root, the oldest first."""

    roots: tuple[Metadata[Root], ...]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]
    products: Mapping[str, Metadata[Targets]] = field(default_factory=dict)

    @property
    def root(self) -> Metadata[Root]:
        return self.roots[-1]

    def role(self, name: str) -> Meta | None:
        """Return the metadata of a role, None for a product line that there is not."""
        top: dict[str, Meta] = {"root": self.root, "targets": self.targets, "snapshot": self.snapshot,
                                "timestamp": self.timestamp}
        return top.get(name) or self.products.get(name)

    def delegator(self, name: str) -> Root | Targets:
        """Return who says which keys sign for a role."""
        return self.targets.signed if name not in ("root", "targets", "snapshot", "timestamp") else self.root.signed

    def product(self, name: str) -> Targets:
        """Return what a product line offers.

        :raises SystemSetup: there is no such line
        """
        if name not in self.products:
            raise SystemSetup(f"cannot find the product line {name}; there are: "
                              f"{', '.join(sorted(self.products)) or 'none'}")
        return self.products[name].signed

    def with_role(self, name: str, meta: Meta) -> "Published":
        """Return the channel with other metadata for one role; a root of the next version is added to the row."""
        if name == "root":
            row = self.roots if meta.signed.version > self.root.signed.version else self.roots[:-1]
            return replace(self, roots=(*row, meta))
        if name == "targets":
            lines = meta.signed.delegations.roles if meta.signed.delegations else {}
            products = {line: there for line, there in self.products.items() if line in lines}
            return replace(self, targets=meta, products=products)
        if name == "snapshot":
            return replace(self, snapshot=meta)
        if name == "timestamp":
            return replace(self, timestamp=meta)
        return replace(self, products={**self.products, name: meta})

    def faults(self) -> list[str]:
        """Return why a client could not follow this channel; expiry is not looked at."""
        wrong = []
        for older, newer in zip(self.roots, self.roots[1:], strict=False):
            if not newer.signed.get_root_verification_result(older.signed, newer.signed_bytes, newer.signatures):
                wrong.append(f"root {newer.signed.version} is not signed by enough keys")
        if lacks := missing(self.roots[0], "root", self.roots[0].signed):
            wrong.append(f"root {self.roots[0].signed.version} lacks {_signatures(lacks)}")
        lines = self.targets.signed.delegations.roles if self.targets.signed.delegations else {}
        for name in ("targets", "snapshot", "timestamp", *(lines or {})):
            meta = self.role(name)
            if meta is None:
                wrong.append(f"{name} is delegated and not there")
            elif lacks := missing(meta, name, self.delegator(name)):
                wrong.append(f"{name} lacks {_signatures(lacks)}")
        return wrong


def _signatures(count: int) -> str:
    return "1 signature" if count == 1 else f"{count} signatures"


def missing(meta: Meta, role: str, delegator: Root | Targets) -> int:
    """Return how many signatures META lacks to count for ROLE."""
    result = delegator.get_verification_result(role, meta.signed_bytes, meta.signatures)
    return max(0, result.missing)


def load(where: Places) -> Published | None:
    """Read what is published; None when nothing is yet.

    :raises BadChannel: files are missing or can't be read
    """
    if not (where.metadata / "timestamp.json").exists():
        return None
    roots: list[Metadata[Root]] = []
    while (path := where.metadata / f"{len(roots) + 1}.root.json").exists():
        roots.append(read(path))
    if not roots:
        raise BadChannel(f"cannot read the channel {where.channel}: {path} is missing; bring it back from a copy")
    timestamp = read(where.metadata / "timestamp.json")
    snapshot = read(where.metadata / f"{timestamp.signed.snapshot_meta.version}.snapshot.json")
    found = snapshot.signed.meta
    targets = read(where.metadata / f"{found['targets.json'].version}.targets.json")
    lines = targets.signed.delegations.roles if targets.signed.delegations else {}
    products = {name: read(where.metadata / f"{found[f'{name}.json'].version}.{name}.json") for name in lines or ()}
    return Published(tuple(roots), targets, snapshot, timestamp, products)


def loaded(where: Places) -> Published:
    """Read what is published.

    :raises SystemSetup: nothing is yet
    """
    found = load(where)
    if found is None:
        waits = any(where.prepared.glob("*.json")) if where.prepared.is_dir() else False
        how = "it is prepared and waits for signatures; see fussy-publish CHANNEL publish" if waits else \
            "make it with fussy-publish CHANNEL init"
        raise SystemSetup(f"cannot find a channel in {where.channel}: {how}")
    return found


def read(path: Path) -> Meta:
    """Read one file of metadata; signatures are not looked at.

    :raises BadChannel: it is missing or no metadata
    """
    try:
        return Metadata.from_bytes(path.read_bytes())
    except FileNotFoundError as error:
        raise BadChannel(f"cannot read {path}: it is missing; bring it back from a copy") from error
    except RepositoryError as error:
        raise BadChannel(f"cannot read {path}: it is no TUF metadata; bring it back from a copy") from error


def next_version(meta: Meta, role: str, days: Days) -> Meta:
    """Return an unsigned copy of META, one version later, that expires in as many days as ROLE's do from now."""
    signed = copy.deepcopy(meta.signed)
    signed.version += 1
    signed.expires = expiry(role, days)
    return Metadata(signed)


def expiry(role: str, days: Days) -> datetime:
    return (datetime.now(UTC) + timedelta(days=days.of(role))).replace(microsecond=0)


def snapshot_of(before: Metadata[Snapshot] | None, versions: Mapping[str, int], days: Days) -> Metadata[Snapshot]:
    """Return an unsigned snapshot of these VERSIONS by role; no role of an earlier one is left out (clients insist)."""
    meta = dict(before.signed.meta) if before else {}
    meta |= {f"{role}.json": MetaFile(version) for role, version in versions.items()}
    return Metadata(Snapshot(before.signed.version + 1 if before else 1, expires=expiry("snapshot", days), meta=meta))


def timestamp_of(before: Metadata[Timestamp] | None, snapshot: Metadata[Snapshot], days: Days) -> Metadata[Timestamp]:
    """Return an unsigned timestamp that leads to SNAPSHOT."""
    return Metadata(Timestamp(before.signed.version + 1 if before else 1, expires=expiry("timestamp", days),
                              snapshot_meta=MetaFile(snapshot.signed.version)))


def keys_of(delegator: Root | Targets, role: str) -> dict[str, Key]:
    """Return the keys of a role by their ids."""
    try:
        return {keyid: delegator.get_key(keyid) for keyid in delegator.get_delegated_role(role).keyids}
    except ValueError:
        return {}


def set_keys(delegator: Root | Targets, role: str, keys: Iterable[Key], threshold: int) -> None:
    """Have ROLE signed by THRESHOLD of KEYS from now on.

    :raises SystemSetup: that is impossible
    """
    wanted = {key.keyid: key for key in keys}
    if not 1 <= threshold <= len(wanted):
        raise SystemSetup(f"cannot have {role} signed by {threshold} of {len(wanted)} keys; name more keys or another "
                          "threshold")
    for keyid in set(keys_of(delegator, role)) - set(wanted):
        delegator.revoke_key(keyid, role)
    for key in wanted.values():
        delegator.add_key(key, role)
    role_of(delegator, role).threshold = threshold


def role_of(delegator: Root | Targets, role: str) -> Role:
    return delegator.get_delegated_role(role)


def roles(published: Published) -> Iterator[str]:
    """Yield the names of all roles."""
    yield from ("root", "targets", "snapshot", "timestamp")
    yield from sorted(published.products)
