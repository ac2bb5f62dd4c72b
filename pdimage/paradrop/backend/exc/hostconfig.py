"""The router's own configuration: the sections of a UCI file that belong to no chute."""

import json
from typing import TYPE_CHECKING

from paradrop.backend.exc.plangraph import Priority
from paradrop.backend.pdconfd import client
from paradrop.lib import settings
from paradrop.lib.config import osconfig, uciutils
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import uci

if TYPE_CHECKING:
    from paradrop.backend.fc.updateObject import UpdateRouter

Failing = dict[tuple[str, str], str]


def generatePlans(update: "UpdateRouter") -> bool:
    """Add the plans that put the sections into the file and have pdconfd act on it. True to refuse the update."""
    if update.updateType != "setconfig" or update.configFile not in osconfig.FILES:
        update.failure = f"There is no update {update.updateType} of {update.configFile}."
        return True
    back = (osconfig.revertConfig, update.configFile)
    add = update.plans.addPlans
    add(Priority.STRUCT_GET_SYSTEM_DEVICES, (getFailing,))
    add(Priority.STRUCT_SET_SYSTEM_DEVICES, (setHostConfig,), back)
    add(Priority.RUNTIME_RELOAD_CONFIG, (applyHostConfig,), [back, (reloadAgain,)])
    add(Priority.STATE_CLEAN_UP, (forgetBackup,))
    return False


def getFailing(update: "UpdateRouter") -> None:
    """Note which sections are not in force already, so that the new configuration is not blamed for them."""
    update.failing = _failing(client.waitSystemUp())


def setHostConfig(update: "UpdateRouter") -> None:
    """Put the sections into the file in place of the router's own; those of chutes stay."""
    file = uci.UCIConfig(uci.getSystemPath(update.configFile))
    file.config = [section for section in file.config
                   if section[0].get("comment") not in (None, settings.RESERVED_CHUTE)]
    file.addConfigs(({**title, "comment": settings.RESERVED_CHUTE}, options) for title, options in update.sections)
    file.save(backupToken=uciutils.TOKEN)


def applyHostConfig(update: "UpdateRouter") -> None:
    """Have pdconfd act on the file.

    Raises:
        ParadropError: a section is not in force that was before, or is new.
    """
    failing = _failing(client.reloadAll())
    fresh = [f"{kind} {name}: {error}" for (kind, name), error in failing.items() if (kind, name) not in update.failing]
    if fresh:
        raise ParadropError("cannot apply the configuration, so the old one is back: " + "; ".join(fresh))


def reloadAgain(update: "UpdateRouter") -> None:
    """Have pdconfd act on the file as it was."""
    client.reloadAll()


def forgetBackup(update: "UpdateRouter") -> None:
    """Remove the copy of the file as it was."""
    uciutils.dropBackups([update.configFile])


def _failing(status: str | None) -> Failing:
    if status is None:
        raise ParadropError("cannot apply the configuration: pdconfd does not answer; see the router's log")
    return {(str(section["type"]), str(section["name"])): str(section.get("error") or "not in force")
            for section in json.loads(status) if not section["success"]}
