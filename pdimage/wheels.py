"""Reads wheels, chooses those that fit a machine, and unpacks them so that they work wherever the release lies.

An unpacked wheel::

    lib/python/NAME/…                  what Python imports
    lib/python/NAME-VERSION.dist-info  with RECORD; nothing in it says where, when or by what it was installed
    lib/scripts/COMMAND                programs of the wheel that are Python scripts
    bin/COMMAND                        finds the release from its own path and starts the program
"""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile

from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.exceptions import InstallerError
from installer.records import RecordEntry
from installer.sources import WheelFile
from installer.utils import Scheme
from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, NormalizedName, parse_wheel_filename

from pdimage import launchers
from pdimage.errors import Mistake
from pdimage.machine import Machine
from pdimage.merge import walk

# Raised when what unpack() makes of the same wheel changes; part of the names of cached directories.
RECIPE = 2
LIBRARY = "lib/python"
SCRIPTS = "lib/scripts"


@dataclass(frozen=True)
class Wheel:
    """A wheel's file, with what its name says (PEP 427)."""

    file: Path
    name: NormalizedName
    version: str
    build: tuple[int, str] | tuple[()]
    tags: frozenset[Tag]

    def rank(self, machine: Machine) -> int | None:
        """Return how well it fits MACHINE (lower is better), None if it doesn't."""
        ranks = machine.ranks()
        return min((ranks[tag] for tag in self.tags if tag in ranks), default=None)

    @property
    def sha256(self) -> str:
        """The file's digest in hex."""
        return file_digest(self.file)


@dataclass(frozen=True)
class Facts:
    """What an installed package says of itself in its METADATA. ``texts``: paths of licence files below dist-info."""

    name: str
    version: str
    licences: tuple[str, ...]
    texts: tuple[str, ...]
    requires: tuple[Requirement, ...]


def parse_name(file: Path) -> Wheel | Mistake:
    """Return the wheel in FILE by its name, or the mistake in the name."""
    try:
        name, version, build, tags = parse_wheel_filename(file.name)
    except InvalidWheelFilename as error:
        return Mistake(str(file), 0, "", f"is not named as a wheel is: {error}")
    return Wheel(file, name, str(version), build, tags)


def best(wheels: Iterable[Wheel], machine: Machine) -> Wheel | None:
    """Return the wheel for the nearest kind of machine, of the highest build; None if none fits."""
    ranked = [(rank, wheel) for wheel in wheels if (rank := wheel.rank(machine)) is not None]
    return min(ranked, key=lambda pair: (pair[0], [-pair[1].build[0]] if pair[1].build else [0], pair[1].file.name),
               default=(0, None))[1]


def misfit(wheels: Iterable[Wheel], machine: Machine) -> str:
    """Say that none of WHEELS fits, and what would."""
    names = ", ".join(sorted(wheel.file.name for wheel in wheels))
    return (f"{names} is made for another machine; what fits {machine} is tagged {machine.abi}-{machine.abi}-"
            f"{machine.platforms[0]} or lower, abi3 instead, or py3-none-any")


def unpack(wheel: Path, directory: Path) -> None:
    """Install WHEEL below DIRECTORY (see above); modes are 755 and 644. Its RECORD is checked against its files.

    :raises ValueError: it is no sound wheel; the message says why
    """
    destination = _Destination(
        {"purelib": str(directory / LIBRARY), "platlib": str(directory / LIBRARY), "scripts": str(directory / "bin"),
         "headers": str(directory / "include"), "data": str(directory)}, "/usr/bin/python3", "posix")
    try:
        with WheelFile.open(wheel) as source:
            source.validate_record()
            install(source, destination, {})
    except (InstallerError, BadZipFile, OSError, KeyError, AssertionError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    for path, mode in walk(directory):
        (directory / path).chmod(0o755 if mode & 0o111 else 0o644)


class _Destination(SchemeDictionaryDestination):
    """Writes programs so that they find the release from their own path."""

    def write_script(self, name: str, module: str, attr: str, section: str) -> RecordEntry:
        return self._launcher(name, launchers.python(f"{module}:{attr}"))

    def write_file(
        self, scheme: Scheme, path: str | os.PathLike[str], stream: BinaryIO, is_executable: bool
    ) -> RecordEntry:
        path = os.fspath(path)
        if scheme != "scripts":
            return self.write_to_fs(scheme, path, stream, is_executable)
        content = stream.read()
        if not content.startswith(b"#!python"):
            return self.write_to_fs(scheme, path, io.BytesIO(content), is_executable=True)
        script = b"#!/usr/bin/env python3" + content[content.find(b"\n"):]
        self.write_to_fs(Scheme("data"), f"{SCRIPTS}/{path}", io.BytesIO(script), is_executable=True)
        return self._launcher(path, launchers.python(f"{SCRIPTS}/{path}"))

    def _launcher(self, name: str, text: str) -> RecordEntry:
        return self.write_to_fs(Scheme("scripts"), name, io.BytesIO(text.encode()), is_executable=True)


def read_facts(dist_info: Path) -> Facts:
    """Return what the METADATA in a dist-info directory says."""
    metadata = Parser().parsestr((dist_info / "METADATA").read_text(errors="replace"), headersonly=True)
    return Facts(metadata["Name"] or "", metadata["Version"] or "", tuple(stated_licences(metadata)),
                 tuple(_texts(dist_info)), tuple(_requirements(metadata)))


# Classifiers that name one licence exactly; the others leave versions open.
_CLASSIFIED = {
    "MIT License": "MIT", "MIT No Attribution License (MIT-0)": "MIT-0", "Apache Software License": "Apache-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "ISC License (ISCL)": "ISC",
    "The Unlicense (Unlicense)": "Unlicense",
    "Python Software Foundation License": "PSF-2.0", "zlib/libpng License": "Zlib",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only", "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
}


def stated_licences(metadata: Message) -> Iterator[str]:
    """Yield the licence as the package states it most exactly: expression (PEP 639), short text, classifiers."""
    if expression := metadata["License-Expression"]:
        yield " ".join(expression.split())
        return
    stated = [value.rpartition(" :: ")[2] for value in metadata.get_all("Classifier", [])
              if value.startswith("License :: ")]
    exact = [_CLASSIFIED[value] for value in stated if value in _CLASSIFIED]
    text = (metadata["License"] or "").strip()
    if exact:
        yield from dict.fromkeys(exact)
    elif text and len(text) < 80 and "\n" not in text and text.upper() != "UNKNOWN":
        yield text
    else:
        yield from dict.fromkeys(stated)


def _texts(dist_info: Path) -> Iterator[str]:
    licences = dist_info / "licenses"
    for path, _ in sorted(walk(dist_info)):
        file = dist_info / path
        if file.is_file() and (licences in file.parents or file.name.upper().startswith(
                ("LICENSE", "LICENCE", "COPYING", "NOTICE", "AUTHORS"))):
            yield path


def _requirements(metadata: Message) -> Iterator[Requirement]:
    for text in metadata.get_all("Requires-Dist", []):
        try:
            yield Requirement(text)
        except InvalidRequirement:
            continue  # written before PEP 508; pip ignores the package's wish as well


def file_digest(file: Path) -> str:
    """Return the SHA-256 of FILE in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
