"""What a product line offers, and pure changes to it. Targets of TUF in, targets of TUF out."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec
from tuf.api.metadata import TargetFile, Targets

from fussy import channel, versions, windows
from fussy.channel import Offer
from fussy.errors import SystemSetup

# Offers by the path of their target.
Offers = Mapping[str, Offer]


@dataclass(frozen=True)
class Release:
    """A release on offer: its full bundle's offer, and all its targets."""

    full: Offer
    targets: Mapping[str, TargetFile]

    @property
    def order(self) -> tuple[object, str]:
        return versions.key(self.full.version), self.full.release

    def of_kind(self, kind: str) -> list[TargetFile]:
        return [target for target in self.targets.values() if offer_of(target).kind == kind]


def offer_of(target: TargetFile) -> Offer:
    return channel.decode(target.custom or {})


def target(path: str, length: int, sha256: str, offer: Offer) -> TargetFile:
    """Return a target as the metadata has it."""
    return TargetFile(length, {"sha256": sha256}, path, {"custom": channel.encode(offer)})


def releases(targets: Targets) -> list[Release]:
    """Return the releases on offer, the oldest version first."""
    by_digest: dict[str, dict[str, TargetFile]] = {}
    full: dict[str, Offer] = {}
    for path, one in targets.targets.items():
        offer = offer_of(one)
        by_digest.setdefault(offer.digest, {})[path] = one
        if offer.kind == "full":
            full[offer.digest] = offer
    found = [Release(offer, by_digest[digest]) for digest, offer in full.items()]
    return sorted(found, key=lambda release: (versions.key(release.full.version), release.full.release))


def named(targets: Targets, name: str) -> Release:
    """Return the release of a name, a version, or (the beginning of) a digest.

    :raises SystemSetup: there is none, or several
    """
    there = releases(targets)
    found = [one for one in there if name in (one.full.release, one.full.version)] or [
        one for one in there if len(name) >= 8 and one.full.digest.startswith(name)]
    if len(found) != 1:
        raise SystemSetup(f"cannot find one release {name}: {len(found)} go by that name; there are: "
                          f"{', '.join(one.full.release for one in there) or 'none'}")
    return found[0]


def put(targets: Targets, added: Iterable[TargetFile]) -> None:
    """Offer more."""
    for one in added:
        targets.targets[one.path] = one


def withdraw(targets: Targets, release: Release) -> None:
    """Offer a release no longer: its full bundle, the deltas to it, its parts."""
    for path in release.targets:
        del targets.targets[path]


def change(targets: Targets, release: Release, changed: Callable[[Offer], Offer]) -> None:
    """Change all offers of a release."""
    for path, one in release.targets.items():
        targets.targets[path] = target(path, one.length, one.hashes["sha256"], changed(offer_of(one)))


def set_facts(targets: Targets, release: Release, **facts: object) -> None:
    """Set fields of all offers of a release: percent, seed, window, security, notes, floor.

    :raises SystemSetup: a value can't be
    """
    check(**facts)
    change(targets, release, lambda offer: msgspec.structs.replace(offer, **facts))


def check(**facts: object) -> None:
    """Refuse what can't be a fact of an offer.

    :raises SystemSetup: which, and why
    """
    percent = facts.get("percent", 100.0)
    if not isinstance(percent, int | float) or not 0 <= percent <= 100:
        raise SystemSetup(f"cannot roll out to {percent} percent: choose from 0 to 100")
    try:
        windows.parse(str(facts.get("window", "")))
    except ValueError as error:
        raise SystemSetup(f"cannot offer it with this window: {error}") from error


def needless(targets: Targets, keep: int) -> list[str]:
    """Return the paths of targets that no device can need any more.

    A release is overtaken when a newer one is rolled out to all, for the same boards at least, and can be installed
    wherever this one can. Deltas to an overtaken release are needless; so is the rest of it, unless it is one of the
    KEEP newest, whose files serve for self-repair.
    """
    there = releases(targets)
    found = []
    for i, release in enumerate(there):
        if any(overtakes(newer.full, release.full) for newer in there[i + 1:]):
            old = i < len(there) - keep
            found += [path for path, one in release.targets.items() if old or offer_of(one).kind == "delta"]
    return found


def overtakes(newer: Offer, older: Offer) -> bool:
    """Whether every device that could take OLDER can take NEWER."""
    boards = not newer.compatible or (bool(older.compatible) and set(older.compatible) <= set(newer.compatible))
    return (versions.key(newer.version) > versions.key(older.version) and newer.percent == 100 and boards
            and versions.key(newer.installer) <= versions.key(older.installer)
            and versions.key(newer.upgrade_from) <= versions.key(older.upgrade_from))
