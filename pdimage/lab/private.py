"""Runs a program where nothing of it can stay: in namespaces of its own, which end with the process that asked for it.

The program is the first process of a process namespace, so all that it starts dies with it; it has a mount namespace,
so its mounts go then, and with them the loop devices that ``mount`` made. All of that happens also when the process
that called :func:`run` is killed, at any moment.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from fussy.errors import SystemSetup

# A directory that is on every system; in the namespace it is empty, in memory, and ours.
PLACE = Path("/mnt")
_INSIDE = "PDIMAGE_LAB_PRIVATE"
_MOUNTS = f'mount -t tmpfs -o mode=700 private {PLACE} && exec "$@"'


def inside() -> bool:
    """Tell whether this process runs in such namespaces."""
    return _INSIDE in os.environ


def run(argv: Sequence[str]) -> int:
    """Run a program in namespaces of its own, and return its exit code.

    :raises SystemSetup: this is not root, or a tool is missing
    """
    if os.geteuid() != 0:
        raise SystemSetup("cannot mount file systems: run as root")
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc",
                  "--propagation", "private"]
    try:
        return subprocess.run(["setpriv", "--pdeathsig", "KILL", *namespaces, "sh", "-c", _MOUNTS, "sh", *argv],
                              env={**os.environ, _INSIDE: "1"}, check=False).returncode
    except FileNotFoundError as error:
        raise SystemSetup(f"cannot make namespaces: {error.filename} is not there; install util-linux") from error
