"""What can be built: distributions, versions, boards and packages. Read from ``catalogue.yaml`` (README.rst).

::

    Catalogue
    └── Distro        builder: images | imagebuilder
        ├── Version   packages, changes since the version before; in the order of releases, oldest first
        └── Board     target, profile, and the names that devices call themselves by

The versions of an ImageBuilder have no packages and boards in the file: the updater asks the ImageBuilder for them, and
the database keeps what it said (:class:`Target`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from pdimage.errors import Mistake, Mistakes
from pdimage.server import names


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A chute or a part of the platform. ``image`` is what it adds to the description of an image."""

    version: str
    summary: str = ""
    needs: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    image: dict[str, Any] = {}


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What became of a package since the version before: exactly one of ``to``, ``by`` and ``drop``.

    ``to`` is its new name. ``by`` maps successors to packages of which one must be installed for it; the first that
    fits is taken, one without such packages always fits. ``why`` is told to people.
    """

    package: str
    to: str = ""
    by: dict[str, tuple[str, ...]] = {}
    drop: bool = False
    why: str = ""


class Board(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A kind of device. ``names``: what it calls itself beside its profile. ``storage``: bytes that an image may have.

    ``resources`` are those of an image's description; ``packages`` every image for it gets by default.
    """

    target: str
    profile: str
    model: str = ""
    names: tuple[str, ...] = ()
    storage: int = 0
    resources: dict[str, Any] = {}
    packages: tuple[str, ...] = ()


class Version(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A release. ``image`` is the description that all its images are based on (builder images), ``imagebuilder`` the
    archive or directory with OpenWrt's, with ``{target}`` in it; ``targets`` are those it has."""

    description: str = ""
    revision: str = ""
    snapshot: bool = False
    defaults: tuple[str, ...] = ()
    packages: dict[str, Package] = {}
    changes: tuple[Change, ...] = ()
    image: str = ""
    imagebuilder: str = ""
    targets: tuple[str, ...] = ()


class Distro(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A distribution. ``latest`` is the newest version for devices (the last one if empty). ``network``: whether builds
    may use it. ``container``: the image that an ImageBuilder runs in where there is a Docker engine."""

    builder: Literal["images", "imagebuilder"]
    versions: dict[str, Version]
    description: str = ""
    latest: str = ""
    boards: tuple[Board, ...] = ()
    network: bool = False
    container: str = ""

    @property
    def newest(self) -> str:
        """The version that devices should have."""
        return self.latest or [name for name, version in self.versions.items() if not version.snapshot][-1]


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one version has for one target. ``needs setup`` is told by None in place of it."""

    boards: dict[str, Board]
    packages: dict[str, Package]
    defaults: tuple[str, ...] = ()
    revision: str = ""


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that the server knows. ``root`` is the directory of the file; paths in it are relative to that.

    ``found`` has the targets of ImageBuilders, by distro, version and target.
    """

    distros: dict[str, Distro]
    root: str = ""
    found: dict[tuple[str, str, str], Target] = {}

    def target(self, distro: str, version: str, target: str) -> Target | None:
        """Return what is known of a target; None if its ImageBuilder was not asked yet. It must be there."""
        known = self.distros[distro]
        if known.builder == "imagebuilder":
            return self.found.get((distro, version, target))
        here = known.versions[version]
        boards = {board.profile: board for board in known.boards if board.target == target}
        return Target(boards, here.packages, here.defaults, here.revision)

    def targets(self, distro: str, version: str) -> tuple[str, ...]:
        """Return the targets of a version."""
        known = self.distros[distro]
        if known.builder == "imagebuilder":
            return known.versions[version].targets
        return tuple(sorted({board.target for board in known.boards}))


def read(file: Path) -> Catalogue:
    """Read the catalogue in FILE.

    :raises Mistakes: all that is wrong with it
    """
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        found = msgspec.convert({**data, "root": str(file.parent.absolute())} if isinstance(data, dict) else data,
                                Catalogue)
    except OSError as error:
        raise Mistakes([Mistake(str(file), 0, "", f"cannot be read: {error.strerror}; name another with the setting "
                                "catalogue")]) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise Mistakes([Mistake(str(file), line, "", f"is not YAML: {error.problem}")]) from error
    except (yaml.YAMLError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise Mistakes([Mistake(str(file), 0, "", str(error))]) from error
    if wrong := [Mistake(str(file), 0, path, text) for path, text in problems(found)]:
        raise Mistakes(wrong)
    return found


def problems(catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """Yield what is wrong: where, and what."""
    for name, distro in catalogue.distros.items():
        where = f"distros.{name}"
        yield from _named(where, "distro", [name])
        yield from _named(f"{where}.versions", "version", distro.versions)
        if not [version for version in distro.versions.values() if not version.snapshot] or \
                distro.latest not in ("", *distro.versions):
            yield where, "must have a version that is no snapshot, and latest must be one of its versions"
        for board in distro.boards:
            yield from _named(f"{where}.boards", "target", [board.target])
            yield from _named(f"{where}.boards", "profile", [board.profile, *board.names])
        for title, version in distro.versions.items():
            yield from _version(f"{where}.versions.{title}", distro, version)


def _version(where: str, distro: Distro, version: Version) -> Iterator[tuple[str, str]]:
    yield from _named(f"{where}.packages", "package", version.packages)
    yield from _named(f"{where}.targets", "target", version.targets)
    if distro.builder == "images" and not version.image:
        yield f"{where}.image", "is missing; name the description that images are based on"
    if distro.builder == "imagebuilder" and not version.imagebuilder:
        yield f"{where}.imagebuilder", "is missing; name the directory or archive of the ImageBuilder"
    for name, package in version.packages.items():
        yield from _named(f"{where}.packages.{name}.version", "package version", [package.version])
        for other in {*package.needs, *package.conflicts} - set(version.packages):
            yield f"{where}.packages.{name}", f"names {other}, which this version does not have"
    if distro.builder == "images":
        for other in {*version.defaults, *(one for board in distro.boards for one in board.packages)}:
            if other not in version.packages:
                yield f"{where}.defaults", f"names {other}, which this version does not have"
    for change in version.changes:
        if (bool(change.to) + bool(change.by) + change.drop) != 1:
            yield f"{where}.changes", f"must say one of to, by and drop for {change.package}"
        for other in {change.to, *change.by} - {""}:
            if distro.builder == "images" and other not in version.packages:
                yield f"{where}.changes", f"leads from {change.package} to {other}, which this version does not have"


def _named(where: str, kind: str, given: Mapping[str, object] | list[str] | tuple[str, ...]) -> Iterator[
        tuple[str, str]]:
    for name in given:
        if not names.is_good(kind, name):
            yield where, f"{names.shown(name)} is no {kind}"
