"""Adds compiled modules to the Python packages of a tree, so that programs start quickly and write nothing there.

The release is never written on the router (its files are those of the manifest), so without them each start would
compile all modules again: 0.40 instead of 0.17 s for the runtime on the machine where this was measured.
"""

import hashlib
import importlib.util
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pdimage import compiler, threads, tools
from pdimage.machine import Machine
from pdimage.merge import merge, walk
from pdimage.wheels import file_digest
from pdimage.wheelstore import appearing

log = logging.getLogger(__name__)


def add(library: Path, cache: Path, machine: Machine) -> tuple[str, ...]:
    """Compile what is in LIBRARY and return the paths of the results in it, sorted.

    Each package is compiled by itself and kept in CACHE. Nothing is done if MACHINE has another Python than ours: it
    wouldn't understand the results.
    """
    if machine.python != Machine.here().python:
        log.info("modules are not compiled: the image is for Python %s, this is %s", machine.python,
                 Machine.here().python)
        return ()
    modules: dict[str, list[str]] = {}
    for path, _ in sorted(walk(library)):
        if path.endswith(".py") and (library / path).is_file():
            modules.setdefault(path.partition("/")[0], []).append(path)
    compiled = threads.each(lambda names: _compiled(library, names, cache), list(modules.values()))
    return tuple(sorted(path for ready in compiled for path in merge(ready, library, "compiled modules")))


def _compiled(library: Path, names: Sequence[str], cache: Path) -> Path:
    """Return the directory in CACHE with the results for the modules NAMES of LIBRARY."""
    key = hashlib.sha256(importlib.util.MAGIC_NUMBER + sys.version.encode())
    for name in names:
        key.update(f"{file_digest(library / name)} {name}\0".encode())
    ready = cache / key.hexdigest()
    if not ready.is_dir():
        with appearing(ready) as directory, tempfile.NamedTemporaryFile("w", prefix="pdimage-modules-") as listed:
            listed.write("".join(f"{name}\0" for name in names))
            listed.flush()
            # A process of its own: what it did before must not show in the results.
            tools.run([sys.executable, "-I", "-S", compiler.__file__, library, directory, listed.name],
                      what="compile Python modules")
            for path, mode in walk(directory):
                (directory / path).chmod(0o755 if mode & 0o111 else 0o644)
    return ready
