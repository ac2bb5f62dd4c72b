"""The networks of a chute: devices, interfaces, addresses, wireless networks."""

from typing import TYPE_CHECKING

from paradrop.backend.exc.plangraph import Priority
from paradrop.lib.config import configservice, devices, network, osconfig, uciutils, wifi

if TYPE_CHECKING:
    from paradrop.backend.fc.updateObject import UpdateObject


def generatePlans(update: "UpdateObject") -> bool:
    """Add the plans that work out the chute's networks and write them to the files ``wireless`` and ``network``.

    They are added for every type of update: one without networks, such as a stop, removes what was there. The sections
    that setSystemDevices adds are the router's own and shared by all chutes; they stay if the update is aborted.
    """
    add = update.plans.addPlans
    add(Priority.STRUCT_GET_SYSTEM_DEVICES, (devices.getSystemDevices,), (network.abortNetworkConfig,))
    add(Priority.STRUCT_GET_INT_NETWORK, (network.getNetworkConfig,))
    add(Priority.STRUCT_GET_OS_NETWORK, (network.getOSNetworkConfig,))
    add(Priority.STRUCT_GET_OS_WIRELESS, (wifi.getOSWirelessConfig,))
    add(Priority.STRUCT_GET_VIRT_NETWORK, (network.getVirtNetworkConfig,))
    add(Priority.STRUCT_SET_SYSTEM_DEVICES, (devices.setSystemDevices,), (configservice.reloadAll,))
    add(Priority.STRUCT_SET_SYSTEM_DEVICES, (forgetBackups,))
    add(Priority.STRUCT_SET_OS_WIRELESS, (wifi.setOSWirelessConfig,), (osconfig.revertConfig, "wireless"))
    add(Priority.STRUCT_SET_OS_NETWORK, (network.setOSNetworkConfig,), (osconfig.revertConfig, "network"))
    return False


def forgetBackups(update: "UpdateObject") -> None:
    """Plan: drop backups of the files that are not this update's, so that its undo cannot bring back an older state."""
    uciutils.dropBackups(osconfig.FILES)
