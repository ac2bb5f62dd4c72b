"""The sections of the ``dhcp`` file: a server for each network of a chute that asks for one."""

from pathlib import Path
from typing import Any

from paradrop.lib import settings
from paradrop.lib.config import uciutils
from paradrop.lib.config.parties import Interface, Update, interfaces
from paradrop.lib.utils import pdosq, uci

# True: clients ask the router's dnsmasq, which asks the chute's DNS servers. False: clients ask those themselves.
DNSMASQ_CACHE_ENABLED = True


def getVirtDHCPSettings(update: Update) -> None:
    """Store in the cache key virtDHCPSettings the sections for the networks that have ``dhcp``."""
    sections: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for one in interfaces(update.new):
        if "dhcp" in one and "externalIpaddr" in one:
            sections += _sections(update.name, one)
    update.new.setCache("virtDHCPSettings", sections)


def setVirtDHCPSettings(update: Update) -> bool:
    """Put the sections into the ``dhcp`` file. Return True if it was changed; raises as uciutils.setConfig."""
    if update.new.getCache("virtDHCPSettings"):
        pdosq.makedirs(settings.EXTERNAL_SYSTEM_DIR.format(chute=update.name))
    return uciutils.setConfig(update.new, update.old, ["virtDHCPSettings"], uci.getSystemPath("dhcp"))


def _sections(chute: str, one: Interface) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the server and what it hands out. The leases last, and the chute can read them in its system directory.

    The router that clients are told is the chute.
    """
    wanted = one["dhcp"]
    directory = Path(settings.EXTERNAL_SYSTEM_DIR.format(chute=chute))
    server: dict[str, Any] = {"leasefile": str(directory / f"dnsmasq-{one['name']}.leases")}
    uciutils.setList(server, "interface", [one["externalIntf"]])
    ranges: dict[str, Any] = {"interface": one["externalIntf"]}
    if wanted["relay"]:
        uciutils.setList(ranges, "relay", wanted["relay"])
    else:
        ranges |= {"start": wanted["start"], "limit": wanted["limit"], "leasetime": wanted["lease"]}
        uciutils.appendListItem(ranges, "dhcp_option", f"option:router,{one['internalIpaddr']}")
    if wanted["dns"] and DNSMASQ_CACHE_ENABLED:
        server["noresolv"] = "1"
        uciutils.setList(server, "server", wanted["dns"])
    elif wanted["dns"]:
        uciutils.appendListItem(ranges, "dhcp_option", "option:dns-server," + ",".join(wanted["dns"]))
    name = one["externalIntf"]
    return [({"type": "dnsmasq", "name": name}, server), ({"type": "dhcp", "name": name}, ranges)]
