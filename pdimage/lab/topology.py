"""Gives the cards of machines their addresses, and finds what can't be. Pure functions of a configuration.

A configuration is what a LagoInitFile says: ``domains`` (machines, by name, with ``nics``) and ``nets``.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from fussy.errors import FussyError
from pdimage.lab import constants

# The gateway has the first address; those before the first of a range for DHCP are for machines.
FIRST_HOST, LAST_HOST = 2, 254


class NoAddress(FussyError, RuntimeError):
    """A card can't have the address that it wants, or there is none left."""


def create_ip(subnet: str, index: int | str) -> str:
    """Return the address with the last number INDEX in SUBNET (an address in it, or its first three numbers; /24).

    >>> create_ip("192.168.200.1", 7), create_ip("192.168.200", "8")
    ('192.168.200.7', '192.168.200.8')
    """
    return ".".join([*subnet.split(".")[:3], str(index)])


def ip_in_subnet(subnet: str, ip: str | int) -> bool:
    """Tell whether the address IP is in the /24 network SUBNET (an address in it, or its first three numbers).

    >>> ip_in_subnet("192.168.200.0", "192.168.200.9"), ip_in_subnet("192.168.200", "192.168.201.9")
    (True, False)
    """
    return create_ip(subnet, 0) == create_ip(str(ip), 0)


def cards(conf: dict[str, Any]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield (name of the machine, number of the card, card) for all cards."""
    for name, domain in conf["domains"].items():
        for number, nic in enumerate(domain["nics"]):
            yield name, number, nic


def add_nic_to_mapping(net: dict[str, Any], dom: dict[str, Any], nic: dict[str, Any]) -> None:
    """Note the address of NIC in the network's mapping, by the name of its machine; a second card gets a number."""
    name, number = str(dom["name"]), 1
    while name in net["mapping"]:
        number += 1
        name = f"{dom['name']}-{number}"
    net["mapping"][name] = nic["ip"]


def register_preallocated_ips(conf: dict[str, Any]) -> None:
    """Note all addresses that are written in CONF.

    :raises NoAddress: one is not in its network, is the gateway's, or is there twice
    """
    for name, number, nic in cards(conf):
        if "ip" not in nic:
            continue
        net, ip = conf["nets"][nic["net"]], nic["ip"]
        where = f"domains.{name}.nics[{number}].ip"
        if not ip_in_subnet(net["gw"], ip) or not FIRST_HOST <= int(ip.split(".")[3]) <= LAST_HOST:
            raise NoAddress(f"cannot use {where}: {ip} is no address for a machine in {net['name']}; "
                            f"use {create_ip(net['gw'], FIRST_HOST)} to {create_ip(net['gw'], LAST_HOST)}")
        if ip in net["mapping"].values():
            raise NoAddress(f"cannot use {where}: {ip} is there twice in {net['name']}")
        add_nic_to_mapping(net, conf["domains"][name], nic)


def allocate_ips_to_nics(conf: dict[str, Any]) -> None:
    """Give an address to each card that has none, in networks where machines get one.

    :raises NoAddress: a network has no address left
    """
    for name, _number, nic in cards(conf):
        net = conf["nets"][nic["net"]]
        if "ip" in nic or net["type"] != "nat":
            continue
        taken = set(net["mapping"].values())
        dhcp = net.get("dhcp")
        pool = range(dhcp["start"], dhcp["end"] + 1) if dhcp else range(0)
        free = (ip for index in range(FIRST_HOST, LAST_HOST + 1) if index not in pool
                and (ip := create_ip(net["gw"], index)) not in taken)
        nic["ip"] = next(free, None)
        if nic["ip"] is None:
            raise NoAddress(f"cannot give {name} an address in {net['name']}: none is left; "
                            "give DHCP a smaller range")
        add_nic_to_mapping(net, conf["domains"][name], nic)


def give_hardware_addresses(conf: dict[str, Any]) -> None:
    """Give each card a hardware address: from its address, or from where it is plugged in."""
    positions = {name: position for position, name in enumerate(conf["domains"])}
    for name, number, nic in cards(conf):
        numbers = [int(part) for part in nic["ip"].split(".")] if "ip" in nic else [0, 0, positions[name], number]
        nic.setdefault("mac", hardware_address(numbers))


def hardware_address(numbers: Iterable[int]) -> str:
    """Return the hardware address that ends with four NUMBERS.

    >>> hardware_address([192, 168, 200, 2])
    '54:52:c0:a8:c8:02'
    """
    return ":".join([constants.MAC_PREFIX, *(f"{number:02x}" for number in numbers)])
