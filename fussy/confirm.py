"""Ends a trial: by hand, or because the checks say so. The target is locked and settled (see fussy.recover)."""

import logging
from pathlib import Path

from fussy import enable, health, recover, state
from fussy.errors import FussyError, Reverted, UnhealthyRelease
from fussy.target import Target

log = logging.getLogger(__name__)


def confirm(target: Target) -> Path:
    """Accept the release on trial, whatever it waits for; return its path.

    :raises FussyError: none is on trial
    """
    release = target.release(_trial(target, "confirm").release)
    state.save(target, enable.accepted(state.load(target), release, "confirmed"))
    return release


def reject(target: Target, reason: str = "") -> Path:
    """Take the release on trial back for good; return the path of what is in use then.

    :raises FussyError: none is on trial
    :raises Unrecoverable: nothing could be brought back
    """
    on = _trial(target, "reject")
    try:
        recover.take_back(target, on, reason or "rejected by hand")
    except Reverted as done:
        log.info("%s", done)
    return target.current_release() or target.failsafe


def examine(target: Target) -> state.Trial | None:
    """Ask the checks of the release on trial; return its trial if it goes on, or None if there is none any more.

    They confirm it when that is all it waits for: it must have booted since it came.

    :raises SystemSetup: the owner's checks can't be read; the trial goes on
    :raises Reverted: one failed, and an earlier release is in use again
    :raises Unrecoverable: one failed, and nothing could be brought back
    """
    on = state.load(target).trial
    if on is None:
        return None
    release = target.release(on.release)
    previous = target.release(on.previous) if on.previous else None
    problem = ""
    with enable.guarded(target, release, previous):
        try:
            health.check(release, enable.asked(release), on.worked, on.seconds - on.spent)
        except UnhealthyRelease as error:
            problem = str(error)
    if problem:
        recover.take_back(target, on, problem)
    if on.confirm == "boot" and on.boots:
        confirm(target)
        return None
    return on


def _trial(target: Target, action: str) -> state.Trial:
    on = state.load(target).trial
    if on is None:
        raise FussyError(f"cannot {action}: no release is on trial; fussy status shows what is in use")
    return on
