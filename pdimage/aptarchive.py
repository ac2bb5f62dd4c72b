"""Finds the archives of Debian packages through apt and keeps them in a cache (see :mod:`pdimage.debianparts`)."""

import difflib
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pdimage import tools
from pdimage.errors import PartFailed
from pdimage.wheels import file_digest

# Debian Policy 5.6.1 and 5.6.12; a leading dash would be an option of apt.
_PACKAGE = re.compile(r"([a-z0-9][a-z0-9+.-]+)(?:=([0-9][A-Za-z0-9.+:~-]*))?")
_URI = re.compile(r"^'[^']*' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$", re.MULTILINE)


@dataclass(frozen=True)
class Archive:
    """One archive. ``wanted`` is what apt is asked for, ``file`` how it is called in the cache."""

    wanted: str
    file: str
    sha256: str


def find(package: str, architecture: str, cache: Path) -> Archive | str:
    """Return the archive of ``name`` or ``name=version``, or what is wrong with that.

    With a version it comes from CACHE if it is there, whatever apt knows today. No network is used.
    """
    parsed = _PACKAGE.fullmatch(package)
    if not parsed:
        return f"{package!r} is not a Debian package: write name or name=version"
    name, version = parsed.groups()
    if version:
        for suffix in (architecture, "all"):
            file = f"{name}_{version.replace(':', '%3a')}_{suffix}.deb"
            if (cache / f"{file}.sha256").is_file():
                return Archive(package, file, (cache / f"{file}.sha256").read_text())
    wanted = f"{name}:{architecture}" + (f"={version}" if version else "")
    code, output = tools.attempt(["apt-get", "download", "--print-uris", wanted], what=f"find {package}")
    if found := _URI.search(output) if code == 0 else None:
        return Archive(wanted, found["file"], found["sha256"])
    return _why_not(name, version, architecture)


def _why_not(name: str, version: str | None, architecture: str) -> str:
    _, output = tools.attempt(["apt-cache", "madison", f"{name}:{architecture}"], what=f"find {name}")
    versions = list(dict.fromkeys(line.split("|")[1].strip() for line in output.splitlines() if line.count("|") == 2))
    if versions:
        return f"{name} has no version {version}; there is {', '.join(versions)}"
    names = tools.run(["apt-cache", "pkgnames"], what="list the Debian packages").split()
    if name in names:
        return (f"{name} is not to be had for {architecture}; if it should be, dpkg --add-architecture {architecture} "
                "and apt-get update")
    nearest = difflib.get_close_matches(name, (other for other in names if other[:1] == name[:1]), 3, 0.7)
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
