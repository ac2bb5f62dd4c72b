"""Finds the archives of Debian packages through apt and keeps them in a cache (see :mod:`pdimage.debianparts`)."""

import difflib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pdimage import tools
from pdimage.errors import PartFailed
from pdimage.wheels import file_digest

# Debian Policy 5.6.1 and 5.6.12; a leading dash would be an option of apt.
_PACKAGE = re.compile(r"([a-z0-9][a-z0-9+.-]+)(?:=([0-9][A-Za-z0-9.+:~-]*))?")
_URI = re.compile(r"^'[^']*' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$", re.MULTILINE)


@dataclass(frozen=True)
class Request:
    """One package as the user wrote it, ``name`` or ``name=version``; ``version`` is empty if none is given."""

    name: str
    version: str

    def wanted(self, architecture: str) -> str:
        """Return how to ask apt for it."""
        return f"{self.name}:{architecture}" + (f"={self.version}" if self.version else "")


@dataclass(frozen=True)
class Archive:
    """One archive. ``wanted`` is what apt is asked for, ``file`` how it is called in the cache."""

    wanted: str
    file: str
    sha256: str


def parse(package: str) -> Request | None:
    """Return what PACKAGE asks for, None if it is neither ``name`` nor ``name=version``."""
    found = _PACKAGE.fullmatch(package)
    return Request(found[1], found[2] or "") if found else None


def find(requests: Iterable[Request], architecture: str, cache: Path) -> Mapping[Request, Archive | str]:
    """Return the archive of each request, or what is wrong with it. No network is used.

    With a version it comes from CACHE if it is there, whatever apt knows today.

    :raises PartFailed: apt fails, and not because of a package
    """
    found: dict[Request, Archive | str] = {}
    for request in requests:
        if kept := _kept(request, architecture, cache):
            found[request] = kept
    asked = [request for request in requests if request not in found]
    if not asked:
        return found
    wanted = [request.wanted(architecture) for request in asked]
    code, output = tools.attempt(["apt-get", "download", "--print-uris", *wanted], what="find Debian packages")
    files = {match["file"].partition("_")[0]: match for match in _URI.finditer(output)} if code == 0 else {}
    for request in asked:
        if match := files.get(request.name):
            found[request] = Archive(request.wanted(architecture), match["file"], match["sha256"])
    if any(request not in found for request in asked):
        wrong = _wrong(asked, architecture)
        if not wrong:
            raise PartFailed(f"cannot find Debian packages: apt-get says\n{tools.last_lines(output)}")
        found.update(wrong)
    return found


def _kept(request: Request, architecture: str, cache: Path) -> Archive | None:
    for suffix in (architecture, "all") if request.version else ():
        file = f"{request.name}_{request.version.replace(':', '%3a')}_{suffix}.deb"
        if (cache / f"{file}.sha256").is_file():
            return Archive(request.wanted(architecture), file, (cache / f"{file}.sha256").read_text())
    return None


def _wrong(requests: Sequence[Request], architecture: str) -> Mapping[Request, str]:
    """Return which of REQUESTS apt can't serve, each with what is there instead."""
    names = [f"{request.name}:{architecture}" for request in requests]
    _, output = tools.attempt(["apt-cache", "madison", *names], what="find Debian packages")
    versions: dict[str, list[str]] = {}
    for line in output.splitlines():
        columns = [column.strip() for column in line.split("|")]
        if len(columns) == 3 and columns[2].endswith(" Packages"):
            versions.setdefault(columns[0].partition(":")[0], []).append(columns[1])
    wrong = {}
    known: list[str] = []
    for request in requests:
        there = list(dict.fromkeys(versions.get(request.name, [])))
        if not there:
            known = known or tools.run(["apt-cache", "pkgnames"], what="list the Debian packages").split()
            wrong[request] = _unknown(request.name, known, architecture)
        elif request.version and request.version not in there:
            wrong[request] = f"{request.name} has no version {request.version}; there is {', '.join(there)}"
    return wrong


def _unknown(name: str, known: Sequence[str], architecture: str) -> str:
    if name in known:
        return (f"{name} has no archive for {architecture}; name the package that provides it, or if it is there for "
                f"that architecture alone: dpkg --add-architecture {architecture} and apt-get update")
    nearest = difflib.get_close_matches(name, (other for other in known if other[:1] == name[:1]), 3, 0.7)
    hint = f"; did you mean {' or '.join(nearest)}?" if nearest else "; correct the name, or run apt-get update"
    return f"apt knows no package {name}{hint}"


def is_kept(archive: Archive, cache: Path) -> bool:
    """Tell whether CACHE has ARCHIVE undamaged."""
    kept = cache / archive.file
    return kept.is_file() and file_digest(kept) == archive.sha256


def fetch(archives: Iterable[Archive], cache: Path) -> None:
    """Fetch ARCHIVES into CACHE.

    :raises PartFailed: apt failed, or one is not what apt announced
    """
    archives = list(archives)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=cache) as directory:
        tools.run(["apt-get", "download", "-q", *(archive.wanted for archive in archives)],
                  what="fetch Debian packages", cwd=Path(directory))
        for archive in archives:
            file = Path(directory, archive.file)
            if not file.is_file() or file_digest(file) != archive.sha256:
                raise PartFailed(f"cannot use {archive.file}: it is not what apt announced; run apt-get update")
            os.replace(file, cache / archive.file)
            (Path(directory) / "sha256").write_text(archive.sha256)
            os.replace(Path(directory) / "sha256", cache / f"{archive.file}.sha256")
