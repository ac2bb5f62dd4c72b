"""The walk through pdimage/lab/README.rst, word for word."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pdimage.lab import plugin

pytestmark = pytest.mark.lab

README = Path(plugin.__file__).with_name("README.rst")


def blocks() -> list[str]:
    """Return the literal blocks of the page, without their indentation."""
    return [re.sub("^    ", "", found, flags=re.MULTILINE)
            for found in re.findall(r"::\n\n((?:    .*\n|\n)+)", README.read_text())]


def test_every_line_of_the_walk_prints_what_it_says(lab_directory: Path) -> None:
    if reason := plugin.missing():
        pytest.skip(reason)
    description, walk = blocks()[:2]
    (lab_directory / "LagoInitFile").write_text(description)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                   "PDIMAGE_LAB_LEASE_DIR": str(lab_directory / "leases")}
    for line, told in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", walk, re.MULTILINE):
        done = subprocess.run(["sh", "-c", line], cwd=lab_directory, env=environment, text=True, capture_output=True,
                              stdin=subprocess.DEVNULL, check=False, timeout=600)
        assert (line, done.returncode) == (line, 0), done.stderr
        assert done.stdout == told.replace("/home/me/walk", str(lab_directory)), line
