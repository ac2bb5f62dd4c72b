"""What a chute is called and whether it can be: the first look at an update, and the chute's directories."""

from typing import TYPE_CHECKING

from paradrop.backend.exc.plangraph import Priority
from paradrop.lib import descriptor, settings
from paradrop.lib.config import dockerconfig
from paradrop.lib.errors import DescriptorError

if TYPE_CHECKING:
    from paradrop.backend.fc.updateObject import UpdateObject


def generatePlans(update: "UpdateObject") -> bool:
    """Refuse a descriptor with mistakes, tell the chute's stored warning, and add the plans for its directories.

    Returns True to refuse the update; ``update.failure`` then says why, ``update.responses`` has each mistake.
    """
    if update.old is not None and update.old.warning:
        update.progress(update.old.warning + "\n")
    if update.name == settings.RESERVED_CHUTE:
        update.failure = f"The name {update.name} is reserved for the router itself."
        return True
    if update.updateType in ("create", "update"):
        try:
            descriptor.parse(update.new.descriptor)
        except DescriptorError as error:
            update.failure = error.message
            update.responses += error.mistakes
            return True
    if update.updateType == "delete":
        update.plans.addPlans(Priority.NAME_RETIRE_DIRS, (dockerconfig.retireVolumeDirs,),
                              (dockerconfig.abortRetireVolumeDirs,))
    elif update.new.state == "running":
        update.plans.addPlans(Priority.NAME_SETUP_DIRS, (dockerconfig.createVolumeDirs,),
                              (dockerconfig.abortCreateVolumeDirs,))
    return False
