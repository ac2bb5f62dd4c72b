"""From which state to which a chute goes: what is refused, and the containers."""

import logging
from typing import TYPE_CHECKING

from paradrop.backend.exc.plangraph import PlanMap, Priority
from paradrop.lib import settings
from paradrop.lib.chute import Chute
from paradrop.lib.config import dockerconfig, osconfig, uciutils
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import dockerapi
from paradrop.lib.utils.dockerclient import checkEngine

if TYPE_CHECKING:
    from paradrop.backend.fc.chutestorage import ChuteStorage
    from paradrop.backend.fc.updateObject import UpdateChute, UpdateObject

log = logging.getLogger(__name__)


def generatePlans(update: "UpdateObject") -> bool:
    """Add the plans of generateStatePlan and those that make the outcome last.

    Returns True to refuse the update; ``update.failure`` then says why.
    """
    refusal = generateStatePlan(update.chuteStor, update.new, update.plans, update.updateType)
    if isinstance(refusal, str):
        update.failure = refusal
    if refusal is not None:
        return True
    update.plans.addPlans(Priority.STATE_SAVE, (saveState,), (revertState,))
    update.plans.addPlans(Priority.STATE_CLEAN_UP, (cleanUp,))
    return False


def generateStatePlan(chuteStor: "ChuteStorage", newChute: Chute, chutePlan: PlanMap,
                      updateType: str | None = None) -> str | bool | None:
    """Add the plans that bring the containers from the state of the stored chute to that of the new one.

    updateType: without it, it is told from the two chutes.

    Returns None to go on, or a text that says why the update is refused.
    """
    old = chuteStor.getChute(newChute.name)
    kind = updateType or difference(old, newChute)
    if refusal := refused(kind, old, newChute):
        return refusal
    chutePlan.addPlans(Priority.STATE_CHECK_ENGINE, (checkEngine,))
    if kind in ("stop", "delete"):
        chutePlan.addPlans(Priority.STATE_CALL_STOP, (dockerapi.stopChute,), (dockerapi.reviveContainers,))
        return None
    start = dockerapi.restartChute if kind in ("start", "restart") else dockerapi.startChute
    chutePlan.addPlans(Priority.STATE_CALL_STOP, (dockerapi.retireContainers,), (dockerapi.reviveContainers,))
    chutePlan.addPlans(Priority.STATE_CALL_START, (start,), (dockerapi.removeNewContainers,))
    return None


def difference(old: Chute | None, new: Chute) -> str:
    """Return the type of update that leads from one chute to another."""
    if new.state != "running":
        return "stop"
    if old is None:
        return "create"
    if old.descriptor != new.descriptor:
        return "update"
    return "restart" if old.state == "running" else "start"


def refused(kind: str, old: Chute | None, new: Chute) -> str | None:
    """Return why an update cannot be, as the user is told; None if it can."""
    name, version = new.name, getattr(new, "version", None)
    if kind not in ("create", "update", "rollback", "start", "restart", "stop", "delete"):
        return f"Unknown type of update: {kind}"
    if old is None:
        return None if kind in ("create", "update") else f"No chute found with id: {name}"
    if kind == "create":
        return f"{name} already exists on this device."
    if kind == "start" and old.state == "running":
        return f"{name} already running."
    if kind == "stop" and old.state == "stopped":
        return f"{name} already stopped."
    if kind == "rollback" and not old.getCache("previous"):
        return f"No previous version of {name} is kept."
    if kind == "update" and version is not None and not new.getCache("fromRelease"):
        return _refused_version(version, getattr(old, "version", None))
    return None


def _refused_version(new: int | str, old: int | str | None) -> str | None:
    if new == old:
        return f"Version {new} already exists on this device."
    if settings.REJECT_DOWNGRADE and isinstance(new, int) and isinstance(old, int) and new < old:
        return f"A newer version ({old}) already exists on this device."
    return None


def saveState(update: "UpdateObject") -> None:
    """Plan: put the outcome into the store. From here on the update counts as done, also if the power fails."""
    update.saveState()


def revertState(update: "UpdateChute") -> None:
    """Undo of saveState."""
    update.revertState()


def cleanUp(update: "UpdateObject") -> None:
    """Plan: remove what is no longer needed. What cannot be removed now is found again when the router starts."""
    try:
        uciutils.dropBackups(osconfig.FILES)
        if update.updateType == "delete":
            dockerconfig.removeVolumeDirs(update.name)
            dockerapi.removeChute(update)
        else:
            dockerapi.cleanUp(update)
    except ParadropError as error:
        log.warning("%s: %s; left for the next start", update, error.message)
        update.inconsistent = True
