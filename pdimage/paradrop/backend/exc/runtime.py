"""What a chute runs from and with: its image, its DHCP servers, and the reload that makes the files come true."""

from typing import TYPE_CHECKING

from paradrop.backend.exc.plangraph import Priority
from paradrop.lib.config import configservice, dhcp, dockerconfig, osconfig
from paradrop.lib.utils import dockerapi

if TYPE_CHECKING:
    from paradrop.backend.fc.updateObject import UpdateObject


def generatePlans(update: "UpdateObject") -> bool:
    """Add the plans that have the images ready, write the file ``dhcp``, and reload the configuration."""
    add = update.plans.addPlans
    if update.new.state == "running":
        add(Priority.RUNTIME_GET_VIRT_PREAMBLE, (dockerconfig.getVirtPreamble,))
        add(Priority.RUNTIME_BUILD, (dockerapi.prepareImages,), (dockerapi.removeNewImages,))
    add(Priority.RUNTIME_GET_VIRT_DHCP, (dhcp.getVirtDHCPSettings,))
    add(Priority.RUNTIME_SET_VIRT_DHCP, (dhcp.setVirtDHCPSettings,), (osconfig.revertConfig, "dhcp"))
    add(Priority.RUNTIME_RELOAD_CONFIG, (configservice.reloadAll,), [
        (osconfig.revertConfig, "dhcp"), (osconfig.revertConfig, "firewall"), (osconfig.revertConfig, "network"),
        (osconfig.revertConfig, "wireless"), (configservice.reloadAll,)])
    return False
