"""Environments for tests: in directories of their own, which go with the process that made them.

::

    /var/tmp/lab-env-XXXXXXXX/
        owner      process id and start of the process that it belongs to
        prefix/    the environment, bound to that process

Its machines end with the process even if that is killed; its files, and with them its leases, are removed by the next
that makes an environment.
"""

import os
import shutil
import tempfile
from pathlib import Path

from pdimage.lab import keeping
from pdimage.lab.prefix import Prefix

PLACE = Path("/var/tmp")  # a disk, not memory
_NAME = "lab-env-"


def make() -> Prefix:
    """Return a new prefix, not initialized; those of processes that are gone are removed before."""
    sweep()
    directory = Path(tempfile.mkdtemp(prefix=_NAME, dir=PLACE))
    (directory / "owner").write_text(f"{os.getpid()} {keeping.started(os.getpid())}")
    return Prefix(directory / "prefix", bound=True)


def discard(prefix: Prefix) -> None:
    """Stop and delete what :meth:`make` has made."""
    if Path(prefix.paths.uuid()).exists():
        prefix.destroy()
    shutil.rmtree(Path(prefix.paths.prefix()).parent, ignore_errors=True)


def sweep() -> None:
    """Remove the environments of processes that are gone."""
    for owner in PLACE.glob(f"{_NAME}*/owner"):
        try:
            pid, started = map(int, owner.read_text().split())
        except (OSError, ValueError):
            continue  # it is being made, or removed by somebody else
        if keeping.started(pid) != started:
            discard(Prefix(owner.parent / "prefix"))
