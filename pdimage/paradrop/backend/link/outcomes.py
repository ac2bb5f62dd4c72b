"""How attempts to update have ended, kept until the server has heard of them.

::

    CONFIG_HOME_DIR/link/outcomes.json     what was seen last, and the newest 100 that the server does not know

The updater runs by itself and writes its history; what happens between its runs (a trial that ends, a release that is
brought back by hand) is in the state of the target. Both are read again and again, the server there or not.
"""

import logging
from pathlib import Path

import msgspec

from fussy import disk, state
from fussy.target import Target
from fussy.updating import history, record
from paradrop.backend.link.messages import Outcome
from paradrop.lib import settings
from paradrop.lib.utils import pdosq

log = logging.getLogger(__name__)

KEPT = 100
_LINE, _RELEASE = 1000, 200
_BETWEEN_RUNS = {"confirmed", "reverted", "failsafe", "unrecoverable", "rolled-back", "recovered"}


class Kept(msgspec.Struct, frozen=True):
    """The content of outcomes.json: the newest event and outcome of the target that were seen, and what is unsent."""

    event: history.Event | None = None
    last: state.Last | None = None
    unsent: tuple[Outcome, ...] = ()


class Outcomes:
    """The outcomes of one target. The link uses it, one thread at a time."""

    def __init__(self) -> None:
        directory = Path(settings.CONFIG_HOME_DIR) / "link"
        pdosq.makedirs(directory)
        directory.chmod(0o700)
        self._file = directory / "outcomes.json"
        self._kept = self._load()

    @property
    def unsent(self) -> tuple[Outcome, ...]:
        """What the server has not heard of, the oldest first."""
        return self._kept.unsent if self._kept else ()

    def look(self, target: Target) -> None:
        """Take up what has happened since the last look. What was before the very first one is the past."""
        events, last = history.read(record.place(target)), state.load(target).last
        newest = events[-1] if events else None
        if self._kept is None:
            self._save(Kept(newest, last))
        elif (newest, last) != (self._kept.event, self._kept.last):
            found = [*_of_events(events, self._kept.event), *_of_last(last, self._kept.last)]
            unsent = (*self._kept.unsent, *sorted(found, key=lambda outcome: outcome.at))
            self._save(Kept(newest, last, unsent[-KEPT:]))

    def told(self, outcome: Outcome) -> None:
        """The server has heard of this one."""
        assert self._kept is not None
        left = tuple(one for one in self._kept.unsent if one is not outcome)
        self._save(msgspec.structs.replace(self._kept, unsent=left))

    def _save(self, kept: Kept) -> None:
        self._kept = kept
        try:
            disk.replace_file(self._file, msgspec.json.encode(kept))
        except OSError as error:
            log.warning("cannot keep what the server has yet to hear: %s", error)

    def _load(self) -> Kept | None:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Kept)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("passing over %s: %s", self._file, error)
            return None


def _of_events(events: list[history.Event], seen: history.Event | None) -> list[Outcome]:
    """Return what is newer than what was seen; all, where that is not there any more."""
    after = max((number for number, event in enumerate(events, 1) if event == seen), default=0)
    return [Outcome(event.at, event.outcome, event.line[:_LINE], event.to_version[:_RELEASE])
            for event in events[after:]]


def _of_last(last: state.Last | None, seen: state.Last | None) -> list[Outcome]:
    if last is None or last == seen or last.outcome not in _BETWEEN_RUNS:
        return []
    line = f"{last.release} {last.outcome}{f': {last.reason}' if last.reason else ''}"
    return [Outcome(last.at, last.outcome, line[:_LINE], last.release[:_RELEASE])]
