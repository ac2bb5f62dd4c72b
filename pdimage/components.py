"""What an image carries: one value for each thing that a build puts into the tree."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["python", "debian", "alpine", "container", "own"]


@dataclass(frozen=True, order=True, slots=True)
class Component:
    """One thing in the tree, as the SBOM, the build record and the licence list name it.

    ``licences`` are SPDX identifiers or expressions, or the words the thing itself uses. ``purl`` is a package URL.
    ``files`` are paths in the tree (``/`` between names), sorted. ``sha256`` (hex) is that of what was installed: the
    wheel, the Debian archive, the container's manifest. ``texts`` are the paths in the tree of licence texts.
    ``requires`` are the ``purl`` of other components that this one needs. ``inside`` is the ``purl`` of the component
    that holds this one, such as the container of a Debian package.
    """

    kind: Kind
    name: str
    version: str
    licences: tuple[str, ...] = ()
    purl: str = ""
    files: tuple[str, ...] = ()
    sha256: str = ""
    texts: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    inside: str = ""
