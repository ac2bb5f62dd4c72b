"""Environments for tests and power cuts: in directories of their own, which go with the process that made them.

::

    /var/tmp/lab-env-XXXXXXXX/    (or elsewhere: setting ``work_dir``)
        owner      process id and start of the process that it belongs to
        prefix/    the environment, bound to that process

Its machines end with the process even if that is killed; its files, and with them its leases, are removed by the next
that makes such a directory.
"""

import os
import tempfile
from pathlib import Path

from pdimage.lab import config, keeping, utils
from pdimage.lab.prefix import Prefix

_NAME = "lab-env-"


def directory() -> Path:
    """Make a directory for whatever this process needs; those of processes that are gone are removed before."""
    sweep()
    made = Path(tempfile.mkdtemp(prefix=_NAME, dir=_place()))
    (made / "owner").write_text(f"{os.getpid()} {keeping.started(os.getpid())}")
    return made


def make() -> Prefix:
    """Return a new prefix, not initialized, in such a directory."""
    return Prefix(directory() / "prefix", bound=True)


def discard(prefix: Prefix) -> None:
    """Stop and delete what :func:`make` has made."""
    if Path(prefix.paths.uuid()).exists():
        prefix.destroy()
    utils.remove(Path(prefix.paths.prefix()).parent)


def sweep() -> None:
    """Remove the environments of processes that are gone."""
    for owner in _place().glob(f"{_NAME}*/owner"):
        try:
            pid, started = map(int, owner.read_text().split())
        except (OSError, ValueError):
            continue  # it is being made, or removed by somebody else
        if keeping.started(pid) != started:
            discard(Prefix(owner.parent / "prefix"))


def _place() -> Path:
    return Path(config.text("work_dir", "/var/tmp"))
