"""Tells the state of a target, for people and as JSON."""

import msgspec

from fussy import enable, state
from fussy.target import Target


class Release(msgspec.Struct, frozen=True):
    """An installed release."""

    name: str
    version: str
    path: str


class Status(msgspec.Struct, frozen=True):
    """What ``fussy status --json`` prints. Times are Unix times; absent releases are null."""

    target: str
    current: Release | None
    previous: Release | None
    failsafe: Release | None
    trial: Release | None
    releases: list[Release]
    bad: list[state.Bad]
    last: state.Last | None
    floor: str
    boards: list[str]


def status(target: Target) -> Status:
    """Return the state of TARGET; reads only, so it may be asked while another command works.

    ``trial`` is a release whose installation is not complete: made current, its hooks or checks still to come.
    """
    now = state.load(target)

    def of(name: str) -> Release | None:
        path = target.release(name)
        return Release(name, enable.description(path).version, str(path)) if name and path.is_dir() else None

    current = target.current_release()
    return Status(
        target=str(target.root), current=of(current.name) if current else None, previous=of(now.previous),
        failsafe=of("failsafe"), trial=of(now.transaction.release) if now.transaction else None,
        releases=[release for path in target.releases() if (release := of(path.name))],
        bad=now.bad, last=now.last, floor=now.floor, boards=target.boards())
