"""Detects the physical devices that chutes can use, and sees to it that shared sections for them exist.

Devices are network interfaces: the one to the Internet (wan), radios (wifi), and the others (lan). A radio is known
by the name of its wifi-device section, which follows its hardware address: names such as wlan0 may change at each boot.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from paradrop.lib import settings
from paradrop.lib.config.parties import Update
from paradrop.lib.utils import uci

log = logging.getLogger(__name__)

SYS_NET = Path("/sys/class/net")
PROC_ROUTE = Path("/proc/net/route")

# Names that the router itself, Docker or tunnels give; v begins those of chutes' interfaces
_VIRTUAL = ("lo", "br", "docker", "veth", "vwlan", "vnet", "hv", "tv", "hbr", "tbr", "sit", "tun", "tap", "wg", "dummy",
            "ifb", "mon.", "virbr", "gre", "erspan", "ip6tnl", "ip_vti", "ip6_vti", "tunl")
_CHANNELS = (1, 6, 11)


@dataclass(frozen=True)
class Route:
    """One line of the kernel's table: what goes out by an interface."""

    ifname: str
    network: IPv4Network


def isVirtual(ifname: str) -> bool:
    """Return True if an interface has the name of a virtual one: a VLAN, a bridge, a container's, a tunnel's."""
    return "." in ifname or ifname.startswith(_VIRTUAL)


def isWAN(ifname: str) -> bool:
    """Return True if a default route goes out by an interface."""
    return ifname in _uplinks()


def isWireless(ifname: str) -> bool:
    """Return True if an interface is a radio's."""
    return any((SYS_NET / ifname / mark).exists() for mark in ("wireless", "phy80211"))


def routes() -> list[Route]:
    """Return the kernel's IPv4 routes (proc(5), /proc/net/route: hexadecimal, in the processor's byte order)."""
    found = []
    for line in _read(PROC_ROUTE).splitlines()[1:]:
        ifname, destination, _, _, _, _, _, mask = line.split()[:8]
        address, length = bytes.fromhex(destination)[::-1], int.from_bytes(bytes.fromhex(mask)).bit_count()
        found.append(Route(ifname, IPv4Network((address, length), strict=False)))
    return found


def _uplinks() -> set[str]:
    """Return the interfaces that a default route goes out by."""
    return {route.ifname for route in routes() if route.network.prefixlen == 0}


def getSystemDevices(update: Update) -> None:
    """Detect devices and store them in the cache key networkDevices: ``{wan: [...], wifi: [...], lan: [...]}``.

    Each is ``{name, ifname, mac}``, radios also with ``phy``. Without a wan or a radio there is only a warning here.
    """
    devices = systemDevices()
    for kind in ("wan", "wifi"):
        if not devices[kind]:
            log.warning("no %s device was found", kind)
    update.new.setCache("networkDevices", devices)


def systemDevices() -> dict[str, list[dict[str, str]]]:
    """Return the devices as the cache key networkDevices has them."""
    found: dict[str, list[dict[str, str]]] = {"wan": [], "wifi": [], "lan": []}
    radios: dict[str, dict[str, str]] = {}
    sections = uci.UCIConfig(uci.getSystemPath("wireless")).config
    uplinks = _uplinks()
    for path in sorted(SYS_NET.iterdir(), key=lambda path: (int(_read(path / "ifindex") or 0), path.name)):
        ifname = path.name
        if (isVirtual(ifname) and not isWAN(ifname)) or not (path / "ifindex").exists():
            continue  # the way to the Internet may well be a VLAN
        device = {"name": ifname, "ifname": ifname, "mac": _read(path / "address").strip()}
        if isWireless(ifname):
            device["phy"] = _read(path / "phy80211" / "name").strip() or ifname
            device["name"] = _section_name(device, sections)
            radios.setdefault(device["phy"], device)
        else:
            found["wan" if ifname in uplinks else "lan"].append(device)
    found["wifi"] = list(radios.values())
    return found


