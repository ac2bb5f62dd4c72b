"""Runs the verbs of ``pdimage lab`` that need no virtual machine, but root and what file systems need."""

import os
import shutil
import subprocess
import sys

import pytest


def check_machine() -> None:
    """Skip the test where disks can't be mounted."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"):
        pytest.skip("needs root, FUSE and loop devices")
    if absent := [name for name in ("qemu-storage-daemon", "setpriv", "gpg") if shutil.which(name) is None]:
        pytest.skip(f"{', '.join(absent)} missing: see scripts/packages")


def lab(*words: str, seconds: float = 300) -> "subprocess.CompletedProcess[str]":
    """Run ``pdimage lab WORDS``."""
    check_machine()
    return subprocess.run([sys.executable, "-m", "pdimage", "lab", *words], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=seconds, check=False)
