"""Updates that a hawkBit server leads (the table ``hawkbit`` of the settings); :mod:`.ddi` is how it is asked.

It says what this router is to run, and that is all it is believed: the bundle must be signed by a key of the keyring,
newer than what is in use, for this board, and none that failed here. What the owner set goes before it. It is told how
far things are, and why they don't go on. Where it is away for long the channel decides, if there is one.

::

    asked: nothing ──> nothing new
      │ an action
    seen ──> downloading ──> downloaded ──> installing (its digest is kept) ──> on trial ──> success
      │          └─ taken back by the server: stopped      │                        │
      └─ the owner, or its maintenance window: waits       └────────────────────────┴──> failure, with the reason

A run may be killed anywhere. The next one looks at what has become of the release with the digest that was kept, which
is all that :mod:`.actions` must know, and goes on from there.
"""

import logging
import re
import time
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import msgspec

from fussy import __version__, manifest, moments, state, versions
from fussy.channel import Offer
from fussy.errors import (
    BadBundle,
    FussyError,
    Incompatible,
    OnlyRefused,
    SystemSetup,
    TooSlow,
    Unreachable,
    Untrusted,
    UntrustedChannel,
    UnusableDelta,
)
from fussy.trust import printable
from fussy.updating import actions, choose, ddi, device, downloads, record
from fussy.updating.choose import Choice, Device, Found, named
from fussy.updating.record import Outcome
from fussy.updating.settings import Hawkbit
from fussy.updating.update import EXIT_CODES, Run, noted

log = logging.getLogger(__name__)

# How fussy-publish calls a delta: with the beginning of its base's digest.
_DELTA = re.compile(r".*\.from-([0-9a-f]{16})\.delta\.gpg")
# What ends an action, when nothing of it was tried that could be tried again.
_FINAL = (BadBundle, Untrusted, Incompatible, UnusableDelta, OnlyRefused)
_AWAY = (Unreachable, TooSlow, UntrustedChannel, SystemSetup)
# Seconds between questions whether what is being downloaded is still wanted.
_ASK_SECONDS = 30.0


class _Withdrawn(FussyError):
    """The server does not want any more what is being done for it."""


class _InUse(FussyError):
    """What the server wants is in use already."""


