"""The sections of the ``wireless`` file for the networks of a chute."""

from typing import Any

from paradrop.lib.config import uciutils
from paradrop.lib.config.parties import Interface, Update, interfaces
from paradrop.lib.utils import uci


def getOSWirelessConfig(update: Update) -> None:
    """Store in the cache key osWirelessConfig the ``wifi-iface`` sections that the router needs."""
    update.new.setCache("osWirelessConfig", [_section(one) for one in interfaces(update.new)
                                             if one["netType"] == "wifi"])


def setOSWirelessConfig(update: Update) -> bool:
    """Put the sections into the ``wireless`` file. Return True if it was changed; raises as uciutils.setConfig."""
    return uciutils.setConfig(update.new, update.old, ["osWirelessConfig"], uci.getSystemPath("wireless"))


def _section(one: Interface) -> tuple[dict[str, Any], dict[str, Any]]:
    # The ifname is said because the network is a bridge, and has another
    options = {**one.get("options", {}), "device": one["device"], "network": one["externalIntf"],
               "mode": one.get("mode", "ap"), "ifname": one["externalIntf"]}
    for key in ("ssid", "encryption", "key"):
        if value := one.get(key):
            options[key] = str(value)
    return {"type": "wifi-iface", "name": one["externalIntf"]}, options
