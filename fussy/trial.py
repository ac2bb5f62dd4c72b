"""Decides what becomes of a release that must prove itself longer than its installation takes.

::

    installed, checks passed ──> on trial ──fussy trial after a boot (confirm: boot), or fussy confirm──> confirmed
                                    │  ^└─ each fussy trial asks the checks again
                                    │too many boots, too long, a check fails, fussy reject
                                    v
                                  taken back: previous, or failsafe (see fussy.enable)

Two limits bound a trial, and no clock that can be set takes part: the seconds that the device was up with the release,
and how often it has booted. A boot counts when any command that changes the target first sees it; ``fussy recover`` at
boot sees to that before the release gets a chance to take the device down again.
"""

import msgspec

from fussy import manifest, state, uptime
from fussy.errors import OnTrial
from fussy.target import Target
from fussy.uptime import Moment


def begun(
    transaction: state.Transaction, wanted: manifest.Trial, moment: Moment, now: int, earlier: str = ""
) -> state.Trial:
    """Return the trial that follows TRANSACTION; WANTED must not be confirmed by checks alone."""
    return state.Trial(
        release=transaction.release, previous=transaction.previous, confirm=wanted.confirm, since=now,
        until=now + int(wanted.seconds), seconds=wanted.seconds, most_boots=wanted.boots, boot=moment.boot,
        up=moment.up, digest=transaction.digest, earlier=earlier, worked=transaction.worked)


def seen(trial: state.Trial, moment: Moment) -> state.Trial:
    """Return TRIAL as it stands at MOMENT: a boot that is new counts, and time that has gone by."""
    spent = trial.spent + uptime.between(Moment(trial.boot, trial.up), moment)
    return msgspec.structs.replace(trial, boot=moment.boot, up=moment.up, spent=spent,
                                   boots=trial.boots + (moment.boot != trial.boot))


def overdue(trial: state.Trial) -> str:
    """Return why the release must be taken back now, or an empty text.

    >>> trial = state.Trial("new", "old", "hand", 0, 60, seconds=60, most_boots=2, boot="a", up=5)
    >>> overdue(trial)
    ''
    >>> overdue(seen(trial, Moment("a", 66)))
    'not confirmed within 60 s'
    >>> overdue(seen(seen(seen(trial, Moment("b", 1)), Moment("c", 1)), Moment("d", 1)))
    'booted 3 times without being confirmed'
    """
    if trial.boots > trial.most_boots:
        return f"booted {trial.boots} times without being confirmed"
    if trial.spent > trial.seconds:
        return f"not confirmed within {trial.seconds:g} s"
    return ""


def refuse_during(target: Target, action: str) -> None:
    """Refuse ACTION while a release is on trial: what it is taken back to must stay what it is.

    :raises OnTrial: one is
    """
    if on := state.load(target).trial:
        raise OnTrial(f"cannot {action}: {on.release} is on trial; keep it with fussy confirm or take it back with "
                      "fussy reject first")
