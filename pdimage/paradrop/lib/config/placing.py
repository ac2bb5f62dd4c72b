"""Decides what each interface of a chute gets: device, names, subnet. Nothing here looks at or changes the system.

What a chute had it keeps, as long as it asks for the same and nobody else has it. What is new begins its search at a
number that follows from the chute's and the interface's names, so a chute that is removed and installed again, or on
another router of the same kind, gets the same unless that is taken.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Network
from typing import Any

from paradrop.lib import chutespec
from paradrop.lib.config.parties import Interface
from paradrop.lib.config.pool import NetworkPool, NumericPool
from paradrop.lib.errors import ConflictError, ParadropError

# More access points than that no radio can be trusted with
ACCESS_POINTS_PER_RADIO = 8
PREFIXES = {"wifi": "vwlan", "lan": "vnet", "vlan": "vnet"}
# The last address of a network is for broadcasts; the first ones after its own are the router's and the chute's
ROUTER, CHUTE = 1, 2


@dataclass(frozen=True)
class Facts:
    """What placing depends on.

    devices: names by kind, best first. radios: options of the wifi-device sections. links: network link of each
    device. taken: interfaces of other chutes, with the chute's name. networks: those that the router is in by itself,
    with what they are for messages. uplinks: those of them on the WAN side. pools: where subnets come from.
    busy: LAN links that the router uses itself.
    """

    devices: Mapping[str, list[str]]
    pools: tuple[str, ...]
    prefix: int = 24
    radios: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    taken: tuple[tuple[str, Interface], ...] = ()
    networks: tuple[tuple[IPv4Network, str], ...] = ()
    uplinks: tuple[IPv4Network, ...] = ()
    busy: frozenset[str] = frozenset()
    monitor_allowed: bool = False


def place(chute: str, specification: chutespec.Specification, before: Iterable[Interface],
          facts: Facts) -> list[Interface]:
    """Return the interfaces of a chute, complete.

    Args:
        chute: its name.
        specification: what it asks for.
        before: the interfaces that it had.
        facts: the state of the router.

    Raises:
        ConflictError: another chute has what is asked for; the message names it.
        ParadropError: the router does not have it.
    """
    placed: list[Interface] = []
    for wanted in specification.interfaces:
        record = _start(specification.service_of(wanted).name, wanted)
        previous = next((one for one in before if interfaceDefsEqual(record, one)), None)
        users = [*facts.taken, *((chute, one) for one in placed)]
        record["device"] = record["externalIntf"] = _device(chute, wanted, previous, users, facts)
        if wanted.wired_in:
            _name(chute, record, wanted, previous, users, facts)
            if record.get("mode") not in ("sta", "monitor"):
                _address(record, _subnet(chute, wanted, previous, users, facts))
        placed.append(record)
    return placed


def stableNumber(text: str) -> int:
    """Return a number that is the same for a text on every machine and in every process (the built-in hash is not)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def interfaceDefsEqual(iface1: Mapping[str, Any], iface2: Mapping[str, Any]) -> bool:
    """Return True if two interfaces have the same name, type and name in the chute: then addresses are kept."""
    return all(iface1.get(key) == iface2.get(key) for key in ("name", "netType", "internalIntf"))


def _start(service: str, wanted: chutespec.Interface) -> Interface:
    """Return the record with what the descriptor says; the rest is for others to fill in."""
    record = Interface(name=wanted.name, service=service, netType=wanted.type, internalIntf=wanted.intfName,
                       device="", externalIntf="")
    if wanted.type == "wifi":
        record["mode"] = wanted.mode or "ap"
        record["options"] = dict(wanted.wireless.options)
        if wanted.wireless.ssid:
            record["ssid"] = wanted.wireless.ssid
        if wanted.wireless.key:
            record["key"] = wanted.wireless.key
        if wanted.wireless.encryption:
            record["encryption"] = wanted.wireless.encryption
    if wanted.dhcp:
        record["dhcp"] = {"lease": wanted.dhcp.lease, "start": wanted.dhcp.start, "limit": wanted.dhcp.limit,
                          "dns": list(wanted.dhcp.dns), "relay": list(wanted.dhcp.relay)}
    return record


def _device(chute: str, wanted: chutespec.Interface, previous: Interface | None,
            users: list[tuple[str, Interface]], facts: Facts) -> str:
    if wanted.l3bridge:
        raise ParadropError(f"cannot give {chute} the network {wanted.name}: this router cannot join it to "
                            f"{wanted.l3bridge} (l3bridge)")
    if wanted.type == "wifi":
        return _radio(chute, wanted, previous, users, facts)
    candidates = facts.devices.get("lan" if wanted.type == "vlan" else wanted.type, [])
    if wanted.type == "wan":
        return candidates[0] if candidates else ""
    if wanted.type == "lan":
        owners = {one["device"]: owner for owner, one in users if one["netType"] == "lan"}
        free = [name for name in candidates if name not in owners and facts.links.get(name, name) not in facts.busy]
        if candidates and not free and owners:
            raise ConflictError([f"{wanted.path}: no LAN device is left beside " + _and(sorted(set(owners.values())))])
        candidates = free
    if not candidates:
        raise ParadropError(f"Missing device(s) requested by chute: {wanted.path} needs a LAN device that the router "
                            "does not use itself")
    return previous["device"] if previous and previous["device"] in candidates else candidates[0]


