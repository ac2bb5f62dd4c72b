"""How much of the router's processors a chute gets."""

from typing import TYPE_CHECKING

from paradrop.backend.exc.plangraph import PlanMap, Priority
from paradrop.lib.chute import Chute
from paradrop.lib.config import allocation

if TYPE_CHECKING:
    from paradrop.backend.fc.chutestorage import ChuteStorage
    from paradrop.backend.fc.updateObject import UpdateObject


def generatePlans(update: "UpdateObject") -> bool:
    """Add the plans of generateResourcePlan. Returns True to refuse the update."""
    return generateResourcePlan(update.chuteStor, update.new, update.plans) is not None


def generateResourcePlan(chuteStor: "ChuteStorage", newChute: Chute, chutePlan: PlanMap) -> str | bool | None:
    """Add the plans that share out processor time: before anything changes, and again over the others' containers.

    Returns None: go on.
    """
    chutePlan.addPlans(Priority.RESOURCE_GET_ALLOCATION, (allocation.getAllocation,))
    chutePlan.addPlans(Priority.RESOURCE_SET_ALLOCATION, (allocation.setAllocation,), (allocation.revertAllocation,))
    return None
