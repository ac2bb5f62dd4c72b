"""What an image is made of, as frozen values. :mod:`pdimage.reading` makes them from ``image.yaml``.

::

    Image
    ├── platform: Platform
    ├── chutes: ChuteSource
    ├── templates: Template
    ├── hooks: Hooks
    ├── health: fussy.manifest.Check
    ├── machine: pdimage.machine.Machine
    └── resources: Resources

All paths are absolute. ``place`` says where in the user's files a part is written, for messages; it takes no part in
comparisons and never goes into the tree.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fussy.manifest import Check, Limits, Trial
from pdimage.machine import Machine
from pdimage.yamlsource import Place

Variables = Mapping[str, Any]
NOWHERE = Place(Path("image.yaml"), 0)


@dataclass(frozen=True)
class Platform:
    """What the image has beside chutes.

    paradrop, fussy: whether it carries them. requirements: a pip lock file with hashes. wheels: a directory of wheels
    to take instead of an index. debian: packages whose files it carries, as ``name`` or ``name=version``.
    """

    paradrop: bool = True
    fussy: bool = True
    requirements: Path | None = None
    wheels: Path | None = None
    debian: tuple[str, ...] = ()
    place: Place = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class ChuteSource:
    """A chute to carry: a directory with its descriptor, or an image archive, or both.

    path: the directory with ``paradrop.yaml`` or ``config.yaml`` (and what it is built from). archive: its image, as
    ``docker save`` or an OCI archive, which is then not built. config: the descriptor's content.
    """

    name: str
    path: Path | None = None
    archive: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    place: Place = field(default=NOWHERE, compare=False)
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class Template:
    """A file that is made of a template. target: path in the tree. mode: permission bits."""

    source: Path
    target: str
    mode: int = 0o644
    place: Place = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Hooks:
    """The user's own hooks, which run after our .pre-install has begun and before our .post-install ends."""

    pre_install: Path | None = None
    post_install: Path | None = None


@dataclass(frozen=True)
class Resources:
    """What a board has for chutes, None or empty where nothing is known and nothing is checked.

    memory: bytes. processors: how many. radios: options of each radio (as in UCI's wifi-device), by name. lan: names of
    network interfaces that chutes can be given.
    """

    memory: int | None = None
    processors: int | None = None
    radios: Mapping[str, Mapping[str, str]] | None = None
    lan: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Image:
    """One image, complete: what is left to do is to carry it out.

    settings: of the runtime (paradrop.lib.settings). system: the directory that gets links to what the release has in
    ``etc`` and ``bin``, ``/`` on a router. keys: a device's keyring, carried as ``etc/fussy/keys``. persistent:
    what is snapshotted with a release beside what the runtime keeps, as absolute paths on the router. machine: the kind
    of machine that the image is for.
    sources: the description files that were read. overlay: directories, the later ones win.
    """

    name: str
    version: str
    compatible: tuple[str, ...] = ()
    board: str | None = None
    platform: Platform = Platform()
    chutes: tuple[ChuteSource, ...] = ()
    overlay: tuple[Path, ...] = ()
    templates: tuple[Template, ...] = ()
    hooks: Hooks = Hooks()
    health: tuple[Check, ...] = ()
    metadata: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    persistent: tuple[str, ...] = ()
    installer: str = ""
    floor: str = ""
    upgrade_from: str = ""
    limits: Limits = field(default_factory=Limits)
    trial: Trial = field(default_factory=Trial)
    machine: Machine = field(default_factory=Machine.here)
    resources: Resources = Resources()
    settings: Mapping[str, str] = field(default_factory=dict)
    system: str = "/"
    keys: Path | None = None
    variables: Variables = field(default_factory=dict)
    sources: tuple[Path, ...] = ()


def load(path: Path, board: str | None = None, variables: Variables | None = None) -> Image:
    """Read the description at PATH for BOARD (may be None if it has at most one); VARIABLES go before its own.

    :raises pdimage.errors.Mistakes: with all mistakes of the description and of the files it inherits from
    """
    from pdimage.errors import Mistakes
    from pdimage.reading import read_image

    image, mistakes = read_image(path, board, variables or {})
    if mistakes:
        raise Mistakes(mistakes)
    return image
