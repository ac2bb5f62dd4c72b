"""Puts our own Python packages into the tree, from the checkout or from where they are installed."""

import hashlib
import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import fussy
from fussy.errors import SystemSetup
from pdimage import wheels
from pdimage.components import Component
from pdimage.merge import walk
from pdimage.wheels import LIBRARY

DISTRIBUTION = "fussy"
LICENCE = "Apache-2.0"
# What each package needs beside what the distribution needs without extras.
EXTRAS = {"fussy": "", "paradrop": "router"}


def install(tree: Path, packages: Sequence[str]) -> tuple[Component, ...]:
    """Put our PACKAGES into TREE: their modules and the licence.

    :raises SystemSetup: a package is not there
    """
    return tuple(_install(tree, name) for name in packages)


def _install(tree: Path, name: str) -> Component:
    files = list(_modules(tree, name))
    texts = list(_licence(tree, name))
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{wheels.file_digest(tree / path)}  {path}\n".encode())
    return Component("own", name, fussy.__version__, (LICENCE,), f"pkg:generic/{name}@{fussy.__version__}",
                     tuple(sorted(files + texts)), digest.hexdigest(), tuple(texts))


def _modules(tree: Path, name: str) -> Iterator[str]:
    source = _directory(name)
    for path, _ in sorted(walk(source)):
        parts = Path(path).parts
        file = source / path
        if not file.is_file() or any(part.startswith(".") or part == "__pycache__" for part in parts):
            continue
        if file.suffix in (".pyc", ".orig", ".rej") or path.endswith("~"):
            continue
        yield _copy(file, tree, f"{LIBRARY}/{name}/{path}")


def _licence(tree: Path, name: str) -> Iterator[str]:
    beside = _directory("fussy").parent / "LICENSE"
    installed = [Path(str(file.locate())) for file in metadata.distribution(DISTRIBUTION).files or ()
                 if file.name == "LICENSE" and ".dist-info" in str(file)]
    for file in [beside, *installed]:
        if file.is_file():
            yield _copy(file, tree, f"share/doc/{name}/LICENSE")
            return


def _directory(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if not found or not found.submodule_search_locations:
        raise SystemSetup(f"cannot put {name} into the tree: it is not installed; install it with pip")
    return Path(found.submodule_search_locations[0])


def _copy(file: Path, tree: Path, path: str) -> str:
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, tree / path)
    (tree / path).chmod(0o644)
    return path


def requirements(name: str) -> Iterator[tuple[Requirement, str]]:
    """Yield what one of our packages needs, each with the extra in which its markers are to be judged."""
    for text in metadata.requires(DISTRIBUTION) or ():
        yield Requirement(text), EXTRAS[name]