def setSystemDevices(update: Update) -> None:
    """Add the sections that all chutes need where they are missing: ``interface wan``, its zone, one per radio.

    What is there stays, save where a radio is now, and a wan whose interface is gone.
    """
    devices: dict[str, list[dict[str, str]]] = update.new.getCache("networkDevices")
    if devices["wan"]:
        wan = devices["wan"][0]["ifname"]
        _forget_lost_wan(wan)
        setConfig(settings.RESERVED_CHUTE, [({"type": "interface", "name": "wan"}, {"ifname": wan, "proto": "dhcp"})],
                  uci.getSystemPath("network"))
        zone = {"name": "wan", "masq": "1", "input": "ACCEPT", "forward": "REJECT", "output": "ACCEPT",
                "network": ["wan"]}
        setConfig(settings.RESERVED_CHUTE, [({"type": "zone", "name": "wan"}, zone)], uci.getSystemPath("firewall"))
    sections = []
    for number, device in enumerate(devices["wifi"]):
        options = {"type": "auto", "channel": str(_CHANNELS[number % len(_CHANNELS)]), "macaddr": device["mac"],
                   "ifname": device["ifname"], "phy": device["phy"]}
        sections.append(({"type": "wifi-device", "name": device["name"]}, options))
    setConfig(settings.RESERVED_CHUTE, sections, uci.getSystemPath("wireless"))
    _follow_radios(devices["wifi"])


def setConfig(chuteName: str, sections: Iterable[tuple[dict[str, Any], dict[str, Any]]], filepath: str) -> bool:
    """Add sections that a UCI file lacks, owned by chuteName. Return True if there were any.

    A section of the same type and name counts, whatever it says and whoever owns it.
    """
    file = uci.UCIConfig(filepath)
    missing = [({**config, "comment": chuteName}, options) for config, options in sections
               if not _like(file, config)]
    if not missing:
        return False
    file.addConfigs(missing)
    file.save(backupToken="paradrop", internalid=chuteName)
    return True


def _like(file: uci.UCIConfig, config: dict[str, Any]) -> list[uci.Section]:
    """Return the sections of the same type and name; zones may have their name as an option only."""
    return [section for section in file.config if section[0]["type"] == config["type"]
            and config.get("name") in (section[0].get("name"), section[1].get("name"))]


def _section_name(device: dict[str, str], sections: list[uci.Section]) -> str:
    """Return the name of the wifi-device section that a radio has, or of the one that it will get."""
    named = [(config["name"], options) for config, options in sections
             if config["type"] == "wifi-device" and "name" in config]
    for name, options in named:
        if options.get("macaddr", "").lower() == device["mac"]:
            return name
    for name, options in named:
        if "macaddr" not in options and options.get("ifname", name) == device["ifname"]:
            return name
    return "wifi" + device["mac"].replace(":", "")


def _follow_radios(radios: list[dict[str, str]]) -> None:
    """Write down where radios are now that have moved since their section was made."""
    file = uci.UCIConfig(uci.getSystemPath("wireless"))
    moved = False
    for device in radios:
        for _, options in file.getConfigIgnoreComments({"type": "wifi-device", "name": device["name"]}):
            now = {"ifname": device["ifname"], "phy": device["phy"]}
            if "macaddr" in options and any(options.get(key) != value for key, value in now.items()):
                options.update(now)
                moved = True
    if moved:
        file.save()


def _forget_lost_wan(wan: str) -> None:
    """Remove our ``interface wan`` if its interface is no longer in this machine."""
    file = uci.UCIConfig(uci.getSystemPath("network"))
    lost = [section for section in file.getChuteConfigs(settings.RESERVED_CHUTE)
            if section[0].get("name") == "wan" and not (SYS_NET / section[1].get("ifname", wan)).exists()]
    if lost:
        file.delConfigs(lost)
        file.save()


def _read(path: Path) -> str:
    """Return the content of a file of the kernel, nothing if it has none."""
    try:
        return path.read_text()
    except OSError:
        return ""
