"""Writes what a build was made of and with.

Two records, so that the tree stays the same on every machine:

- ``.fussy/build.json`` in the tree has what decides its content: the inputs and parts with their SHA-256, the version
  of pdimage, the kind of machine the image is for, the time given to files. The same inputs give the same bytes.
- ``BUNDLE.provenance.json`` beside the bundle has what differs from one build to the next: tools with their versions,
  when it was built and on what. It is an in-toto Statement (version 1) with SLSA Provenance (version 1) of the bundle;
  the list of parts (SBOM) and the licences are put beside the bundle with it.

The SHA-256 of an input that is a directory is that of lines ``TYPE MODE DIGEST PATH`` for all below it, sorted by path:
TYPE is ``d``, ``f`` or ``l``, MODE ``x`` for what its owner may run, else ``-``, DIGEST the content's SHA-256 (of a
link: of its target; of a directory: ``-``).
"""

import hashlib
import json
import os
import platform
import shutil
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import fussy
from pdimage import licences, sbom, threads, tools, treefiles
from pdimage.components import Component
from pdimage.machine import Machine
from pdimage.merge import walk
from pdimage.sbom import Named
from pdimage.wheels import file_digest

PATH = ".fussy/build.json"
_TOOLS = {"apt-get": "apt", "docker": "docker", "dpkg-deb": "dpkg", "gpg": "gpg"}
_LIBRARIES = ("cyclonedx-python-lib", "installer", "jinja2", "packaging", "pip", "pyyaml")
_BUILD_TYPE = "urn:pdimage:build:1"


def write(
    tree: Path,
    image: Named,
    components: Iterable[Component],
    inputs: Iterable[Path],
    *,
    base: Path,
    parameters: Mapping[str, str] | None = None,
    machine: Machine | None = None,
) -> Path:
    """Write the record that stays in TREE and return its file.

    INPUTS are the files and directories that were read, named relative to the directory BASE; what is not there is
    left out. PARAMETERS are what else was asked for, such as the board.
    """
    named = {os.path.relpath(path, base): digest(path) for path in inputs if os.path.lexists(path)}
    content = {
        "format": 1,
        "name": image.name,
        "version": image.version,
        "pdimage": fussy.__version__,
        "machine": asdict(machine or Machine.here()),
        "time": treefiles.epoch(),
        "parameters": dict(parameters or {}),
        "inputs": [{"path": path, "sha256": named[path]} for path in sorted(named)],
        "parts": [{"kind": part.kind, "name": part.name, "version": part.version, "purl": part.purl,
                   "sha256": part.sha256} for part in sorted(components) if not part.inside],
    }
    file = tree / PATH
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return file


def write_beside(bundle: Path, tree: Path, started: datetime) -> tuple[Path, ...]:
    """Put the provenance, the SBOM and the licences of TREE beside the BUNDLE that was packed from it.

    They are named as the bundle, with ``.provenance.json``, ``.sbom.cdx.json`` and ``.licences.txt`` at the end.
    """
    copies = {sbom.PATH: ".sbom.cdx.json", licences.PATH: ".licences.txt"}
    written = []
    for path, suffix in copies.items():
        if (tree / path).is_file():
            written.append(bundle.with_name(bundle.name + suffix))
            shutil.copyfile(tree / path, written[-1])
    statement = provenance(json.loads((tree / PATH).read_text()), bundle.name, file_digest(bundle), started)
    written.append(bundle.with_name(f"{bundle.name}.provenance.json"))
    written[-1].write_text(json.dumps(statement, indent=1, ensure_ascii=False) + "\n")
    return tuple(written)


def provenance(built: Mapping[str, Any], bundle: str, sha256: str, started: datetime) -> dict[str, Any]:
    """Return the statement about a bundle from the record in its tree, BUILT, and from this machine."""
    materials = [{"name": item["path"], "digest": {"sha256": item["sha256"]}} for item in built["inputs"]]
    parts = [{"name": f"{part['name']} {part['version']}", "uri": part["purl"], "digest": {"sha256": part["sha256"]}}
             for part in built["parts"]]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": bundle, "digest": {"sha256": sha256}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": _BUILD_TYPE,
                "externalParameters": {"name": built["name"], "version": built["version"], **built["parameters"]},
                "internalParameters": {"machine": built["machine"], "time": built["time"]},
                "resolvedDependencies": materials + parts,
            },
            "runDetails": {
                "builder": {"id": "urn:pdimage", "version": tool_versions()},
                "metadata": {"startedOn": _time(started), "finishedOn": _time(datetime.now(UTC))},
            },
        },
    }


def tool_versions() -> dict[str, str]:
    """Return the versions of what takes part in a build on this machine, as far as it is here."""
    found = {"pdimage": fussy.__version__, "python": platform.python_version(), "kernel": platform.release()}
    for library in _LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    for program, name in _TOOLS.items():
        if shutil.which(program):
            _, output = tools.attempt([program, "--version"], what=f"ask {program} for its version")
            found[name] = output.partition("\n")[0].strip()
    return found


def digest(path: Path) -> str:
    """Return the SHA-256 in hex of a file or a directory (see above)."""
    if not path.is_dir():
        return file_digest(path)
    top = os.fspath(path)
    lines = threads.each(lambda item: f"{_line(os.path.join(top, item[0]), item[1])} {item[0]}\n", sorted(walk(path)))
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _line(path: str, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return f"l - {hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest()}"
    if stat.S_ISREG(mode):
        return f"f {'x' if mode & 0o100 else '-'} {file_digest(Path(path))}"
    return f"{'d' if stat.S_ISDIR(mode) else '?'} - -"


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
