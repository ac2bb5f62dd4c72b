"""What two chutes cannot both have: ports of the router, SSIDs, fixed subnets, VLANs, more than all of its processors.

It needs only what the chutes ask for, so it works when an image is built as well as on the router. What depends on the
router's devices is in config/placing.py.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network

from paradrop.lib import settings
from paradrop.lib.chutespec import Specification
from paradrop.lib.errors import ConflictError


def refuse(new: Specification, others: Iterable[Specification]) -> None:
    """Raise if a chute cannot be beside others.

    Raises:
        ConflictError: with all conflicts, each as ``path: what the other chute has``.
    """
    if found := list(find(new, others)):
        raise ConflictError(found)


def find(new: Specification, others: Iterable[Specification], memory: int | None = None,
         router_port: int | None = None) -> Iterator[str]:
    """Yield the conflicts of a chute with others, and with the router. One of the same name is its former self.

    Args:
        new: the chute.
        others: those that are there.
        memory: bytes that all of them together may have; None does not look at memory.
        router_port: the port of the router's own HTTP face; None is the one of the settings here.
    """
    rest = [other for other in others if other.name != new.name]
    yield from _router_ports(new, router_port or int(settings.PDFCD_PORT))
    for other in rest:
        yield from _ports(new, other)
        yield from _ssids(new, other)
        yield from _subnets(new, other)
        yield from _vlans(new, other)
    yield from _shares(new, rest, "cpu_fraction", 1, "of the processors")
    if memory is not None:
        yield from _shares(new, rest, "memory", memory, "bytes of memory")


def ports(chute: Specification) -> Iterator[tuple[int, str, str]]:
    """Yield the router's ports that a chute has: number, protocol, path."""
    for service in chute.services:
        for port in service.ports:
            yield port.external, port.protocol, port.path
    for rule in chute.firewall:
        if rule.port:
            yield rule.port, "tcp", f"{rule.path}.from"
            yield rule.port, "udp", f"{rule.path}.from"


def _router_ports(new: Specification, own: int) -> Iterator[str]:
    for number, protocol, path in ports(new):
        if (number, protocol) == (own, "tcp"):
            yield f"{path}: port {number} is the router's own"


def _ports(new: Specification, other: Specification) -> Iterator[str]:
    taken = {(number, protocol) for number, protocol, _ in ports(other)}
    told = set()
    for number, protocol, path in ports(new):
        if (number, protocol) in taken and path not in told:
            told.add(path)
            yield f"{path}: port {number} belongs to {other.name}"


def _ssids(new: Specification, other: Specification) -> Iterator[str]:
    taken = {one.wireless.ssid for one in other.interfaces if one.mode == "ap"}
    for one in new.interfaces:
        if one.mode == "ap" and one.wireless.ssid in taken:
            yield f"{one.path}.ssid: {one.wireless.ssid} belongs to {other.name}"


def _subnets(new: Specification, other: Specification) -> Iterator[str]:
    for one in new.interfaces:
        for theirs in other.interfaces:
            if one.ipv4_network and theirs.ipv4_network and IPv4Network(one.ipv4_network).overlaps(
                    IPv4Network(theirs.ipv4_network)):
                yield f"{one.path}.ipv4_network: {one.ipv4_network} overlaps {theirs.ipv4_network} of {other.name}"


def _vlans(new: Specification, other: Specification) -> Iterator[str]:
    taken = {one.vlan_id for one in other.interfaces if one.type == "vlan"}
    for one in new.interfaces:
        if one.type == "vlan" and one.vlan_id in taken:
            yield f"{one.path}.vlan_id: {one.vlan_id} belongs to {other.name}"


def _shares(new: Specification, others: list[Specification], field: str, limit: float, unit: str) -> Iterator[str]:
    """Yield the conflict, if any, over something that all chutes have parts of."""
    def asked(chute: Specification) -> float:
        return sum(getattr(service, field) or 0 for service in chute.services)

    users = {other.name: asked(other) for other in others if asked(other)}
    if asked(new) and asked(new) + sum(users.values()) > limit * (1 + 1e-9):
        beside = ", ".join(f"{name} ({share:.10g})" for name, share in users.items())
        yield (f"{new.services[0].path or 'resources'}: {asked(new):.10g} {unit} are asked for, "
               + (f"beside {beside}, " if beside else "") + f"of {limit:.10g}")
