"""Reads a lock of Python packages: pip's requirements file in which every line has a version and hashes.

The format is pip's ("Requirements File Format" in its documentation): one requirement a line, ``\\`` goes on, ``#``
starts a comment, ``-r FILE`` includes another. ``pip-compile --generate-hashes`` writes it.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from pdimage.errors import Mistake, Mistakes

_COMMENT = re.compile(r"(^|\s+)#.*$")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_HASH = re.compile(r"\s--hash[= ]\s*(\S+)")
_SHA256 = re.compile(r"sha256:([0-9a-f]{64})")
_INCLUDE = re.compile(r"(?:-r|--requirement)[ =]?\s*(\S+)")
# What says where packages come from; pip gets these as they are.
_SOURCES = ("-i", "--index-url", "--extra-index-url", "--no-index", "-f", "--find-links", "--trusted-host")
# Say nothing that matters here: wheels only, hashes always, no build.
_NEEDLESS = ("--require-hashes", "--only-binary", "--prefer-binary", "--pre")
_HOW = "write the lock with pip-compile --generate-hashes"


@dataclass(frozen=True)
class Pin:
    """One locked package. ``sha256``: of the wheels that may be taken, in hex. ``line`` counts from 1."""

    file: Path
    line: int
    requirement: Requirement
    sha256: frozenset[str]

    @property
    def name(self) -> str:
        """The package's name in its normal form (PEP 503)."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """The one version, empty if the package is named by its address."""
        return next((specifier.version for specifier in self.requirement.specifier), "")

    def __str__(self) -> str:
        return f"{self.requirement.name}=={self.version}" if self.version else str(self.requirement)

    def mistake(self, text: str) -> Mistake:
        """Return a mistake on this line."""
        return Mistake(str(self.file), self.line, "", text)


@dataclass(frozen=True)
class Lock:
    """A lock as read: ``sources`` are the options that say where packages come from, relative to ``file``."""

    file: Path
    pins: tuple[Pin, ...]
    sources: tuple[str, ...]


def read(file: Path, environment: Mapping[str, str]) -> Lock:
    """Return the lock in FILE without what ENVIRONMENT (PEP 508) rules out.

    :raises Mistakes: all lines that are not understood, not pinned, without a hash, or pin a package once more
    """
    reader = _Reader(environment)
    reader.read(file)
    if reader.mistakes:
        raise Mistakes(reader.mistakes)
    return Lock(file, tuple(reader.pins[name] for name in sorted(reader.pins)), tuple(reader.sources))


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._open: list[Path] = []
        self.pins: dict[str, Pin] = {}
        self.sources: list[str] = []
        self.mistakes: list[Mistake] = []

    def read(self, file: Path) -> None:
        try:
            text = file.read_text(encoding="utf-8")
            if "\0" in text:
                raise ValueError
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            self.mistakes.append(Mistake(str(file), 0, "", f"cannot be read: {reason}"))
            return
        self._open.append(file.resolve())
        for line, content in logical_lines(text):
            if problem := self._take(file, line, content):
                self.mistakes.append(Mistake(str(file), line, "", problem))
        self._open.pop()

    def _take(self, file: Path, line: int, content: str) -> str:
        """Take one logical line; return what is wrong with it, or an empty text."""
        if include := _INCLUDE.fullmatch(content):
            other = file.parent / include[1]
            if other.resolve() in self._open:
                return f"{include[1]} includes itself"
            self.read(other)
        elif content.startswith(_SOURCES):
            self.sources.append(content)
        elif content.startswith("-") and not content.startswith(_NEEDLESS):
            return f"{content.split()[0]} can't be used in a lock: {_HOW}"
        elif not content.startswith("-"):
            return self._pin(file, line, content)
        return ""

    def _pin(self, file: Path, line: int, content: str) -> str:
        text = content.split(" --", 1)[0].strip()
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            return f"{text!r} is not NAME==VERSION; for a wheel of your own use platform.wheels"
        hashes = _HASH.findall(content)
        wrong = [value for value in hashes if not _SHA256.fullmatch(value)]
        if not hashes:
            return f"{requirement.name} has no --hash=sha256:…; {_HOW}"
        if wrong:
            return f"{requirement.name}: {wrong[0]!r} is not sha256: and 64 digits 0-9a-f; {_HOW}"
        specifiers = list(requirement.specifier)
        if not requirement.url and (len(specifiers) != 1 or specifiers[0].operator != "=="
                                    or specifiers[0].version.endswith("*")):
            return f"{requirement.name} has no exact version: write {requirement.name}==VERSION"
        if requirement.marker and not requirement.marker.evaluate(self._environment):
            return ""
        pin = Pin(file, line, requirement, frozenset(value.removeprefix("sha256:") for value in hashes))
        before = self.pins.setdefault(pin.name, pin)
        return "" if before is pin else f"{requirement.name} is there already, at {before.file}:{before.line}"


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    r"""Yield the lines that say something, each with its number, continued ones joined, without comments.

    >>> list(logical_lines("# a lock\nclick==8 \\\n  --hash=x  # yes\n"))
    [(2, 'click==8    --hash=x')]
    """
    first, joined = 0, ""
    for number, raw in enumerate([*text.splitlines(), ""], start=1):
        first = first or number
        line = _COMMENT.sub("", raw)
        if line.endswith("\\") and not raw.lstrip().startswith("#"):
            joined += line[:-1] + " "
            continue
        whole = _VARIABLE.sub(lambda found: os.environ.get(found[1], found[0]), joined + line).strip()
        if whole:
            yield first, whole
        first, joined = 0, ""
