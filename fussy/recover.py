"""Cleans up or finishes what a crash or a power cut interrupted; every command that changes a target begins with it."""

import logging
import os
from pathlib import Path
from typing import NoReturn

import msgspec

from fussy import checked, disk, enable, state, trial, uptime
from fussy.errors import FussyError, SystemSetup
from fussy.target import Target

log = logging.getLogger(__name__)


def recover(target: Target) -> None:
    """Bring TARGET, which is locked, into a settled state. Does nothing where nothing was interrupted or is overdue.

    Interrupted before the swap: the unfinished release is deleted, and if its ``.pre-install`` may have run, the hooks
    of the release in use run to put things right. Interrupted after it: the release is finished, or, when that fails or
    was tried too often, the previous one is brought back. A trial that has had its time or its boots ends with the
    release being taken back. A bad outcome is logged and noted, not raised.
    """
    _tidy(target)
    try:
        if transaction := state.load(target).transaction:
            _settle(target, transaction)
        _end_trial(target)
    except FussyError as error:
        log.warning("%s", error)


def _settle(target: Target, transaction: state.Transaction) -> None:
    release, current = target.release(transaction.release), target.current_release()
    previous = target.release(transaction.previous) if transaction.previous else None
    log.warning("the change to %s was interrupted", release.name)
    if transaction.reason or current == release != previous:
        transaction = _counted(transaction, uptime.now().boot, again=True)
        state.save(target, msgspec.structs.replace(state.load(target), transaction=transaction))
    with enable.guarded(target, release, previous):
        _go_on(target, transaction, release, previous)


def _go_on(target: Target, transaction: state.Transaction, release: Path, previous: Path | None) -> None:
    current = target.current_release()
    tired = transaction.attempts > _most_boots(release)
    if transaction.reason:
        # what goes down each time that the previous release comes back must not be tried for ever either
        back = target.failsafe if tired and target.failsafe.is_dir() else previous
        enable.bring_back(target, back, failed=release, reason=transaction.reason, discard=transaction.discard)
    elif current == release != previous:
        if tired:
            enable.bring_back(target, previous, failed=release, reason=_interrupted(transaction))
        enable.finish(target, release, previous, transaction.action)
    elif transaction.stage == "enabling" and current:
        enable.bring_back(target, current, failed=release, reason="interrupted before the swap",
                          discard=transaction.action == "install", excused=True)
    else:
        if transaction.action == "install" and release.is_dir() and release != current:
            with checked.kept(target):
                disk.discard(release, target.trash)
        state.save(target, state.ended(state.load(target), "recovered", release, "interrupted before the swap"))


def _end_trial(target: Target) -> None:
    """Count this boot and this time; take the release on trial back if it has had too much of either."""
    now = state.load(target)
    if now.trial is None:
        return
    release = target.release(now.trial.release)
    if target.current_release() != release:
        log.warning("%s is not current any more; its trial has ended", release.name)
        state.save(target, msgspec.structs.replace(now, trial=None))
        return
    seen = trial.seen(now.trial, uptime.now())
    state.save(target, msgspec.structs.replace(now, trial=seen))
    if reason := trial.overdue(seen):
        take_back(target, seen, reason)


def take_back(target: Target, on: state.Trial, reason: str) -> NoReturn:
    """End the trial ON, which is current, for REASON with the release before it, or with the failsafe.

    :raises Reverted: that is done
    :raises Unrecoverable: nothing could be brought back
    """
    release = target.release(on.release)
    previous = target.release(on.previous) if on.previous else None
    with enable.guarded(target, release, previous):
        enable.bring_back(target, previous, failed=release, reason=reason)


def count_boot(target: Target) -> None:
    """Count this boot of the locked TARGET; lead ``current`` back where the release has had too many, or its time.

    That is all: no hook and no check runs, so it is quick, and it can come before whatever a release starts. The rest
    is left to :func:`recover`.
    """
    now, current, moment = state.load(target), target.current_release(), uptime.now()
    going: state.Transaction | state.Trial | None = now.transaction or now.trial
    if going is None or current != target.release(going.release) or going.previous == going.release:
        return
    if isinstance(going, state.Trial):
        going = trial.seen(going, moment)
        now, reason = msgspec.structs.replace(now, trial=going), trial.overdue(going)
    elif not going.reason:
        going = _counted(going, moment.boot, again=False)
        now = msgspec.structs.replace(now, transaction=going)
        reason = _interrupted(going) if going.attempts > _most_boots(current) else ""
    else:
        reason = going.reason
    state.save(target, now)
    previous = target.release(going.previous) if going.previous else target.failsafe
    back = previous if previous.is_dir() else target.failsafe
    if reason and back.is_dir():
        enable.mark(target, previous, failed=current, reason=reason)
        disk.swap_link(target.current, back.name)


def _counted(transaction: state.Transaction, boot: str, *, again: bool) -> state.Transaction:
    """Return TRANSACTION with one more attempt, unless the boot was counted already; AGAIN: count the next run too."""
    attempts = transaction.attempts + (transaction.boot != boot)
    return msgspec.structs.replace(transaction, attempts=attempts, boot="" if again else boot)


def _interrupted(transaction: state.Transaction) -> str:
    return f"interrupted {transaction.attempts} times after the swap"


def _most_boots(release: Path) -> int:
    """Return how often RELEASE may be tried; the boot must not fail because of what the owner wrote."""
    try:
        return enable.demanded(release).boots
    except SystemSetup as error:
        log.warning("%s", error)
        return enable.description(release).trial.boots


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
