"""The files that a chute is built of, where they must be fetched first."""

from typing import TYPE_CHECKING

from paradrop.backend.exc.plangraph import PlanMap, Priority
from paradrop.lib import descriptor
from paradrop.lib.chute import Chute
from paradrop.lib.utils import fetch

if TYPE_CHECKING:
    from paradrop.backend.fc.chutestorage import ChuteStorage
    from paradrop.backend.fc.updateObject import UpdateObject


def generatePlans(update: "UpdateObject") -> bool:
    """Add the plans of generateFilesPlan. Returns True to refuse the update."""
    if update.updateType not in ("create", "update"):
        return False
    return generateFilesPlan(update.chuteStor, update.new, update.plans) is not None


def generateFilesPlan(chuteStor: "ChuteStorage", newChute: Chute, chutePlan: PlanMap) -> str | bool | None:
    """Add the plans that fetch the chute's files, if its descriptor has a ``download``. Returns None: go on."""
    if any(service.download for service in descriptor.parse(newChute.descriptor).services):
        chutePlan.addPlans(Priority.FILES_FETCH, (fetch.fetchFiles,), (fetch.removeFiles,))
        chutePlan.addPlans(Priority.FILES_REMOVE, (fetch.removeFiles,))
    return None
