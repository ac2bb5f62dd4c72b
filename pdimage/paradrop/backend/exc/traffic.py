"""The firewall of a chute."""

from typing import TYPE_CHECKING

from paradrop.backend.exc.plangraph import PlanMap, Priority
from paradrop.lib.chute import Chute
from paradrop.lib.config import firewall, osconfig

if TYPE_CHECKING:
    from paradrop.backend.fc.chutestorage import ChuteStorage
    from paradrop.backend.fc.updateObject import UpdateObject


def generatePlans(update: "UpdateObject") -> bool:
    """Add the plans of generateTrafficPlan. Returns True to refuse the update."""
    return generateTrafficPlan(update.chuteStor, update.new, update.plans) is not None


def generateTrafficPlan(chuteStor: "ChuteStorage", newChute: Chute, chutePlan: PlanMap) -> str | bool | None:
    """Add the plans that work out the chute's rules and write them to the file ``firewall``. Returns None: go on."""
    chutePlan.addPlans(Priority.TRAFFIC_GET_OS_FIREWALL, (firewall.getOSFirewallRules,))
    chutePlan.addPlans(Priority.TRAFFIC_GET_DEVELOPER_FIREWALL, (firewall.getDeveloperFirewallRules,))
    chutePlan.addPlans(Priority.TRAFFIC_SET_OS_FIREWALL, (firewall.setOSFirewallRules,),
                       (osconfig.revertConfig, "firewall"))
    return None
