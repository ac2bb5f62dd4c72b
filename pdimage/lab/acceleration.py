"""Finds whether guests can run under KVM here, by booting one: a device that is there may still hang a stock kernel."""

import hashlib
import logging
import os
import platform
import re
import subprocess
from pathlib import Path

from fussy.errors import SystemSetup
from pdimage import tools
from pdimage.lab import config, dirlock
from pdimage.lab.qemu import accelerator

log = logging.getLogger(__name__)

# A kernel under KVM needs less than a second to its first program.
PROBE_SECONDS = 12.0
PASSED = b"lab-probe-passed"


def found(kernel: Path, initrd: Path) -> str:
    """Return ``kvm`` if KERNEL boots under it, otherwise ``tcg``. The answer is kept in the cache of the lab.

    The setting ``accel`` goes before.

    :raises SystemSetup: QEMU is not there, or the setting is neither
    """
    wanted = config.text("accel", "")
    if wanted:
        if wanted not in ("kvm", "tcg"):
            raise SystemSetup(f"cannot emulate a processor with {wanted!r}: set PDIMAGE_LAB_ACCEL to kvm or tcg")
        return wanted
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    answers = config.cache() / "accel"
    answers.mkdir(parents=True, exist_ok=True)
    answer = answers / _machine()
    with dirlock.held(answers):
        if not answer.exists():
            answer.write_text("kvm" if _boots(kernel, initrd) else "tcg")
            log.info("guests run under %s here", answer.read_text())
        return answer.read_text()


def _machine() -> str:
    """Return a name for what the answer depends on: this machine's processor and kernel, and QEMU."""
    processor = re.search(r"^model name\s*:.*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    version = tools.run(["qemu-system-x86_64", "--version"], what="start QEMU (apt-get install qemu-system-x86)")
    facts = (platform.release(), platform.version(), processor[0] if processor else "", version)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _boots(kernel: Path, initrd: Path) -> bool:
    argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35",
            *accelerator("kvm"), "-m", "256", "-kernel", str(kernel), "-initrd", str(initrd), "-no-reboot",
            "-append", "console=ttyS0 quiet lab.probe=1", "-serial", "stdio"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        return PASSED in (error.stdout or b"")
    return PASSED in done.stdout