def _radio(chute: str, wanted: chutespec.Interface, previous: Interface | None,
           users: list[tuple[str, Interface]], facts: Facts) -> str:
    """Return the radio for a wireless network: the one it had, or else the busiest with room, so that others stay free.
    """
    if wanted.mode == "monitor" and not facts.monitor_allowed:
        raise ParadropError(f"cannot give {chute} the network {wanted.name}: this router does not let chutes listen to "
                            "all that is on the air; its owner can set ALLOW_MONITOR_MODE")
    fitting = [name for name in facts.devices.get("wifi", [])
               if all(facts.radios.get(name, {}).get(key) == value for key, value in wanted.requirements.items())]
    if not fitting:
        asked = "".join(f", {key} {value}" for key, value in wanted.requirements.items())
        raise ParadropError(f"Missing device(s) requested by chute: {wanted.path} needs a radio{asked}")
    shares = {name: [(owner, one) for owner, one in users if one["device"] == name] for name in fitting}
    free = [name for name in fitting if not shares[name] or (
        wanted.mode == "ap" and len(shares[name]) < ACCESS_POINTS_PER_RADIO
        and all(one.get("mode") == "ap" for _, one in shares[name]))]
    if not free:
        owners = _and(sorted({owner for name in fitting for owner, _ in shares[name]}))
        raise ConflictError([f"{wanted.path}: no radio is left beside {owners}"])
    if previous and previous["device"] in free:
        return previous["device"]
    return max(free, key=lambda name: len(shares[name]))


def _name(chute: str, record: Interface, wanted: chutespec.Interface, previous: Interface | None,
          users: list[tuple[str, Interface]], facts: Facts) -> None:
    """Fill in the names on the router's side. The kernel takes 15 characters; these have 9, or 12 with ``br-``."""
    pool = NumericPool(4, stableNumber(f"{chute}:{wanted.name}"))
    for _, one in users:
        if "extIntfNumber" in one:
            pool.reserve(one["extIntfNumber"], strict=False)
    prefix = PREFIXES[wanted.type]
    number = previous.get("extIntfNumber") if previous else None
    if number is None or number in pool.used:
        number = pool.next()
    record["extIntfPrefix"], record["extIntfNumber"] = prefix, number
    record["externalIntf"] = f"{prefix}{number:04x}"
    if wanted.type != "wifi":
        record["link"] = _link(wanted, facts.links.get(record["device"], record["device"]), users)
    if record.get("mode") not in ("sta", "monitor"):
        record["bridge"] = f"br-{record['externalIntf']}"


def _link(wanted: chutespec.Interface, device: str, users: list[tuple[str, Interface]]) -> str:
    """Return the link of a LAN device, or the VLAN on it."""
    link = f"{device}.{wanted.vlan_id}" if wanted.type == "vlan" else device
    if len(link.encode()) > 15:
        raise ParadropError(f"cannot make {link}: the name is longer than 15 bytes")
    for owner, one in users:
        if one.get("link") == link:
            raise ConflictError([f"{wanted.path}: {link} belongs to {owner}"])
    return link


@lru_cache(maxsize=1024)
def _network(text: str) -> IPv4Network:
    """Return a network; those of the other chutes are the same at each update."""
    return IPv4Network(text)


def _subnet(chute: str, wanted: chutespec.Interface, previous: Interface | None,
            users: list[tuple[str, Interface]], facts: Facts) -> IPv4Network:
    others = [*((_network(one["subnet"]), owner) for owner, one in users if "subnet" in one), *facts.networks]
    if wanted.ipv4_network:
        fixed = IPv4Network(wanted.ipv4_network)
        for network, owner in others:
            if fixed.overlaps(network):
                raise ConflictError([f"{wanted.path}.ipv4_network: {fixed} overlaps {network} of {owner}"])
        return fixed
    if previous and "subnet" in previous:
        had = IPv4Network(previous["subnet"])
        if had.prefixlen == facts.prefix and not any(had.overlaps(network) for network, _ in others):
            return had
    start = stableNumber(f"{chute}:{wanted.name}")
    for text in sorted(facts.pools, key=lambda text: any(IPv4Network(text).overlaps(net) for net in facts.uplinks)):
        pool = NetworkPool(text, facts.prefix, start % 2 ** (facts.prefix - IPv4Network(text).prefixlen))
        for network, _ in others:
            pool.reserve(network, strict=False)
        try:
            return IPv4Network(pool.next())
        except ParadropError:
            continue
    raise ParadropError(f"cannot give {chute} the network {wanted.name}: the pools {_and(list(facts.pools))} are used "
                        "up; delete a chute or set a larger DYNAMIC_NETWORK_POOL")


def _address(record: Interface, subnet: IPv4Network) -> None:
    record["subnet"] = str(subnet)
    record["netmask"] = str(subnet.netmask)
    record["externalIpaddr"] = str(subnet[ROUTER])
    record["internalIpaddr"] = str(subnet[CHUTE])
    record["ipaddrWithPrefix"] = f"{subnet[CHUTE]}/{subnet.prefixlen}"


def _and(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
