"""Puts our own code into a tree: the runtime, the installer, and the programs in ``bin`` that start them.

``bin`` holds small shell scripts that find their release by the path they were called by, so a tree works wherever it
lies and through whatever link. They use the system's Python, with the packages in ``lib/python`` and no others.
"""

import importlib.util
import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import fussy
from pdimage import treefiles
from pdimage.components import Component
from pdimage.description import Platform

RELEASE_FILES = Path(__file__).parent / "release"
LICENCE = "Apache-2.0"
# Programs by the package that has them, with module and function.
PROGRAMS: Mapping[str, Mapping[str, str]] = {
    "fussy": {
        "fussy": "fussy.cli:main", "fussy-pack": "fussy.pack:main", "fussy-install": "fussy.install:main",
        "fussy-clean": "fussy.install:clean_main", "fussy-link-tree": "fussy.linktree:main",
        "fussy-southrollback": "fussy.southrollback:main",
    },
    "paradrop": {"paradrop": "paradrop.tools.cli:main", "pd": "paradrop.main:main"},
}
# Scripts of pdimage/release that need the installer.
SCRIPTS = ("firmware-recover", "firmware-verify")


def install(tree: Path, platform: Platform) -> tuple[Component, ...]:
    """Copy the packages that PLATFORM asks for, and write their programs."""
    chosen = [name for name, wanted in (("fussy", platform.fussy), ("paradrop", platform.paradrop)) if wanted]
    if platform.paradrop and not platform.fussy:
        chosen.insert(0, "fussy")  # the runtime's command stands on it
    if not chosen:
        return ()
    treefiles.copy(tree, "lib/start.py", RELEASE_FILES / "start.py")
    return tuple(_package(tree, name) for name in chosen)


def _package(tree: Path, name: str) -> Component:
    digest = sha256()
    files = []
    for source, target in _sources(name):
        treefiles.copy(tree, target, source)
        digest.update(f"{target}\n{sha256(source.read_bytes()).hexdigest()}\n".encode())
        files.append(target)
    for program, entry in PROGRAMS[name].items():
        files.append(f"bin/{program}")
        treefiles.write(tree, files[-1], wrapper(program, entry), 0o755)
    for script in SCRIPTS if name == "fussy" else ():
        files.append(f"bin/{script}")
        treefiles.write(tree, files[-1], (RELEASE_FILES / script).read_bytes(), 0o755)
    return Component("own", name, fussy.__version__, (LICENCE,), f"pkg:pypi/{name}@{fussy.__version__}",
                     tuple(sorted(files)), digest.hexdigest())


def wrapper(program: str, entry: str) -> str:
    """Return the script ``bin/PROGRAM``, which calls ENTRY (``module:function``)."""
    return (RELEASE_FILES / "wrapper").read_text().replace("NAME", program).replace("ENTRY", entry)


def _sources(name: str) -> Iterator[tuple[Path, str]]:
    """Yield the files of a Python package, with their places in the tree."""
    found = importlib.util.find_spec(name)
    assert found is not None and found.submodule_search_locations
    root = Path(found.submodule_search_locations[0])
    for directory, names, files in os.walk(root):
        names[:] = sorted(one for one in names if one != "__pycache__" and not one.startswith("."))
        for file in sorted(files):
            source = Path(directory, file)
            if source.suffix in (".py", ".conf"):
                yield source, f"lib/python/{name}/{source.relative_to(root)}"
