"""Puts our own Python packages into the tree, from the checkout or from where they are installed."""

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import fussy
from fussy.errors import SystemSetup
from pdimage import launchers, wheels
from pdimage.components import Component
from pdimage.merge import walk
from pdimage.wheels import LIBRARY

DISTRIBUTION = "fussy"
LICENCE = "Apache-2.0"
# What each package needs beside what the distribution needs without extras.
EXTRAS = {"fussy": "", "paradrop": "router"}


def install(tree: Path, packages: Sequence[str]) -> tuple[Component, ...]:
    """Put our PACKAGES into TREE: their modules, their commands in ``bin/`` and the licence.

    :raises SystemSetup: a package is not there
    """
    return tuple(_install(tree, name) for name in packages)


def _install(tree: Path, name: str) -> Component:
    files = [*_modules(tree, name), *_commands(tree, name)]
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
        yield _write(tree, f"{LIBRARY}/{name}/{path}", file.read_bytes(), 0o644)


def _commands(tree: Path, name: str) -> Iterator[str]:
    for entry in metadata.distribution(DISTRIBUTION).entry_points.select(group="console_scripts"):
        if entry.module.partition(".")[0] == name:
            text = launchers.python_function(entry.module, entry.attr)
            yield _write(tree, f"bin/{entry.name}", text.encode(), 0o755)


def _licence(tree: Path, name: str) -> Iterator[str]:
    beside = _directory("fussy").parent / "LICENSE"
    installed = [Path(str(file.locate())) for file in metadata.distribution(DISTRIBUTION).files or ()
                 if file.name == "LICENSE" and ".dist-info" in str(file)]
    for file in [beside, *installed]:
        if file.is_file():
            yield _write(tree, f"share/doc/{name}/LICENSE", file.read_bytes(), 0o644)
            return


def _directory(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if not found or not found.submodule_search_locations:
        raise SystemSetup(f"cannot put {name} into the tree: it is not installed; install it with pip")
    return Path(found.submodule_search_locations[0])


def _write(tree: Path, path: str, content: bytes, mode: int) -> str:
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    (tree / path).write_bytes(content)
    (tree / path).chmod(mode)
    return path


def requirements(name: str) -> Iterator[tuple[Requirement, str]]:
    """Yield what one of our packages needs, each with the extra in which its markers are to be judged."""
    for text in metadata.requires(DISTRIBUTION) or ():
        yield Requirement(text), EXTRAS[name]
