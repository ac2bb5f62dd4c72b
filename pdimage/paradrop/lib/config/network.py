"""The networks of chutes: what each gets, and the sections of the ``network`` file for it.

The plans' functions take an update; what they decide is in the cache of update.new, where the next one finds it:
networkDevices -> networkInterfaces -> osNetworkConfig.
"""

import logging
from ipaddress import IPv4Interface, IPv4Network
from typing import Any

from paradrop.lib import conflicts, descriptor, settings
from paradrop.lib.chute import Chute
from paradrop.lib.chutespec import Specification
from paradrop.lib.config import devices, uciutils
from paradrop.lib.config.parties import WITHOUT_NETWORKS, Interface, Update, interfaces, others, reserved
from paradrop.lib.config.placing import Facts, interfaceDefsEqual, place
from paradrop.lib.errors import DescriptorError
from paradrop.lib.utils import uci

log = logging.getLogger(__name__)

__all__ = ["abortNetworkConfig", "getNetworkConfig", "getOSNetworkConfig", "getVirtNetworkConfig", "interfaceDefsEqual",
           "reclaimNetworkResources", "setOSNetworkConfig"]

# Networks wider than this say "everything", as tunnels do, and not where anything is
_WIDEST_PREFIX = 8


def getNetworkConfig(update: Update) -> None:
    """Decide everything about the interfaces of the chute and store them in the cache key networkInterfaces.

    A chute that stops has none, but what it had is kept in networkReservations: nobody else gets it.

    Raises:
        ConflictError: another chute has a port, SSID, network or device that this one asks for.
        DescriptorError: the descriptor is wrong.
        ParadropError: the router lacks what is asked for.
    """
    before = reserved(update.old)
    if update.updateType in WITHOUT_NETWORKS:
        update.new.setCache("networkInterfaces", [])
        update.new.setCache("networkReservations", before)
        return
    specification = descriptor.parse(update.new.descriptor, complete=False)
    conflicts.refuse(specification, _specifications(update))
    found = place(update.name, specification, before, _facts(update)) if specification.interfaces else []
    update.new.setCache("networkInterfaces", found)
    update.new.setCache("networkReservations", found)


def getOSNetworkConfig(update: Update) -> None:
    """Store in the cache key osNetworkConfig the ``interface`` sections that the router needs."""
    update.new.setCache("osNetworkConfig", [_section(one) for one in interfaces(update.new)
                                            if one["netType"] != "wan"])


def getVirtNetworkConfig(update: Update) -> None:
    """Nothing is left to decide for the chute's side: its addresses are in networkInterfaces."""


def setOSNetworkConfig(update: Update) -> bool:
    """Put the sections into the ``network`` file. Return True if it was changed; raises as uciutils.setConfig."""
    return uciutils.setConfig(update.new, update.old, ["osNetworkConfig"], uci.getSystemPath("network"))


def abortNetworkConfig(update: Update) -> None:
    """Give back what getNetworkConfig took. What the old chute has stays its own."""
    for key in ("networkInterfaces", "networkReservations", "osNetworkConfig"):
        update.new.delCache(key)


def reclaimNetworkResources(chute: Chute) -> None:
    """Mark the addresses and names of a chute that ran before the router started as its own.

    They are in its record in the store, and every decision looks there; so this only notes them in
    networkReservations, where a store of an earlier version does not have them.
    """
    if not chute.getCache("networkReservations"):
        chute.setCache("networkReservations", interfaces(chute))


def _section(one: Interface) -> tuple[dict[str, Any], dict[str, Any]]:
    options = {"proto": "dhcp" if one.get("mode") == "sta" else "none"}
    if "externalIpaddr" in one:
        options = {"proto": "static", "ipaddr": one["externalIpaddr"], "netmask": one["netmask"]}
    if "bridge" in one:
        options |= {"type": "bridge", "bridge_empty": "1"}
    if "link" in one:
        options["ifname"] = one["link"]
    elif "bridge" not in one:
        options["ifname"] = one["externalIntf"]  # into a bridge, hostapd puts it itself
    return {"type": "interface", "name": one["externalIntf"]}, options


def _specifications(update: Update) -> list[Specification]:
    """Return what the other chutes ask for. One that cannot be read cannot run either, so it stands in nobody's way."""
    found = []
    for chute in others(update.chuteStor, update.name):
        try:
            found.append(descriptor.parse(chute.descriptor, complete=False))
        except DescriptorError as error:
            log.warning("%s: %s", chute, error.message)
    return found


def _facts(update: Update) -> Facts:
    found: dict[str, list[dict[str, str]]] = update.new.getCache("networkDevices") or devices.systemDevices()
    taken = tuple((str(chute.name), one) for chute in others(update.chuteStor, update.name) for one in reserved(chute))
    own = {one.get(key) for one in [*(one for _, one in taken), *reserved(update.old)]
           for key in ("bridge", "externalIntf", "link") if one["netType"] != "wan"}
    routes = [route for route in devices.routes()
              if route.network.prefixlen >= _WIDEST_PREFIX and route.ifname not in own]
    uplinks = {device["ifname"] for device in found["wan"]}
    wireless = uci.UCIConfig(uci.getSystemPath("wireless"))
    return Facts(
        devices={kind: [device["name"] for device in some] for kind, some in found.items()},
        links={device["name"]: device["ifname"] for some in found.values() for device in some},
        radios={config["name"]: options for config, options in wireless.config
                if config["type"] == "wifi-device" and "name" in config},
        taken=taken,
        networks=(*((route.network, f"the router's {route.ifname}") for route in routes), *_own_networks(update)),
        uplinks=tuple(route.network for route in routes if route.ifname in uplinks),
        busy=_own_links(update),
        pools=(settings.DYNAMIC_NETWORK_POOL, settings.ALTERNATE_NETWORK_POOL), prefix=settings.CHUTE_PREFIX_SIZE,
        monitor_allowed=settings.ALLOW_MONITOR_MODE,
    )


def _router_sections(update: Update) -> list[uci.Section]:
    """Return the ``interface`` sections that are no chute's."""
    names = {str(chute.name) for chute in others(update.chuteStor, None)} | {update.name}
    return [section for section in uci.UCIConfig(uci.getSystemPath("network")).config
            if section[0]["type"] == "interface" and section[0].get("comment") not in names]


def _own_networks(update: Update) -> list[tuple[IPv4Network, str]]:
    """Return the router's static networks, also those that are not up."""
    found = []
    for config, options in _router_sections(update):
        try:
            address = IPv4Interface(f"{options['ipaddr']}/{options['netmask']}")
        except (KeyError, ValueError):
            continue
        found.append((address.network, f"the router's {config.get('name', 'own network')}"))
    return found


def _own_links(update: Update) -> frozenset[str]:
    """Return the links that the router's own sections use."""
    found: set[str] = set()
    for _, options in _router_sections(update):
        found.update(options.get("ifname", "").split(), options.get("list", {}).get("ifname", []))
    return frozenset(found)
