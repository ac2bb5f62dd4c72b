"""Deletes what a target no longer needs; see fussy.install.clean."""

import os
from collections.abc import Iterable
from pathlib import Path

from fussy import checked, disk, recycle, state
from fussy.target import Target


def clean(target: Target, protected: Iterable[str | Path] = (), *, spare: bool = True) -> list[str]:
    """Delete all names in the locked TARGET that nothing needs; return them, sorted.

    Of the youngest release among them is kept, out of sight, what the next one can be made of (see fussy.recycle);
    without SPARE not even that, nor what is kept already.
    """
    # one spelling of each path: the target may have been reached through a link
    named = [Path(path) for path in protected]
    kept = needed(target) | {Path(os.path.realpath(path.parent)) / path.name for path in named}
    doomed = sorted(path for path in target.root.iterdir() if path not in kept and not path.name.startswith("."))
    releases = sorted((path for path in doomed if path.is_dir() and not path.is_symlink()),
                      key=lambda path: path.lstat().st_ctime_ns)
    with checked.kept(target):
        for path in doomed:
            if path not in releases:
                path.unlink()
            elif spare and path == releases[-1]:
                recycle.keep(target, path)
            else:
                disk.discard(path, target.trash)
        if spare:
            recycle.strip(target)
        else:
            recycle.give_up(target)
    disk.sync_directory(target.root)
    return [path.name for path in doomed]


def needed(target: Target) -> set[Path]:
    """Return the paths in TARGET that are never deleted."""
    now = state.load(target)
    names = {"current", "failsafe", now.previous}
    if now.transaction:
        names |= {now.transaction.release, now.transaction.previous}
    if now.trial:
        names |= {now.trial.release, now.trial.previous, now.trial.earlier}
    return {target.release(name) for name in names if name} | {Path(os.path.realpath(target.current))}
