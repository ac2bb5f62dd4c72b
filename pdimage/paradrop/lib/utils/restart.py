"""Starts chutes again after a power cycle, once pdconfd has said whether their interfaces are there."""

import json
import logging
import time
from typing import Any, Protocol

from paradrop.backend.fc.chutestorage import ChuteStorage
from paradrop.backend.pdconfd.client import waitSystemUp
from paradrop.lib import settings
from paradrop.lib.chute import Chute
from paradrop.lib.config.network import reclaimNetworkResources

log = logging.getLogger(__name__)

FAILURE_WARNING = ("The chute's network could not be brought up when the router started, maybe because its hardware "
                   "changed. The chute has been stopped; start it again, or the next start of the router will.")
RESTART_WARNING = ("The chute could not be started when the router started: {why} It has been stopped; start it again, "
                   "or the next start of the router will.")


class FinishedUpdate(Protocol):
    """An update that is complete."""

    @property
    def name(self) -> str: ...
    @property
    def result(self) -> dict[str, Any] | None: ...


def reloadChutes() -> list[dict[str, Any]]:
    """Return the updates that bring back the chutes that ran when the router went down, stops first.

    A chute with a section that pdconfd could not bring up gets a stop, so that nothing of it is left half there, and a
    warning that its user is told at the next operation. The others get a restart. So do chutes that were stopped in
    this way by an earlier start of the router: what kept them down may be gone.

    Nothing is to be done where settings.PDCONFD_ENABLED is False. pdconfd is waited for at most
    settings.PDCONFD_START_TIMEOUT seconds; if it says nothing until then the chutes are tried all the same.
    """
    if not settings.PDCONFD_ENABLED:
        return []
    chutes = [chute for chute in ChuteStorage().getChuteList() if chute.state == "running" or _stopped_by_us(chute)]
    for chute in chutes:
        reclaimNetworkResources(chute)
    failed = _failed_owners(_status())
    stops = [_update(chute, "stop", warning=FAILURE_WARNING) for chute in chutes
             if chute.name in failed and chute.state == "running"]
    return [*stops, *(_update(chute, "restart") for chute in chutes if chute.name not in failed)]


def updateStatus(update: FinishedUpdate) -> None:
    """Note in the store that a chute is stopped, with a warning, if the update that was to bring it back failed."""
    if update.result and update.result.get("success"):
        return
    storage = ChuteStorage()
    chute = storage.getChute(update.name)
    if chute is None:
        return
    chute.state = "stopped"
    chute.warning = RESTART_WARNING.format(why=(update.result or {}).get("message") or "no reason is known.")
    storage.saveChute(chute)


def _stopped_by_us(chute: Chute) -> bool:
    """Return True if a chute was stopped at a start of the router; any operation by its user clears the warning."""
    return chute.state == "stopped" and bool(chute.warning)


def _update(chute: Chute, kind: str, **more: Any) -> dict[str, Any]:
    return {"updateClass": "CHUTE", "updateType": kind, "name": chute.name, "tok": int(time.time()),
            "func": updateStatus, **more}


def _status() -> list[dict[str, Any]]:
    """Return what pdconfd says of each section, nothing if it does not answer in time."""
    end = time.monotonic() + settings.PDCONFD_START_TIMEOUT
    while (answer := waitSystemUp()) is None:
        if time.monotonic() > end:
            log.error("pdconfd does not answer; the chutes are started without knowing whether their networks are up")
            return []
        time.sleep(1)
    return list(json.loads(answer))


def _failed_owners(status: list[dict[str, Any]]) -> set[str]:
    """Return the comments of the sections that are not in force."""
    failed = set()
    for section in status:
        if not section["success"]:
            log.warning("the section %s %s of %s did not come up", section.get("type"), section.get("name"),
                        section.get("comment"))
            failed.add(str(section.get("comment")))
    return failed
