"""Addresses, and who has what: each check looks at the chutes of a store, but the one of the given name.

Addresses are texts such as ``10.0.0.1``. What makes no sense gives None or False, never an error.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from paradrop.lib import conflicts, descriptor
from paradrop.lib.chute import Chute
from paradrop.lib.config.parties import ChuteStore, Interface, interfaces, others, reserved
from paradrop.lib.config.placing import ACCESS_POINTS_PER_RADIO

IPv4Address = ipaddress.IPv4Address
IPv4Interface = ipaddress.IPv4Interface
PHYS = Path("/sys/class/ieee80211")
HOST_PREFIX = "@net.host."


def isIpValid(ipaddr: str) -> bool:
    """Return True if a text is an IPv4 address in quad dot notation."""
    return _address(ipaddr) is not None


def isIpAvailable(ipaddr: str, chuteStor: ChuteStore, name: str | None) -> bool:
    """Return True if no other chute has a network that an address is in."""
    address = _address(ipaddr)
    return address is not None and not any(
        address in ipaddress.ip_network(one["subnet"]) for one in _taken(chuteStor, name) if "subnet" in one)


def isStaticIpAvailable(ipaddr: str, chuteStor: ChuteStore, name: str | None) -> bool:
    """Return True if no other chute has exactly that address, on either end of a network."""
    return isIpValid(ipaddr) and not any(
        ipaddr in (one.get("externalIpaddr"), one.get("internalIpaddr")) for one in _taken(chuteStor, name))


def isWifiSSIDAvailable(ssid: str, chuteStor: ChuteStore, name: str | None) -> bool:
    """Return True if no other chute has an access point of that name."""
    return not any(one.get("ssid") == ssid and _mode(one) == "ap" for one in _taken(chuteStor, name))


def isWifiIntAvailable(radioid: str, numWifi: int, chuteStor: ChuteStore, name: str | None) -> bool:
    """Return True if a radio can have numWifi wireless interfaces more besides those of other chutes."""
    used = sum(1 for _ in _on_radio(radioid, chuteStor, name))
    return used + numWifi <= ACCESS_POINTS_PER_RADIO


def isWifiOnRadio(radioid: str, chuteStor: ChuteStore, name: str | None) -> bool:
    """Return True if another chute has an access point on a radio."""
    return any(_mode(one) == "ap" for one in _on_radio(radioid, chuteStor, name))


def isStaMeshOnRadio(radioid: str, chuteStor: ChuteStore, name: str | None) -> bool:
    """Return True if another chute is a station, or part of a mesh, on a radio."""
    return any(_mode(one) in ("sta", "mesh") for one in _on_radio(radioid, chuteStor, name))


def isStaMeshAvailable(chuteStor: ChuteStore, name: str | None) -> bool:
    """Return True if no other chute is a station or part of a mesh: the router can have one such way out."""
    return not any(_mode(one) in ("sta", "mesh") for one in _taken(chuteStor, name))


def isRadioPassedthrough(radioid: str, chuteStor: ChuteStore, name: str | None) -> bool:
    """Return True if another chute has a radio for itself, to listen with."""
    return any(_mode(one) == "monitor" for one in _on_radio(radioid, chuteStor, name))


def areWanPortsAvailable(portRange: str | int, takenPorts: Iterable[str | int], chuteStor: ChuteStore,
                         name: str | None) -> bool:
    """Return True if nobody else forwards a port, or a range such as ``8000:8010`` (or with ``-``), on the WAN side.

    Args:
        portRange: the port or range asked for.
        takenPorts: those that are taken already, besides those of the other chutes' bindings and redirects.
        chuteStor: where the other chutes are.
        name: the chute that asks.
    """
    wanted = _ports(portRange)
    if wanted is None:
        return False
    taken = [_ports(text) for text in takenPorts]
    for chute in others(chuteStor, name):
        if not descriptor.mistakes(chute.descriptor):
            taken += [(port, port) for port, _, _ in conflicts.ports(descriptor.parse(chute.descriptor))]
    return not any(one and wanted[0] <= one[1] and one[0] <= wanted[1] for one in taken)


def checkPhyExists(radioid: str | int) -> bool:
    """Return True if there is a radio of that number, or of that name such as ``phy0``."""
    text = str(radioid)
    name = text if text.startswith("phy") else f"phy{text}"
    return re.fullmatch(r"phy\w+", name) is not None and (PHYS / name).exists()


def incIpaddr(ipaddr: str, inc: int = 1) -> str | None:
    """Return the address that is inc after another.

    >>> incIpaddr("10.0.0.255")
    '10.0.1.0'
    """
    address = _address(ipaddr)
    try:
        return None if address is None else str(address + inc)
    except ipaddress.AddressValueError:
        return None


def maxIpaddr(ipaddr: str) -> str | None:
    """Return the largest address that a host can have in the /24 network of an address, which ends in .254."""
    address = _address(ipaddr)
    return None if address is None else str(IPv4Interface(f"{address}/24").network[-2])


def getSubnet(ip1: str, sn1: str) -> str | None:
    """Return the address of the network that an address is in; sn1 is the netmask, or the length of the prefix.

    >>> getSubnet("10.1.2.3", "255.255.0.0")
    '10.1.0.0'
    """
    try:
        return str(IPv4Interface(f"{ip1}/{sn1}").network.network_address)
    except ValueError:
        return None


def isSameSubnet(ip1: str, ip2: str, netmask: str = "255.255.255.0") -> bool:
    """Return True if two addresses are in one network."""
    first = getSubnet(ip1, netmask)
    return first is not None and first == getSubnet(ip2, netmask)


def getChuteIntf(name: str, netIntfs: Iterable[Mapping[str, Any]]) -> str:
    """Return the router's name of a chute's network interface; the name itself if the chute has none such.

    ``@net.host.lan`` means the router's own ``lan``, also if the chute has an interface of that name.
    """
    if name.startswith(HOST_PREFIX):
        return name.removeprefix(HOST_PREFIX)
    return next((str(one["externalIntf"]) for one in netIntfs if one["name"] == name), name)


def getInternalIntfList(ch: Chute) -> list[str] | None:
    """Return the names of the interfaces in a chute, None if its cache has no networkInterfaces."""
    found = ch.getCache("networkInterfaces")
    return None if found is None else [one["internalIntf"] for one in found]


def getGatewayIntf(ch: Chute) -> tuple[str | None, str | None]:
    """Return the address that a chute's way to the Internet leads to, and its interface in the chute.

    (None, None) if it has no interface of type wan; the address is None where Docker provides it.
    """
    wan = getWANIntf(ch)
    return (wan.get("externalIpaddr"), wan["internalIntf"]) if wan else (None, None)


def getWANIntf(ch: Chute) -> Interface | None:
    """Return a chute's interface of type wan, as networkInterfaces has it, or None."""
    return next((one for one in interfaces(ch) if one["netType"] == "wan"), None)


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except ValueError:
        return None


def _ports(text: str | int) -> tuple[int, int] | None:
    """Return the first and last port of a range, None if it is none."""
    match = re.fullmatch(r"([0-9]{1,5})(?:[-:]([0-9]{1,5}))?", str(text))
    if not match:
        return None
    first, last = int(match[1]), int(match[2] or match[1])
    return (first, last) if 0 < first <= last < 65536 else None


def _taken(store: ChuteStore, name: str | None) -> Iterable[Interface]:
    return (one for chute in others(store, name) for one in reserved(chute))


def _on_radio(radio: str, store: ChuteStore, name: str | None) -> Iterable[Interface]:
    return (one for one in _taken(store, name) if one["netType"] == "wifi" and one["device"] == radio)


def _mode(one: Interface) -> str | None:
    return one.get("mode", "ap") if one["netType"] == "wifi" else None
