"""Cleans up or finishes what a crash or a power cut interrupted; every command that changes a target begins with it."""

import logging
import os

import msgspec

from fussy import checked, disk, enable, state
from fussy.errors import FussyError
from fussy.target import Target

log = logging.getLogger(__name__)

# A release whose hooks or checks take the device down each time must not be tried for ever.
MOST_ATTEMPTS = 2


def recover(target: Target) -> None:
    """Bring TARGET, which is locked, into a settled state. Does nothing where nothing was interrupted.

    Interrupted before the swap: the unfinished release is deleted, and if its ``.pre-install`` may have run, the hooks
    of the release in use run to put things right. Interrupted after it: the release is finished, or, when that fails or
    was tried too often, the previous one is brought back. A bad outcome is logged and noted, not raised.
    """
    _tidy(target)
    now = state.load(target)
    transaction = now.transaction
    if transaction is None:
        return
    release, current = target.release(transaction.release), target.current_release()
    previous = target.release(transaction.previous) if transaction.previous else None
    log.warning("the change to %s was interrupted", release.name)
    try:
        if current == release != previous:
            attempts = transaction.attempts + 1
            state.save(target, msgspec.structs.replace(
                now, transaction=msgspec.structs.replace(transaction, attempts=attempts)))
            if attempts > MOST_ATTEMPTS:
                reason = f"interrupted {attempts} times after the swap"
                enable.bring_back(target, previous, failed=release, reason=reason)
            enable.finish(target, release, previous, transaction.action)
        elif transaction.stage == "enabling" and current:
            reason = next((bad.reason for bad in now.bad if bad.release == release.name), "interrupted before the swap")
            enable.bring_back(target, current, failed=release, reason=reason, discard=transaction.action == "install")
        else:
            if transaction.action == "install" and release.is_dir() and release != current:
                with checked.kept(target):
                    disk.discard(release, target.trash)
            state.save(target, state.ended(now, "recovered", release, "interrupted before the swap"))
    except FussyError as error:
        log.warning("%s", error)


def _tidy(target: Target) -> None:
    """Remove what is never in use: staging, trash, temporary names."""
    finish_failsafe(target)
    for directory in (target.staging, target.trash):
        disk.empty(directory)
    for leftover in (target.current, target.state, target.checked):
        temporary = leftover.with_name(leftover.name + "~")
        if temporary.is_symlink() or temporary.is_file():
            temporary.unlink()


def ensure_current_link(target: Target) -> None:
    """See fussy.install.ensure_current_link. ``current`` leads to the complete release at each moment."""
    finish_failsafe(target)
    if target.current.is_symlink() or not os.path.lexists(target.current):
        return
    if os.path.lexists(target.failsafe):
        raise RuntimeError(f"cannot use {target.current}: it is a directory, and {target.failsafe} is there already; "
                           "move one of them away")
    aside = target.current.with_name("current~")
    if os.path.lexists(aside):
        aside.unlink()
    # current -> failsafe -> current~, which is the directory once the two have changed places
    target.failsafe.symlink_to(aside.name)
    aside.symlink_to(target.failsafe.name)
    disk.exchange(aside, target.current)
    finish_failsafe(target)


def finish_failsafe(target: Target) -> None:
    """Do the last step of :func:`ensure_current_link`: the directory gets the name ``failsafe``."""
    aside = target.current.with_name("current~")
    if target.failsafe.is_symlink() and os.readlink(target.failsafe) == aside.name:
        if aside.is_dir() and not aside.is_symlink():
            disk.exchange(aside, target.failsafe)
            aside.unlink()
        elif not target.current.is_symlink():
            # cut short before the names were exchanged: current is still the directory
            target.failsafe.unlink()
            aside.unlink(missing_ok=True)
