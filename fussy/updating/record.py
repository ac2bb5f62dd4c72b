"""What the updater remembers of its last run (``state.json``), and what the router's owner asked for (``owner.json``).

Anybody may read both while an updater works: each write replaces the file. A file that can't be read counts as absent;
no update may fail for the sake of a note.
"""

import logging
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from fussy import disk
from fussy.target import Target

log = logging.getLogger(__name__)

Outcome = Literal[
    "never", "nothing-new", "updated", "available",
    "held", "postponed", "outside-window", "notify-only", "roll-out", "off", "on-trial",
    "refused", "reverted", "unrecoverable", "unreachable", "untrusted", "slow", "failed",
]
R = TypeVar("R", bound="Record | Owner")


class Waiting(msgspec.Struct, frozen=True):
    """An update that is offered and not installed yet. ``size`` is what would be downloaded, in bytes; ``since`` is the
    Unix time it was first seen."""

    release: str
    version: str
    digest: str
    size: int
    security: bool = False
    notes: str = ""
    since: int = 0


class Problem(msgspec.Struct, frozen=True):
    """A source that was passed over, and why."""

    source: str
    why: str


class Spoilt(msgspec.Struct, frozen=True):
    """A bundle of the channel that could not be used, by its SHA-256; it is not fetched again before the Unix time
    ``until`` (0: never)."""

    sha256: str
    reason: str
    until: int


class Seen(msgspec.Struct, frozen=True):
    """What made the updater say "nothing new": while both are the same and not expired, it need not ask further.

    ``timestamp`` is the SHA-256 of the channel's timestamp.json, ``facts`` of all else that decides.
    """

    timestamp: str
    facts: str


class Record(msgspec.Struct, frozen=True):
    """How the last run of the updater ended. Times are Unix times, 0 for never.

    ``checked`` is when a source's metadata was last found valid, ``source`` which one that was. ``line`` is what the
    run said. ``next_window`` is when a waiting update may be installed, 0 when that is not a matter of time. ``told``
    is when ``line`` was last printed.
    """

    format: int = 1
    at: int = 0
    outcome: Outcome = "never"
    line: str = ""
    exit_code: int = 0
    checked: int = 0
    source: str = ""
    waiting: Waiting | None = None
    next_window: int = 0
    problems: list[Problem] = []
    told: int = 0
    seen: Seen | None = None
    spoilt: list[Spoilt] = []


class Owner(msgspec.Struct, frozen=True):
    """What the owner asked for by command: install nothing while ``held`` (until a Unix time, 0: until told
    otherwise), or not before ``postponed``."""

    held: bool = False
    held_until: int = 0
    postponed: int = 0
    reason: str = ""


def place(target: Target) -> Path:
    """Return the updater's directory in TARGET; it need not be there."""
    return target.private / "update"


def load(target: Target) -> Record:
    """Return how the last run ended; an empty record if there was none."""
    return _load(place(target) / "state.json", Record())


def save(target: Target, record: Record) -> None:
    """Write the record; durable when this returns."""
    _save(place(target) / "state.json", record)


def load_owner(target: Target) -> Owner:
    """Return what the owner asked for."""
    return _load(place(target) / "owner.json", Owner())


def current(owner: Owner, now: int) -> Owner:
    """Return what of OWNER's wishes still counts at the Unix time NOW."""
    if owner.held and owner.held_until and owner.held_until <= now:
        return Owner()
    return msgspec.structs.replace(owner, postponed=0) if owner.postponed <= now else owner


def save_owner(target: Target, owner: Owner) -> None:
    """Write what the owner asks for; durable when this returns."""
    _save(place(target) / "owner.json", owner)


def _load(path: Path, empty: R) -> R:
    try:
        return msgspec.json.decode(path.read_bytes(), type=type(empty))
    except FileNotFoundError:
        pass
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.warning("passing over %s: %s", path, error)
    return empty


def _save(path: Path, value: Record | Owner) -> None:
    for directory in (path.parent.parent, path.parent):
        directory.mkdir(mode=0o700, exist_ok=True)
    disk.replace_file(path, msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
