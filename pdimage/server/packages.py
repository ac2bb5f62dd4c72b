"""Chooses packages: what becomes of them from one version to another, what an image needs, what contradicts itself.

Pure functions over the catalogue; the API and the web page use them before anything is built.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fussy import versions
from pdimage.server.catalogue import Change, Distro, Package

# What a device lists as installed but never asks for: they come with every image.
PLATFORM = frozenset({"libc", "kernel", "libgcc", "libgcc1"})


@dataclass(frozen=True)
class Transformed:
    """Packages for another version. ``renamed``: old to new names. ``dropped``: old names, with the reason."""

    packages: tuple[str, ...]
    renamed: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)


def transform(distro: Distro, old: str, new: str, packages: Iterable[str]) -> Transformed:
    """Return what PACKAGES of version OLD are in version NEW; every version between the two has its say.

    Nothing changes on the way back to an older version, or from a version that is not known.
    """
    order = list(distro.versions)
    steps = order[order.index(old) + 1:order.index(new) + 1] if old in order and new in order else []
    now = {name: name for name in packages}
    dropped: dict[str, str] = {}
    for step in steps:
        changes = {change.package: change for change in distro.versions[step].changes}
        installed = set(now.values())
        for first, name in list(now.items()):
            if change := changes.get(name):
                follower = _follower(change, installed)
                if follower:
                    now[first] = follower
                else:
                    del now[first]
                    dropped[first] = change.why or f"version {step} does not have it any more"
    renamed = {old_name: name for old_name, name in now.items() if old_name != name}
    return Transformed(tuple(sorted(set(now.values()))), renamed, dropped)


def _follower(change: Change, installed: Collection[str]) -> str:
    if change.to:
        return change.to
    return next((name for name, context in change.by.items() if not context or set(context) & set(installed)), "")


def upgrades(packages: Mapping[str, Package], installed: Mapping[str, str], *, older: bool) -> dict[str, list[str]]:
    """Return the packages that have another version, as the API has them: ``{name: [new, current]}``.

    OLDER: also those whose version is lower. From one release to the next, that is what the release has; within a
    release, it is a server that has not heard of the newest packages.
    """
    return {name: [packages[name].version, version] for name, version in sorted(installed.items())
            if name in packages and packages[name].version != version
            and (older or versions.key(packages[name].version) > versions.key(version))}


def complete(packages: Mapping[str, Package], wanted: Iterable[str]) -> tuple[str, ...]:
    """Return what WANTED needs, with itself, sorted. Names that are not known stay as they are."""
    pending, found = list(wanted), set()
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += packages[name].needs if name in packages else ()
    return tuple(sorted(found))


def unknown(packages: Mapping[str, Package], wanted: Iterable[str]) -> list[str]:
    """Return the names that no package has, sorted."""
    return sorted(set(wanted) - set(packages) - PLATFORM)


def conflicts(packages: Mapping[str, Package], wanted: Sequence[str]) -> list[str]:
    """Return, for people, which of the WANTED packages can't be together, and who brought them in."""
    everything = complete(packages, wanted)
    pairs = sorted({tuple(sorted((name, other))) for name in everything if name in packages
                    for other in packages[name].conflicts if other in everything})
    return [f"{_origin(packages, wanted, one)} conflicts with {_origin(packages, wanted, other)}"
            for one, other in pairs]


def _origin(packages: Mapping[str, Package], wanted: Sequence[str], name: str) -> str:
    if name in wanted:
        return name
    who = next((one for one in wanted if name in complete(packages, [one])), "")
    return f"{name} (needed by {who})" if who else name
