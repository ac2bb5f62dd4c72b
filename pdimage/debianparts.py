"""Puts the files of Debian packages below ``debian/`` in the tree, and a program in ``bin/`` for each of theirs.

``apt-get download`` fetches them, as apt is configured on the building machine, ``dpkg-deb -x`` unpacks them. Nothing
of them is run: no maintainer script, so no users, no alternatives, no started services. What a package depends on is
not fetched with it; name it too, or rely on the router's own.

::

    CACHE/NAME_VERSION_ARCHITECTURE.deb          as apt named it (``:`` of the version as ``%3a``)
    CACHE/NAME_VERSION_ARCHITECTURE.deb.sha256   what it must be
"""

import dataclasses
import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from packageurl import PackageURL

from pdimage import aptarchive, copyrights, debcontrol, launchers, tools
from pdimage.aptarchive import Archive
from pdimage.components import Component
from pdimage.description import NOWHERE
from pdimage.errors import Mistake, Mistakes
from pdimage.machine import Machine
from pdimage.merge import merge, walk
from pdimage.tools import Progress
from pdimage.wheels import file_digest
from pdimage.yamlsource import Place

log = logging.getLogger(__name__)

TOP = "debian"
_NO_PACKAGE = "{!r} is not a Debian package: write name or name=version"
_PROGRAM = re.compile(rf"{TOP}/(usr/)?s?bin/[^/]+")
_LIBRARY = re.compile(rf"{TOP}/(usr/)?lib(32|64)?/([^/]+-linux-[^/]+/)?[^/]+\.so(\.[0-9.]+)?")
_FIELDS = ("Package", "Version", "Architecture", "Pre-Depends", "Depends")


def install(
    tree: Path,
    packages: Sequence[str],
    cache: Path,
    *,
    machine: Machine | None = None,
    place: Place = NOWHERE,
    progress: Progress = lambda step: None,
) -> tuple[Component, ...]:
    """Put the files of PACKAGES (``name`` or ``name=version``) below TREE and return the packages, sorted.

    MACHINE is what the image is for, the one we run on if not given. PLACE is where the list is written, for messages.
    A package with a version comes from CACHE if it is there; a name alone means what apt would install today.

    :raises Mistakes: all that apt doesn't know, each with the nearest names or the versions that are there
    :raises PartFailed: apt couldn't fetch one, it isn't what apt announced, or two claim the same file
    """
    archives, mistakes = _find(packages, (machine or Machine.here()).debian, cache, place)
    if mistakes:
        raise Mistakes(mistakes)
    missing = [archive for archive in archives if not aptarchive.is_kept(archive, cache)]
    if missing:
        progress(f"fetching {len(missing)} Debian packages")
        aptarchive.fetch(missing, cache)
    found = _linked([_install(cache / archive.file, tree) for archive in archives])
    _make_relocatable(tree / TOP)
    libraries = _library_directories(path for component in found for path in component.files)
    return tuple(sorted(_with_programs(component, tree, libraries) for component in found))


def _find(
    packages: Sequence[str], architecture: str, cache: Path, place: Place
) -> tuple[list[Archive], list[Mistake]]:
    """Return the archives of PACKAGES, sorted, and the mistakes in them."""
    requests = [aptarchive.parse(package) for package in packages]
    found = aptarchive.find([request for request in requests if request], architecture, cache)
    archives: dict[str, Archive] = {}
    mistakes = []
    for number, request in enumerate(requests):
        result = found[request] if request else _NO_PACKAGE.format(packages[number])
        if request and request.name in archives:
            result = f"{request.name} is there already; name each package once"
        if isinstance(result, str):
            mistakes.append(place.mistake(f"platform.debian[{number}]", result))
        elif request:
            archives[request.name] = result
    return [archives[name] for name in sorted(archives)], mistakes


