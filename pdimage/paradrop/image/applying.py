"""Brings about the chutes of the release, as updates in the queue like any others, whenever the runtime starts.

What has become of it is told in ``RUNTIME_HOME_DIR/release-chutes.json``, for the release's health check: a release
whose chutes do not come up is taken back as a whole.
"""

import contextlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from paradrop.backend.fc.chutestorage import ChuteStorage
from paradrop.image import chutes
from paradrop.image.chutes import ReleaseChute, Step
from paradrop.lib import descriptor, settings
from paradrop.lib.chutespec import Specification
from paradrop.lib.errors import DescriptorError, ParadropError
from paradrop.lib.utils import pdosq

log = logging.getLogger(__name__)

_POLL = 0.2


class Outcome(msgspec.Struct):
    """release: the directory of its chutes. complete: nothing is under way. failed: why, by chute."""

    release: str
    complete: bool = False
    failed: dict[str, str] = {}


class Start:
    """The updates with which the runtime starts: it knows when all of them are complete."""

    def __init__(self, storage: ChuteStorage) -> None:
        self.storage = storage
        self.outcome = Outcome(str(chutes.directory()))
        self._left = 0

    def updates(self, restarts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return RESTARTS without those of chutes that get another version anyway, and what the release needs."""
        _tell(self.outcome)
        steps, release = self._steps()
        superseded = {step.name for step in steps}
        found = [*(update for update in restarts if update["name"] not in superseded),
                 *(self._update(step, release) for step in steps)]
        self._left = len(found)
        if not found:
            self._end()
        return [{**update, "func": self._counted(update.get("func"))} for update in found]

    def _steps(self) -> tuple[list[Step], Mapping[str, ReleaseChute]]:
        try:
            release, before = chutes.of_release(), chutes.done()
        except ParadropError as error:
            log.error("%s", error.message)
            self.outcome.failed["release"] = error.message
            return [], {}
        there = {str(chute.name) for chute in self.storage.getChuteList()}
        for name in set(release) & there - set(before):
            log.warning("%s is here already, and not from a release; the one of the release is not installed", name)
        for name in set(before) - set(release) - there:
            chutes.remember(name, None)
        steps = chutes.decide({name: chute.digest for name, chute in release.items()}, before, there)
        updates = [step for step in steps if step.kind == "update"]
        if len(updates) > 1:
            wanted = _specifications({name: chute.descriptor for name, chute in release.items()})
            now = _specifications({str(chute.name): chute.descriptor for chute in self.storage.getChuteList()})
            updates = chutes.ordered(updates, wanted, now)
        return [*(step for step in steps if step.kind == "delete"), *updates,
                *(step for step in steps if step.kind == "create")], release

    def _update(self, step: Step, release: Mapping[str, ReleaseChute]) -> dict[str, Any]:
        update: dict[str, Any] = {"updateClass": "CHUTE", "updateType": step.kind, "name": step.name,
                                  "tok": int(time.time()), "release": True}
        if step.kind != "delete":
            chute = release[step.name]
            chutes.remember(step.name, "")  # from now on it is ours, whatever happens amid
            update |= {**chute.descriptor, "name": step.name, "workdir": chute.workdir and str(chute.workdir)}

        def complete(finished: Any) -> None:
            if finished.result["success"]:
                chutes.remember(step.name, step.digest or None)
            else:
                self.outcome.failed[step.name] = str(finished.result["message"])

        return {**update, "func": complete}

    def _counted(self, func: Any) -> Any:
        def complete(update: Any) -> None:
            try:
                if func is not None:
                    func(update)
            finally:
                self._left -= 1
                if self._left == 0:
                    self._end()
        return complete

    def _end(self) -> None:
        """Look at the chutes of the release once more: those that were here before may not run on this platform."""
        for name in () if "release" in self.outcome.failed else chutes.done():
            chute = self.storage.getChute(name)
            if chute is not None and chute.state != "running" and chute.warning:
                self.outcome.failed.setdefault(name, chute.warning)
        self.outcome.complete = True
        _tell(self.outcome)


def _specifications(descriptors: Mapping[str, Mapping[str, Any]]) -> dict[str, Specification]:
    """Return what descriptors ask for; those with mistakes, which their updates will tell, are left out."""
    found = {}
    for name, source in descriptors.items():
        with contextlib.suppress(DescriptorError):
            found[name] = descriptor.parse(source, complete=False)
    return found


def wait(release: Path, seconds: float) -> None:
    """Wait until the runtime has brought about the chutes that lie in RELEASE's directory of chutes.

    Raises:
        ParadropError: it has not within that time, or some failed: the message says which, and why.
    """
    end = time.monotonic() + seconds
    while (outcome := read()) is None or not outcome.complete or not _same(outcome.release, release):
        if time.monotonic() > end:
            raise ParadropError(f"cannot say whether the chutes of {release} run: the runtime has not finished its "
                                f"start within {seconds:g} seconds; see its log")
        time.sleep(_POLL)
    if outcome.failed:
        raise ParadropError("cannot run all chutes of the release: "
                            + "; ".join(f"{name}: {why}" for name, why in sorted(outcome.failed.items())))


def read() -> Outcome | None:
    """Return what the runtime that was started last tells; None if it has told nothing."""
    try:
        return msgspec.json.decode(_outcome_file().read_bytes(), type=Outcome)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def forget() -> None:
    """Drop what the runtime told, when it has stopped and another release may be next."""
    _outcome_file().unlink(missing_ok=True)


def _same(told: str, release: Path) -> bool:
    return Path(told).resolve() == release.resolve()


def _outcome_file() -> Path:
    return Path(settings.RUNTIME_HOME_DIR, "release-chutes.json")


def _tell(outcome: Outcome) -> None:
    pdosq.makedirs(_outcome_file().parent)
    pdosq.replaceFile(_outcome_file(), msgspec.json.encode(outcome))
