"""Writes the programs of our own packages into ``bin``, and ``lib/start.py`` that they share.

They are small shell scripts that find their release by the path they were called by, so a tree works wherever it lies
and through whatever link. They use the system's Python, with the packages in ``lib/python`` and no others, never write
into the release, and the runtime gets the settings of the image.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pdimage import treefiles

RELEASE_FILES = Path(__file__).parent / "release"
# Programs by the package that has them, with module and function.
PROGRAMS: Mapping[str, Mapping[str, str]] = {
    "fussy": {
        "fussy": "fussy.cli:main", "fussy-pack": "fussy.pack:main", "fussy-install": "fussy.install:main",
        "fussy-clean": "fussy.install:clean_main", "fussy-link-tree": "fussy.linktree:main",
        "fussy-southrollback": "fussy.southrollback:main", "fussy-south-rollback": "fussy.southrollback:main",
    },
    "paradrop": {
        "paradrop": "paradrop.tools.cli:main", "paradrop-image": "paradrop.image.cli:main", "pd": "paradrop.main:main",
    },
}
# Scripts of pdimage/release that need the installer.
SCRIPTS = ("firmware-recover", "firmware-verify")


def write(tree: Path, packages: Sequence[str]) -> None:
    """Write the programs of our PACKAGES into TREE."""
    if packages:
        treefiles.copy(tree, "lib/start.py", RELEASE_FILES / "start.py")
    for package in packages:
        for program, entry in PROGRAMS[package].items():
            treefiles.write(tree, f"bin/{program}", wrapper(program, entry), 0o755)
    for script in SCRIPTS if "fussy" in packages else ():
        treefiles.write(tree, f"bin/{script}", (RELEASE_FILES / script).read_bytes(), 0o755)


def wrapper(program: str, entry: str) -> str:
    """Return the script ``bin/PROGRAM``, which calls ENTRY (``module:function``)."""
    return (RELEASE_FILES / "wrapper").read_text().replace("NAME", program).replace("ENTRY", entry)