def _install(archive: Path, tree: Path) -> tuple[Component, str]:
    """Unpack one archive; return its component and what it depends on."""
    facts = _facts(archive)
    name, version = facts["Package"], facts["Version"]
    with tempfile.TemporaryDirectory(prefix="pdimage-deb-") as directory:
        top = Path(directory) / TOP
        tools.run(["dpkg-deb", "-x", archive, top], what=f"unpack {archive.name}")
        top.chmod(0o755)
        files = merge(Path(directory), tree, f"the Debian package {name}")
    _warn_of_scripts(archive, name)
    copyright_file = f"{TOP}/usr/share/doc/{name}/copyright"
    there = _is_own_file(tree / copyright_file, tree)
    component = Component(
        "debian", name, version, tuple(copyrights.read(tree / copyright_file)) if there else (),
        PackageURL("deb", "debian", name, version, {"arch": facts["Architecture"]}).to_string(),
        files, file_digest(archive), (copyright_file,) if there else ())
    return component, f"{facts['Pre-Depends']}, {facts['Depends']}"


def _facts(archive: Path) -> dict[str, str]:
    form = "".join(f"${{{field}}}\n" for field in _FIELDS)
    output = tools.run(["dpkg-deb", "--show", f"--showformat={form}", archive], what=f"read {archive.name}")
    return dict(zip(_FIELDS, output.split("\n"), strict=False))


def _make_relocatable(top: Path) -> None:
    """Let full links to what the packages themselves hold lead there; others mean the router's own files."""
    for path, mode in walk(top):
        link = top / path
        if not stat.S_ISLNK(mode) or not os.readlink(link).startswith("/"):
            continue
        inside = top / os.readlink(link).lstrip("/")
        if os.path.lexists(inside):
            link.unlink()
            link.symlink_to(os.path.relpath(inside, link.parent))


def _library_directories(files: Iterable[str]) -> list[str]:
    """Return the directories of shared libraries that a dynamic linker searches by itself (ld.so(8), multiarch)."""
    return sorted({os.path.dirname(path) for path in files if _LIBRARY.fullmatch(path)})


def _with_programs(component: Component, tree: Path, libraries: Sequence[str]) -> Component:
    """Write a program for each of the package's, which finds it and the libraries from where the release lies."""
    with tempfile.TemporaryDirectory(prefix="pdimage-deb-") as directory:
        programs = Path(directory) / "bin"
        programs.mkdir()
        programs.chmod(0o755)
        for path in component.files:
            if _PROGRAM.fullmatch(path) and _is_own_file(tree / path, tree / TOP) and os.access(tree / path, os.X_OK):
                target = programs / os.path.basename(path)
                target.write_text(launchers.program(path, libraries))
                target.chmod(0o755)
        if not any(programs.iterdir()):
            return component
        added = merge(Path(directory), tree, f"the programs of the Debian package {component.name}")
    return dataclasses.replace(component, files=tuple(sorted({*component.files, *added})))


def _is_own_file(path: Path, top: Path) -> bool:
    """Tell whether PATH is a file, and one below TOP: a link may lead to the building machine's."""
    return path.is_file() and path.resolve().is_relative_to(top.resolve())


def _warn_of_scripts(archive: Path, name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="pdimage-deb-") as directory:
        tools.run(["dpkg-deb", "-e", archive, Path(directory) / "control"], what=f"read {archive.name}")
        scripts = sorted(file.name for file in (Path(directory) / "control").iterdir()
                         if file.name in ("preinst", "postinst", "config"))
    if scripts:
        log.info("%s of the Debian package %s will not be run", " and ".join(scripts), name)


def _linked(found: Iterable[tuple[Component, str]]) -> list[Component]:
    by_name = {component.name: (component, depends) for component, depends in found}
    linked = []
    for component, depends in by_name.values():
        names = debcontrol.names(depends)
        purls = sorted({by_name[name][0].purl for name in names if name in by_name})
        if others := [name for name in names if name not in by_name]:
            log.info("the Debian package %s relies on the router's own %s", component.name, ", ".join(others))
        linked.append(dataclasses.replace(component, requires=tuple(purls)))
    return linked
