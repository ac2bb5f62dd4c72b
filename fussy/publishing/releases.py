"""What happens to releases: add, roll out, withdraw, promote to another product line."""

import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuf.api.metadata import TargetFile

from fussy import manifest
from fussy.channel import Offer
from fussy.errors import SystemSetup
from fussy.publishing import offers, packing, store
from fussy.publishing.packing import Sealing
from fussy.publishing.settle import Work

log = logging.getLogger(__name__)

_WORTH = 0.95
_SUFFIX = re.compile(r"\.tar\.(gz|zst)\.gpg\Z")


@dataclass(frozen=True)
class Wish:
    """How a release is to be offered; ``memory``: MiB that devices may need to apply a delta; ``facts``: percent,
    window, security, notes, floor."""

    deltas: int
    memory: int
    parts: bool = False
    sealing: Sealing = field(default_factory=Sealing)
    facts: Mapping[str, object] = field(default_factory=dict)


def pack_tree(directory: Path, work: Work, sealing: Sealing, *, version: str | None, compatible: Sequence[str]) -> Path:
    """Pack a tree on its way into the channel; return the bundle in the staging directory."""
    from fussy.pack import pack

    return Path(pack(directory, encrypt_for=sealing.encrypt_for, sign_with=sealing.sign_with or None, compress="zstd",
                     version=version, compatible=compatible, output=work.where.staging,
                     passphrase_file=sealing.passphrase_file))


def add(work: Work, product: str, bundle: Path, wish: Wish) -> list[TargetFile]:
    """Offer the release in BUNDLE in a product line; return its targets.

    Verified and unpacked as a device would do it; deltas are made from the releases of the store, and offered where
    they save a twentieth of the bundle at least.

    :raises SystemSetup: it is offered already, or deltas would not be encrypted and the bundle is
    """
    offers.check(**wish.facts)
    work.now().product(product)
    encrypted = store.is_encrypted(bundle)
    if encrypted and not wish.sealing.encrypt_for and (wish.deltas or wish.parts):
        raise SystemSetup(f"cannot add {bundle}: it is encrypted, and its deltas would not be; name the keys with "
                          "--encrypt-for (or in settings.json), or add it with --deltas 0")
    release = store.admit(work.where, product, bundle)
    if any(one.full.digest == release.digest for one in offers.releases(work.now().product(product))):
        raise SystemSetup(f"cannot add {release.name}: {product} offers it already")
    described = store.entries(release)[1]
    offer = offer_for(described, release.digest, wish.facts)
    made = [(f"{release.name}{full_suffix(bundle)}", copied(work, bundle), offer)]
    bases = [one for one in store.stored(work.where, product) if one.digest != release.digest][:wish.deltas]
    with tempfile.TemporaryDirectory(prefix="differences-", dir=work.where.staging) as kept:
        for base in bases:
            file = packing.make_delta(release, base, work.where.staging, wish.sealing, wish.memory,
                                      Path(kept) if len(bases) > 1 else None)
            log.info("%s: %d bytes from %s", file.name, file.stat().st_size, base.name)
            if file.stat().st_size > _WORTH * bundle.stat().st_size:
                continue
            made.append((file.name, file, replaced(offer, kind="delta", base=base.digest, memory=wish.memory)))
    if wish.parts:
        made += [(part.file.name, part.file, replaced(offer, kind="part", first=part.first, last=part.last))
                 for part in packing.make_parts(release, work.where.staging, wish.sealing)]
    added = [placed(work, product, name, file, facts) for name, file, facts in made]
    targets = work.edit_targets(product)
    offers.put(targets, added)
    return added


def replaced(offer: Offer, **fields: object) -> Offer:
    import msgspec

    return msgspec.structs.replace(offer, **fields)


def offer_for(described: manifest.Manifest, digest: str, facts: Mapping[str, object]) -> Offer:
    """Return the offer of a full bundle. Each roll-out reaches other devices first: its seed is the digest."""
    offer = Offer(kind="full", release=described.name, version=described.version, compatible=described.compatible,
                  digest=digest, installer=described.installer, upgrade_from=described.upgrade_from,
                  floor=described.floor, size_installed=manifest.total_size(described.entries), seed=digest[:16])
    return replaced(offer, **facts)


def full_suffix(bundle: Path) -> str:
    found = _SUFFIX.search(bundle.name)
    return found.group() if found else ".gpg"


def copied(work: Work, bundle: Path) -> Path:
    """Bring a bundle into the staging directory, unless it lies there already."""
    if bundle.parent == work.where.staging:
        return bundle
    copy = work.where.staging / f"added-{bundle.name}"
    shutil.copyfile(bundle, copy)
    return copy


def placed(work: Work, product: str, name: str, file: Path, offer: Offer) -> TargetFile:
    """Bring a file into the channel under a name that needs no quoting in an address; return its target."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    if plain != name:
        plain = f"{offer.digest[:8]}-{plain}"
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    length = os.stat(file).st_size
    work.where.place(file, work.where.targets / product / f"{digest}.{plain}")
    return offers.target(f"{product}/{plain}", length, digest, offer)


def change(work: Work, product: str, name: str, facts: Mapping[str, object]) -> None:
    """Change the facts of a release on offer: percent, window, security, notes, floor."""
    offers.check(**facts)
    targets = work.edit_targets(product)
    offers.set_facts(targets, offers.named(targets, name), **facts)


def withdraw(work: Work, product: str, name: str) -> None:
    """Offer a release no longer. It stays in the store: devices that have it need deltas from it."""
    targets = work.edit_targets(product)
    offers.withdraw(targets, offers.named(targets, name))


def promote(work: Work, product: str, name: str, other: str, wish: Wish) -> list[TargetFile]:
    """Offer a release of one product line in another too, with deltas from the releases that line had."""
    release = offers.named(work.now().product(product), name)
    full = release.of_kind("full")[0]
    directory, _, file = full.path.rpartition("/")
    bundle = work.where.staging / file
    source = work.where.targets / directory / f"{full.hashes['sha256']}.{file}"
    shutil.copyfile(source, bundle)
    return add(work, other, bundle, wish)


def trim(work: Work, product: str, keep: int) -> None:
    """Delete the releases of the store beyond the KEEP last added, once all that was made from them is safe."""
    work.afterwards.append(lambda: store.drop(work.where, product, store.stored(work.where, product)[max(1, keep):]))
