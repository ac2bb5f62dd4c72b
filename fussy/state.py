"""What a target remembers that its directories don't say: ``.fussy/state.json``.

Which release is current is not in here: the link ``current`` says it. A transaction is written before a release gets
its name in the target, and taken out when its outcome is known, so what is found in it after a crash tells what was
going on: before the swap ``current`` is still ``previous``, after it ``current`` is ``release``. A trial follows the
transaction where a release must prove itself for longer; what has become of that is told in fussy.trial.

A device that falls back reads this file with the fussy of an older release: fields may be added, and texts may get
values that it does not know.
"""

import errno
import logging
import os
import time
from pathlib import Path
from typing import Literal

import msgspec

from fussy import disk
from fussy.manifest import Confirm
from fussy.target import Target

log = logging.getLogger(__name__)

FORMAT = 1
_KEPT = 32
_EXCUSES = 3

Outcome = Literal["installed", "on-trial", "confirmed", "reverted", "failsafe", "unrecoverable", "refused",
                  "rolled-back", "recovered"]


class Transaction(msgspec.Struct, frozen=True):
    """A release that is being made current.

    ``stage`` is ``placing`` until its first hook may run; ``attempts`` counts how often it was tried after the swap.
    ``reason``: why it is being taken back; "" while it is being brought in. ``discard``: whether it is deleted then.
    ``boot``: id of a boot that was counted before anything was done about it. ``worked``: see :attr:`Trial.worked`.
    """

    release: str
    previous: str
    action: Literal["install", "rollback"]
    stage: Literal["placing", "enabling"] = "placing"
    digest: str = ""
    attempts: int = 0
    reason: str = ""
    discard: bool = False
    boot: str = ""
    worked: dict[str, list[str]] = {}


class Trial(msgspec.Struct, frozen=True):
    """A release that is current and whose hooks and checks have passed, but that is not confirmed yet.

    ``since`` and ``until`` are Unix times for people, by a clock that may be wrong. What counts is ``seconds``, how
    long the device may run with it, of which ``spent`` were over when it had run for ``up`` seconds in the boot
    called ``boot`` (see fussy.uptime), and ``boots``, how often it has booted, of ``most_boots``.
    ``earlier`` is the previous release before all that, and will be again when this one is taken back.
    ``worked``: what passed before the swap: names of checks, each with the lines that it showed.
    """

    release: str
    previous: str
    confirm: Confirm
    since: int
    until: int
    seconds: float
    most_boots: int
    boot: str
    up: float
    spent: float = 0.0
    boots: int = 0
    digest: str = ""
    earlier: str = ""
    worked: dict[str, list[str]] = {}


class Bad(msgspec.Struct, frozen=True):
    """A release that failed on this device; ``digest`` is its manifest's (see fussy.manifest.digest).

    ``excused`` counts how often that was not its doing: it was interrupted before the swap, or the disk was full.
    """

    release: str
    version: str
    digest: str
    reason: str
    at: int
    excused: int = 0

    @property
    def refused(self) -> bool:
        """Whether the updater leaves it alone; what is excused is tried again, but not for ever."""
        return not 0 < self.excused < _EXCUSES


class Last(msgspec.Struct, frozen=True):
    """How the last change of the target ended (an :data:`Outcome`), at a Unix time."""

    outcome: str
    release: str
    reason: str
    at: int


class State(msgspec.Struct, frozen=True):
    """Everything remembered; names are names of releases, "" when there is none.

    ``digests``: by the name of a release, the digest that its manifest must have (see fussy.manifest.digest).
    """

    format: int = FORMAT
    previous: str = ""
    floor: str = ""
    transaction: Transaction | None = None
    trial: Trial | None = None
    bad: list[Bad] = []
    last: Last | None = None
    digests: dict[str, str] = {}


def load(target: Target) -> State:
    """Return the state; a file that is damaged is put aside, for an unreadable note must not end all upgrades."""
    try:
        state = msgspec.json.decode(target.state.read_bytes(), type=State)
    except FileNotFoundError:
        return State()
    except (msgspec.MsgspecError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EIO:
            raise
        log.warning("putting %s aside as state.json.damaged: %s", target.state, error)
        target.state.rename(target.state.with_name("state.json.damaged"))
        return State()
    return state


def save(target: Target, state: State, *, everything: bool = False) -> None:
    """Write the state; durable when this returns, with EVERYTHING that was written to the target before, if asked."""
    disk.replace_file(target.state, msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n",
                      everything=everything)


def now() -> int:
    """Return the Unix time in whole seconds."""
    return int(time.time())


def ended(state: State, outcome: Outcome, release: Path | str, reason: str = "") -> State:
    """Return STATE with no transaction and OUTCOME as the last."""
    last = Last(outcome, os.path.basename(release), reason, now())
    return msgspec.structs.replace(state, transaction=None, last=last)


def marked_bad(state: State, bad: Bad) -> State:
    """Return STATE with BAD at the end of its list of bad releases (the last 32 are kept)."""
    others = [old for old in state.bad if old.release != bad.release]
    return msgspec.structs.replace(state, bad=[*others, bad][-_KEPT:])


def with_digest(state: State, target: Target, release: str, digest: str) -> State:
    """Return STATE with the DIGEST of a release of TARGET ("": not known), and none of releases that are gone."""
    there = {path.name for path in target.releases()}
    kept = {name: known for name, known in state.digests.items() if name in there and name != release}
    return msgspec.structs.replace(state, digests={**kept, release: digest} if digest else kept)
