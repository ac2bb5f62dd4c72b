"""Writes the programs of our own packages into ``bin``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pdimage import launchers, treefiles

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
SCRIPTS = ("firmware-clean", "firmware-recover", "firmware-trial", "firmware-verify")


def write(tree: Path, packages: Sequence[str]) -> None:
    """Write the programs of our PACKAGES into TREE."""
    for package in packages:
        for program, entry in PROGRAMS[package].items():
            treefiles.write(tree, f"bin/{program}", launchers.python(entry), 0o755)
    for script in SCRIPTS if "fussy" in packages else ():
        treefiles.write(tree, f"bin/{script}", (RELEASE_FILES / script).read_bytes(), 0o755)