class Tasked(Run):
    """A run whose task a hawkBit server gives."""

    _kept: actions.Kept
    _task: ddi.Task
    _files: dict[str, ddi.Artifact]
    _mute = False

    @property
    def _own(self) -> Hawkbit:
        assert self.settings.hawkbit
        return self.settings.hawkbit

    @cached_property
    def _server(self) -> ddi.Server:
        return ddi.Server(self.settings, self._own)

    def _barred(self) -> tuple[Outcome, str, int] | None:
        barred = super()._barred()
        if barred and barred[0] == "off":
            return barred
        self.source = ddi.address(self._own)
        self._kept = actions.load(self.place, self.source)
        self._judge()
        if barred and not self._look_only:
            try:
                self._ask()
            except FussyError as error:
                log.info("%s", error)
        return barred

    def _update(self) -> tuple[Outcome, str, int]:
        try:
            base = self._ask()
            task = self._server.task(base)
        except _AWAY as error:
            return self._without(error)
        self.checked = self.now
        if self._kept.away_since:
            self._keep(msgspec.structs.replace(self._kept, away_since=0))
        me = device.device(self.target, self.settings, state.load(self.target))
        self.version = me.version
        if task is None:
            downloads.forget(self.place)
            return "nothing-new", "nothing new", 0
        self._task, number = task, str(task.id)
        if end := actions.end_of(self._kept, number):
            self._tell(msgspec.structs.replace(end, at=self.now))
            return "nothing-new", "nothing new", 0
        self._keep(actions.begun(self._kept, number, _named(task.deployment)))
        try:
            return self._follow(task.deployment, me)
        except _Withdrawn as error:
            downloads.forget(self.place)
            self.choice = None
            return "nothing-new", str(error), 0
        except _InUse as error:
            downloads.forget(self.place)
            self.choice = None
            self._end("success", str(error))
            return "nothing-new", "nothing new", 0
        except FussyError as error:
            self._judge()
            if self._kept.action and isinstance(error, _FINAL):
                self._end("failure", str(error))
            elif self._kept.action:
                self._report(str(error))
            raise

    # --- the conversation ---------------------------------------------------------------------------------------------

    def _ask(self) -> ddi.Base:
        """Tell what is still to be told, ask what there is, and answer what can be answered at once."""
        if not self._look_only:
            self._flush()
            self._mute = False
        base = self._server.look()
        if not self._look_only:
            if "configData" in base.links:
                self._introduce()
            if cancel := self._server.id_of(base, "cancelAction"):
                self._stop(cancel)
        return base

    def _introduce(self) -> None:
        """Tell the server what this router is; it asks again if it does not hear it now."""
        boards = ", ".join(self.settings.boards or self.target.boards())
        release = self.target.current_release()
        data = {"release": release.name if release else "", "version": device.version(self.target), "boards": boards,
                "product": self.settings.product, "fussy": __version__}
        try:
            self._server.configure({name: text for name, text in data.items() if text})
        except FussyError as error:
            log.info("%s", error)

    def _stop(self, cancel: str) -> None:
        """Answer the cancellation CANCEL: what is installed is not stopped any more."""
        number = self._server.stopped(cancel)
        action = self._kept.action
        if action and action.id == number and action.digest:
            answer = ddi.Feedback(cancel, self.now, "rejected", f"{action.name} is installed and on trial", cancel=True)
        elif end := actions.end_of(self._kept, number):
            answer = ddi.Feedback(cancel, self.now, "rejected", f"that has ended already: {end.line}", cancel=True)
        else:
            answer = ddi.Feedback(cancel, self.now, "closed", "stopped; nothing was installed", "success", cancel=True)
            downloads.forget(self.place)
            if action and action.id == number:
                self._keep(msgspec.structs.replace(self._kept, action=None))
        self._tell(answer)

    def _still_wanted(self) -> ddi.Base | None:
        """Ask again what there is; None where the server can't be asked now.

        :raises _Withdrawn: it has taken the action back
        """
        number, name = str(self._task.id), _named(self._task.deployment)
        try:
            base = self._server.look()
            if cancel := self._server.id_of(base, "cancelAction"):
                self._stop(cancel)
            wanted = self._server.id_of(base, "deploymentBase") == number
        except FussyError as error:
            log.info("%s", error)
            return None
        if not wanted:
            raise _Withdrawn(f"nothing new: the server took {name} back")
        return base

    def _report(self, line: str, execution: ddi.Execution = "proceeding") -> None:
        """Tell how far the action is that is worked on."""
        assert self._kept.action
        self._tell(ddi.Feedback(self._kept.action.id, int(time.time()), execution, line))

    def _end(self, finished: ddi.Finished, line: str) -> None:
        """Tell how the action ended that was worked on."""
        assert self._kept.action
        self._tell(ddi.Feedback(self._kept.action.id, int(time.time()), "closed", line, finished))

    def _tell(self, feedback: ddi.Feedback) -> None:
        """Keep FEEDBACK, and send it if the server can be reached."""
        if self._look_only:
            return
        self._keep(actions.told(self._kept, feedback))
        if not self._mute:
            try:
                self._flush()
            except FussyError as error:
                log.info("%s; it is told later", error)

    def _flush(self) -> None:
        self._mute = True  # until all is sent: a server that is away is not waited for again and again
        for feedback in self._kept.unsent:
            if not self._server.tell(feedback):
                log.info("the server has no use for: %s", feedback.line)
            self._keep(actions.sent(self._kept, feedback))
        self._mute = False

    def _keep(self, kept: actions.Kept) -> None:
        if not self._look_only:
            with noted():
                actions.save(self.place, kept)
        self._kept = kept

    # --- without the server -------------------------------------------------------------------------------------------

    def _without(self, error: FussyError) -> tuple[Outcome, str, int]:
        """Leave it to the channel, when the server has been away for long enough."""
        own, since = self._own, self._kept.away_since
        if not since or since > self.now:
            since = self.now
            self._keep(msgspec.structs.replace(self._kept, away_since=since))
        if own.when_away == "stay" or not self.settings.sources or self.now - since < own.away_hours * 3600:
            raise error
        self.troubles.append(error)
        self.note = f"the hawkBit server has been away since {moments.local(since)}"
        return super()._update()

    # --- what became of the release -----------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Tell what has become of the release that was about to be installed, in this run or an earlier one."""
        action = self._kept.action
        if not action or not action.digest:
            return
        now = state.load(self.target)
        me = device.device(self.target, self.settings, now)
        bad = next((bad for bad in now.bad if bad.digest == action.digest), None)
        if me.digest == action.digest and now.trial:
            if action.line != (line := f"{action.name} is on trial"):
                self._report(line)
        elif me.digest == action.digest:
            self._end("success", f"{action.name} is in use")
        elif bad and bad.refused:
            self._end("failure", f"{action.name} failed here: {bad.reason}")
        else:
            if bad:
                self._report(f"{action.name} is tried again: {bad.reason}")
            self._keep(actions.again(self._kept))

    # --- an action ----------------------------------------------------------------------------------------------------

    def _follow(self, wanted: ddi.Deployment, me: Device) -> tuple[Outcome, str, int]:
        """Do what the server wants, if the owner wants it too."""
        ways = self._ways(wanted, me)
        name = named(ways[0].offer)
        known = {ways[0].offer.digest, *(self._kept.digests.get(sha256, "") for sha256 in self._files)} - {""}
        if me.digest in known:
            raise _InUse(f"{name} is in use already")
        if failed := next((bad for bad in state.load(self.target).bad if bad.refused and bad.digest in known), None):
            raise OnlyRefused(f"cannot update: {name} failed on this device before: {failed.reason}")
        if self._task.unconfirmed and not self._look_only:
            self.choice = self._owners(ways, wanted)
            if self.choice.outcome not in ("available", "outside-window"):
                self._report(f"{self.choice.outcome}: {self.choice.reason}", "denied")
                return self.choice.outcome, self.choice.reason, EXIT_CODES[self.choice.outcome]
            wanted = self._confirm(name)
        self.choice = self._when(ways, wanted)
        if self.choice.outcome == "available" and not self.wish.insist:
            self.choice = self._as_the_server_wants(wanted)
        if self.choice.outcome != "available":
            return self.choice.outcome, self.choice.reason, EXIT_CODES[self.choice.outcome]
        if self._look_only:
            return self._available()
        done = self._install(me, lambda: self._once_more(ways, wanted), self._get, self._take)
        self._judge()
        return done

    def _ways(self, wanted: ddi.Deployment, me: Device) -> list[Found]:
        """Return the bundles that make what is wanted, the smallest first."""
        chunks = [chunk for chunk in wanted.chunks if any(file.filename.endswith(".gpg") for file in chunk.artifacts)]
        if len(chunks) > 1:
            raise BadBundle(f"cannot update: {self._server.name} wants {len(chunks)} bundles to run at once; a router "
                            "has one firmware")
        found = [found for chunk in chunks for file in chunk.artifacts if (found := _bundle(chunk, file, me))]
        self._files = {file.hashes.sha256: file for chunk in chunks for file in chunk.artifacts}
        spoilt = {one.sha256: one.reason for one in self.spoilt}
        if ways := choose.usable(found, me, spoilt, self.settings.memory):
            return ways
        reason = next((spoilt[one.sha256] for one in found if one.sha256 in spoilt), "")
        raise BadBundle(reason or f"cannot update: {self._server.name} names no bundle that this router can use")

    def _confirm(self, name: str) -> ddi.Deployment:
        """Say that this is wanted here; return what the server makes of it.

        :raises _Withdrawn: it does not want it any more, or not yet
        """
        self._report(f"{name} may be installed on this router", "confirmed")
        task = self._server.task(self._server.look())
        if task is None or task.unconfirmed or task.id != self._task.id:
            raise _Withdrawn(f"nothing new: the server does not go on with {name} yet")
        self._task = task
        return task.deployment

    def _owners(self, ways: list[Found], wanted: ddi.Deployment) -> Choice:
        """Return whether the owner lets it be installed now."""
        if self.wish.insist:
            return Choice("available", f"{named(ways[0].offer)} is there", ways)
        owner, settings = record.load_owner(self.target), self.settings
        if wanted.update == "forced" and self._own.forced == "at-once":
            settings = msgspec.structs.replace(settings, window="")
        return choose.when(ways, settings, owner, datetime.now(), device.clock_is_set())

    def _when(self, ways: list[Found], wanted: ddi.Deployment) -> Choice:
        """Return whether the owner lets it be installed now; if not, the server is told by which of his words.

        What is forced to be downloaded is there when his window opens.
        """
        choice = self._owners(ways, wanted)
        if choice.outcome == "outside-window" and wanted.download == "forced":
            self._get_ahead(ways[0])
        if choice.outcome != "available":
            self._report(f"{choice.outcome}: {choice.reason}")
        return choice

    def _as_the_server_wants(self, wanted: ddi.Deployment) -> Choice:
        """Return whether the server lets it be installed now; fetch it when only that may be done."""
        assert self.choice
        ways = self.choice.ways
        name = named(ways[0].offer)
        if wanted.download == "skip":
            line = f"{name} waits: the server does not want it downloaded yet"
            self._report(line)
            return Choice("outside-window", line, ways)
        if wanted.update != "skip" and wanted.window != "unavailable":
            return self.choice
        line = f"{name} waits for the maintenance window of the server"
        self._get_ahead(ways[0])
        self._report(line, "downloaded")
        return Choice("outside-window", line, ways)

    def _get_ahead(self, way: Found) -> None:
        """Fetch what may not be installed yet."""
        if not self._look_only and not (self.place / "downloads" / way.sha256).exists():
            self._get(way, None)

    def _once_more(self, ways: list[Found], wanted: ddi.Deployment) -> Choice:
        """Ask both again, after a download that may have taken long."""
        base = self._still_wanted()
        if base and (task := self._server.task(base)):
            wanted = task.deployment
        choice = self._when(ways, wanted)
        if choice.outcome == "available" and base and not self.wish.insist:
            choice = self._as_the_server_wants(wanted)
        if choice.outcome == "available":
            self._report(f"installing {named(ways[0].offer)}")
        return choice

    def _get(self, way: Found, show: downloads.Progress | None) -> Path:
        asked = time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal asked
            if show:
                show(done, total)
            if time.monotonic() - asked >= _ASK_SECONDS:
                self._still_wanted()
                asked = time.monotonic()

        self._report(f"downloading a {way.offer.kind} bundle of {named(way.offer)}", "download")
        return downloads.fetch(self.place, way, [self._server.file(self._files[way.sha256])], progress=progress,
                               troubles=self.troubles)

    def _enable(self, bundle: Path, way: Found, me: Device, show: downloads.Progress | None) -> Found:
        """Install what the channel has, and remember what is in its files: the server may want the same ones."""
        for one in self.choice.ways if self.choice else ():
            self._keep(actions.opened(self._kept, one.sha256, one.offer.digest))
        return super()._enable(bundle, way, me, show)

    def _take(self, bundle: Path, way: Found, me: Device, show: downloads.Progress | None) -> Found:
        """Install what was fetched; return it by the name and version that it says itself."""
        from fussy import install

        def accept(said: manifest.Description) -> None:
            if versions.key(said.version) < versions.key(me.version):
                raise Incompatible(f"cannot update: the server wants version {said.version or '(none)'} on a router "
                                   f"that has {me.version}; fussy-install or fussy rollback goes back")

        def placing(digest: str) -> None:
            self._keep(actions.opened(self._kept, way.sha256, digest))
            if digest == me.digest:
                raise _InUse(f"{named(way.offer)} is in use already")
            if digest in me.bad:
                raise OnlyRefused(f"cannot update: {named(way.offer)} failed on this device before (see fussy status)")
            # what can't be written down must not be installed: how it ended could not be told
            self._kept = actions.placing(self._kept, digest)
            actions.save(self.place, self._kept)

        path = install.install_release(bundle, self.keyring, self.target.root, boards=list(me.boards), progress=show,
                                       accept=accept, placing=placing, memory=self.settings.memory)
        assert self._kept.action
        return replace(way, offer=msgspec.structs.replace(
            way.offer, release=path.name, version=device.version(self.target), digest=self._kept.action.digest))


def _bundle(chunk: ddi.Chunk, file: ddi.Artifact, me: Device) -> Found | None:
    """Return what a file is by its name; None if it is none for this device."""
    if not file.filename.endswith(".gpg"):
        return None
    delta, base = _DELTA.fullmatch(file.filename), chunk.digest(f"base:{file.filename}")
    if delta and not base:
        base = next((digest for digest in me.bases if digest.startswith(delta[1])), "")
    offer = Offer(kind="delta" if delta or base else "full", release=_line(chunk.name) or "the firmware", base=base,
                  version=_line(chunk.version), digest=chunk.digest("digest") or file.hashes.sha256)
    return Found(_line(file.filename), file.size, file.hashes.sha256, offer)


def _named(wanted: ddi.Deployment) -> str:
    chunk = wanted.chunks[0] if wanted.chunks else None
    return _line(f"{chunk.name} (version {chunk.version})") if chunk else "what the server wants"


def _line(text: str) -> str:
    return printable(" ".join(text.split()))[:100]
