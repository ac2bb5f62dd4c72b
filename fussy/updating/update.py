"""One run of the updater: look, choose, fetch, install, remember (command ``fussy-update``).

A run may be killed anywhere. Until the bundle is handed to fussy.install nothing but the updater's own directory has
changed, and each file there is replaced or verified; from then on fussy.enable and fussy.recover answer for it.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fussy import __version__, state
from fussy import target as targets
from fussy.errors import (
    BadBundle,
    Busy,
    FussyError,
    Incompatible,
    OnlyRefused,
    Reverted,
    TooSlow,
    Unreachable,
    Unrecoverable,
    Untrusted,
    UntrustedChannel,
    UnusableDelta,
    of_machine,
    words,
)
from fussy.target import Target
from fussy.updating import device, downloads, fetching, history, record, sources, trusted
from fussy.updating.choose import Choice, Device, Found, choose, named
from fussy.updating.clock import Clock
from fussy.updating.record import Outcome, Problem, Record, Seen, Spoilt, Waiting
from fussy.updating.settings import Settings

if TYPE_CHECKING:
    import click

log = logging.getLogger(__name__)

DAY = 86400
_MOST_SPOILT = 32
EXIT_CODES: dict[Outcome, int] = {"held": 11, "postponed": 11, "outside-window": 11, "notify-only": 11, "roll-out": 11,
                                  "on-trial": 12, "refused": OnlyRefused.exit_code}
_OF_ERRORS: list[tuple[type[FussyError], Outcome]] = [
    (Reverted, "reverted"), (Unrecoverable, "unrecoverable"), (Unreachable, "unreachable"),
    (UntrustedChannel, "untrusted"), (TooSlow, "slow"), (OnlyRefused, "refused")]

# Makes a progress report for a label.
Bar = Callable[[str], AbstractContextManager[downloads.Progress | None]]
# Gets the file of a way onto the disk; installs that file, and returns what it turned out to be.
Fetch = Callable[[Found, downloads.Progress | None], Path]
Enable = Callable[[Path, Found, Device, downloads.Progress | None], Found]


@dataclass(frozen=True)
class Wish:
    """What a run is asked for: look only (CHECK), say what would be done (DRY_RUN), or install whatever was set
    before (INSIST)."""

    check: bool = False
    dry_run: bool = False
    insist: bool = False


def run(path: Path, settings: Settings, keyring: Path, wish: Wish, *, bar: Bar | None = None) -> Record:
    """Update the target at PATH if there is something to update to; return how it went, as it was recorded.

    What goes wrong with the channel or a release is in the record, with its exit code, and is not raised.

    :raises Busy: another updater, or another command on the target, works
    :raises SystemSetup: there is no such target
    """
    target = targets.find(path)
    kind: type[Run] = Run
    if settings.hawkbit:
        from fussy.updating import hawkbit

        kind = hawkbit.Tasked
    with fetching.locked(target) as place:
        return kind(target, place, settings, keyring, wish, bar or no_bar).run()


def no_bar(label: str) -> AbstractContextManager[None]:
    """Report no progress."""
    return nullcontext()


class Run:
    """A run, with what it has found out so far. :mod:`.demand` and :mod:`.hawkbit` have other ways to update."""

    def __init__(self, target: Target, place: Path, settings: Settings, keyring: Path, wish: Wish, bar: Bar) -> None:
        self.target, self.place, self.settings, self.keyring = target, place, settings, keyring
        self.wish, self.bar = wish, bar
        self.old = record.load(target)
        self.now = int(time.time())
        self.troubles: list[FussyError] = []
        self.spoilt = [one for one in self.old.spoilt if not one.until or one.until > self.now]
        self.checked, self.source, self.downloaded = self.old.checked, "", 0
        self.seen: Seen | None = None
        self.choice: Choice | None = None
        self.version = ""
        self.note = ""

    def run(self) -> Record:
        """Do everything, and remember how it ended."""
        try:
            outcome, line, code = self._barred() or self._update()
        except Busy:
            raise
        except (FussyError, OSError, MemoryError, RuntimeError) as error:
            told = error if isinstance(error, FussyError) else of_machine(error, self.target.root)
            if told is None:
                raise
            outcome = next((outcome for kind, outcome in _OF_ERRORS if isinstance(told, kind)), "failed")
            line, code = str(told), told.exit_code
        liars = [f"not believed: {error}" for error in self.troubles
                 if isinstance(error, UntrustedChannel) and str(error) not in line]
        line = "; ".join(part for part in (line, self.note, *liars) if part)
        return self._remember(outcome, line, code)

    @property
    def _look_only(self) -> bool:
        return self.wish.check or self.wish.dry_run

    def _barred(self) -> tuple[Outcome, str, int] | None:
        """Return why nothing is looked for at all; None if something may be."""
        if self.settings.mode == "off" and not self._look_only and not self.wish.insist:
            return "off", "updates are switched off", 0
        if on := self._settled().trial:
            return "on-trial", f"{on.release} is on trial: nothing is installed before it is confirmed", 12
        return None

    def _update(self) -> tuple[Outcome, str, int]:
        """Return outcome, line and exit code."""
        root = device.shipped_root(self.keyring)
        clock = device.clock(self.target, self.keyring, root, time.time())
        self.note = "; ".join(part for part in (self.note, clock.note()) if part)
        me = device.device(self.target, self.settings, state.load(self.target))
        self.version = me.version
        facts = _facts(self.settings, me)
        if source := self._unchanged(facts, clock):
            self.source, self.seen, self.checked = source, self.old.seen, self.now
            return "nothing-new", self.old.line.partition("; ")[0], 0
        source_used, found = fetching.refresh(self.place, self.settings, root, clock, self.troubles)
        self.source, self.checked = source_used.name, self.now
        self.choice = self._choose(found, me, clock)
        if self.choice.outcome == "nothing-new":
            self.seen = Seen(_sha256(trusted.cached_timestamp(self.place)), facts)
        if not self.choice.ways:
            downloads.forget(self.place)
        if self.choice.outcome != "available":
            return self.choice.outcome, self.choice.reason, EXIT_CODES.get(self.choice.outcome, 0)
        if self._look_only:
            return self._available()
        return self._install(me, lambda: self._choose(found, me, clock), self._fetch, self._enable)

    def _available(self) -> tuple[Outcome, str, int]:
        assert self.choice
        if self.wish.dry_run:
            return "available", f"would be {self._to(self.choice.ways[0])}", 10 if self.wish.check else 0
        ways = " or ".join(f"a {way.offer.kind} bundle of {_size(way)}" for way in self.choice.ways)
        return "available", f"{self.choice.reason}: {ways}", 10

    def _settled(self) -> state.State:
        """Return the state of the target after what was interrupted there is finished or undone."""
        now = state.load(self.target)
        if now.transaction or now.trial:
            from fussy import install  # takes a while to load, and most runs find nothing to install

            with install.ready(self.target.root):
                pass
            now = state.load(self.target)
        return now

    def _unchanged(self, facts: str, clock: Clock) -> str:
        """Return a source whose timestamp is, byte for byte, that by which nothing was new, if none has a newer one.

        That is as safe as to verify it again: these bytes were verified, nothing they lead to has expired, and newer
        metadata that a source holds back it could hold back from python-tuf as well. It is one small request and
        python-tuf need not be loaded.
        """
        cached = trusted.cached_timestamp(self.place)
        if self.old.seen != Seen(_sha256(cached), facts) or clock.time >= trusted.load_floor(self.place).valid_until:
            return ""
        own: list[FussyError] = []
        found = fetching.stamps(self.settings, own)
        if not found:
            raise downloads.worst(own)
        newest = max(found, key=lambda name: trusted.claimed(found[name]))
        same = next((name for name, stamp in found.items() if stamp == cached), "")
        return same if trusted.claimed(found[newest]) <= trusted.claimed(cached) else ""

    def _choose(self, found: list[Found], me: Device, clock: Clock) -> Choice:
        return choose(found, me, self.settings, record.load_owner(self.target), datetime.now(),
                      spoilt=[one.sha256 for one in self.spoilt], time_known=not clock.behind, insist=self.wish.insist)

    def _install(self, me: Device, again: Callable[[], Choice], fetch: Fetch,
                 enable: Enable) -> tuple[Outcome, str, int]:
        """Fetch and install the chosen release, by the first way that works; AGAIN is asked in between."""
        assert self.choice
        ways = self.choice.ways
        for number, way in enumerate(ways, 1):
            last = number == len(ways)
            try:
                with self.bar("fetching") as show:
                    bundle = fetch(way, show)
                self.downloaded += way.length
                # the download may have outlasted the window
                if (choice := again()).outcome != "available":
                    return choice.outcome, choice.reason, EXIT_CODES.get(choice.outcome, 0)
                with self.bar("installing") as show:
                    way = enable(bundle, way, me, show)
            except (UnusableDelta, sources.Missing) as error:
                if last:
                    raise
                log.info("%s", error)
                continue
            except (Reverted, Unrecoverable):
                downloads.forget(self.place)
                raise
            except (BadBundle, Untrusted, Incompatible) as error:
                self._spoil(way, str(error))
                downloads.forget(self.place)
                if last:
                    raise
                log.info("%s", error)
                continue
            downloads.forget(self.place)
            return self._done(way)
        raise UnusableDelta("cannot update: no bundle of the channel can be used; see fussy log")

    def _fetch(self, way: Found, show: downloads.Progress | None) -> Path:
        return fetching.download(self.place, self.settings, way, progress=show, troubles=self.troubles)

    def _enable(self, bundle: Path, way: Found, me: Device, show: downloads.Progress | None) -> Found:
        from fussy import install

        install.install_release(bundle, self.keyring, self.target.root, boards=list(me.boards), progress=show,
                                memory=self.settings.memory)
        return way

    def _done(self, way: Found) -> tuple[Outcome, str, int]:
        line = self._to(way)
        self.choice = None
        if (on := state.load(self.target).trial) and on.digest == way.offer.digest:
            line += "; it is on trial now"
        return "updated", line, 0

    def _to(self, way: Found) -> str:
        before = f" from {self.version}" if self.version else ""
        return f"updated{before} to {named(way.offer)} by a {way.offer.kind} bundle of {_size(way)}"

    def _spoil(self, way: Found, reason: str, *, for_good: bool = False) -> None:
        until = 0 if for_good else self.now + DAY
        self.spoilt = [*self.spoilt, Spoilt(way.sha256, reason, until)][-_MOST_SPOILT:]

    def _remember(self, outcome: Outcome, line: str, code: int) -> Record:
        at = int(time.time())
        new = Record(
            at=at, outcome=outcome, line=line, exit_code=code, checked=self.checked,
            source=self.source or self.old.source, waiting=self._waiting(outcome),
            next_window=self.choice.opens if self.choice else 0,
            problems=[Problem(str(error).partition(": ")[0], str(error)) for error in self.troubles],
            told=self.old.told if line == self.old.line else 0, seen=self.seen, spoilt=self.spoilt)
        with noted():
            if outcome != "nothing-new" and (outcome == "updated" or line != self.old.line):
                history.append(self.place, history.Event(
                    at, outcome, line, code, self.source, self.version if outcome == "updated" else "",
                    device.version(self.target) if outcome == "updated" else "", self.downloaded,
                    [problem.why for problem in new.problems]))
            record.save(self.target, new)
        return new

    def _waiting(self, outcome: Outcome) -> Waiting | None:
        if self.choice is None or not self.choice.ways:
            # what waited waits still when nobody could be asked
            return self.old.waiting if outcome in ("unreachable", "untrusted", "slow", "on-trial", "off") else None
        best = self.choice.ways[0]
        old = self.old.waiting
        since = old.since if old and old.digest == best.offer.digest else self.now
        return Waiting(best.offer.release, best.offer.version, best.offer.digest, best.length, best.offer.security,
                       best.offer.notes, since)


def should_tell(old: Record, new: Record) -> bool:
    """Whether a run that nobody watches (cron) should print its line: something happened that a person should know.

    The same line is told again after a day. A network that is down is told when nothing could be asked for a day.
    """
    if new.outcome in ("nothing-new", "held", "postponed", "outside-window", "roll-out", "off", "on-trial") \
            and not any("attack" in problem.why for problem in new.problems):
        return False
    if new.outcome in ("unreachable", "slow") and new.at - new.checked < DAY:
        return False
    return new.outcome == "updated" or new.line != old.line or new.at - new.told >= DAY


def told(target: Target, new: Record) -> None:
    """Note that the line of NEW was printed."""
    with noted():
        record.save(target, msgspec.structs.replace(new, told=new.at))


@contextmanager
def noted() -> Iterator[None]:
    """Go on where something can't be written down, as on a full disk: how a run ended must be told all the same."""
    try:
        yield
    except OSError as error:
        log.warning("cannot note how this run ended: %s", words(error))


def _facts(settings: Settings, me: Device) -> str:
    return _sha256(b"\0".join([__version__.encode(), msgspec.json.encode(settings), msgspec.json.encode(me)]))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _size(way: Found) -> str:
    return f"{way.length / 1e6:.1f} MB" if way.length >= 100_000 else f"{way.length / 1e3:.1f} kB"


def get_options() -> "click.Command":
    """Return the command line of ``fussy-update``."""
    from fussy.updating.verbs import update_command

    return update_command
