"""Puts an interface of a chute into the network namespace of its container, and takes it out again.

The chute's end is a macvlan child of the host's interface (mode bridge); or, where the host's interface is a bridge,
one end of a veth pair whose other end is a port of it. Both vanish with the container's namespace.

The container's default route is Docker's. What is sent from the address of an interface that has a gateway leaves by
that interface all the same, by a routing table of its own: answers to redirected connections go back the way the
questions came, as reverse path filtering (RFC 3704) wants it on both sides.
"""

import contextlib
import json
import logging
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface

from paradrop.lib.errors import ParadropError

log = logging.getLogger(__name__)

TIMEOUT = 20
_OURS = re.compile(r"[ht](br-v)?(net|lan|wlan)[0-9a-f]{4}")
Argv = list[str]


@dataclass(frozen=True)
class Wire:
    """An interface to make: ``external`` on the host, ``internal`` in a service's container, with its address.

    ``gateway`` is the host's address there, if it has one.
    """

    external: str
    internal: str
    address: str
    service: str = "main"
    gateway: str | None = None

    @property
    def port(self) -> str:
        """The host's end of a veth pair."""
        return f"h{self.external.removeprefix('v')}"[:15]

    @property
    def passing(self) -> str:
        """The container's end until it is in there. No name of a chute's interface begins like this."""
        return f"t{self.external.removeprefix('v')}"[:15]

    @property
    def mac(self) -> str:
        """The container's hardware address. It says the IP address, so that neighbours need not learn a new one."""
        return "02:42:" + IPv4Interface(self.address).packed[:4].hex(":")

    @property
    def table(self) -> str:
        """The routing table, whose number is that of the interface; numbers below 1000 are others'."""
        return str(1000 + int(self.external[-4:], 16))

    @property
    def rule(self) -> Argv:
        """What picks the routing table, before the main one (32766) is asked."""
        return ["from", self.address.partition("/")[0], "table", self.table, "priority", "1000"]


def connect(wire: Wire, pid: int) -> None:
    """Give the container whose first process is ``pid`` an interface. What it had under that name is replaced.

    Raises:
        ParadropError: it cannot be done; nothing is left on the host.
    """
    disconnect(wire, pid)
    try:
        for argv in [*commands(wire, pid, kind(wire.external)), *way_back(wire, pid)]:
            _run(argv)
    except ParadropError:
        _quietly(["ip", "link", "delete", "dev", wire.passing])
        _quietly(["ip", "link", "delete", "dev", wire.port])
        raise


def disconnect(wire: Wire, pid: int | None = None) -> None:
    """Take away what connect() made, or half of it, or nothing."""
    if pid is not None:
        _quietly([*_inside(pid), "link", "delete", "dev", wire.internal])
        if wire.gateway:
            _quietly([*_inside(pid), "rule", "delete", *wire.rule])
    _quietly(["ip", "link", "delete", "dev", wire.passing])
    _quietly(["ip", "link", "delete", "dev", wire.port])


def sweep(externals: Iterable[str]) -> None:
    """Remove the host's ends of wires that no longer belong to any of these interfaces, as a crash leaves them."""
    keep = {end for external in externals for end in (Wire(external, "", "").port, Wire(external, "", "").passing)}
    for link in json.loads(_run(["ip", "-json", "link", "show"]) or "[]"):
        if _OURS.fullmatch(link["ifname"]) and link["ifname"] not in keep:
            _quietly(["ip", "link", "delete", "dev", link["ifname"]])


def commands(wire: Wire, pid: int, external_kind: str) -> list[Argv]:
    """Return the commands that make the interface.

    >>> [" ".join(argv) for argv in commands(Wire("vwlan0001", "wlan0", "10.0.0.2/24"), 7, "")]
    ... # doctest: +NORMALIZE_WHITESPACE
    ['ip link add link vwlan0001 name twlan0001 address 02:42:0a:00:00:02 type macvlan mode bridge',
     'ip link set dev twlan0001 netns 7 name wlan0',
     'nsenter -t 7 -n ip address replace 10.0.0.2/24 dev wlan0',
     'nsenter -t 7 -n ip link set dev wlan0 up']
    """
    if external_kind == "bridge":
        make = [["ip", "link", "add", "name", wire.port, "type", "veth", "peer", "name", wire.passing,
                 "address", wire.mac],
                ["ip", "link", "set", "dev", wire.port, "master", wire.external, "up"]]
    else:
        make = [["ip", "link", "add", "link", wire.external, "name", wire.passing, "address", wire.mac,
                 "type", "macvlan", "mode", "bridge"]]
    return [*make,
            ["ip", "link", "set", "dev", wire.passing, "netns", str(pid), "name", wire.internal],
            [*_inside(pid), "address", "replace", wire.address, "dev", wire.internal],
            [*_inside(pid), "link", "set", "dev", wire.internal, "up"]]


def way_back(wire: Wire, pid: int) -> list[Argv]:
    """Return the commands that make what is sent from the interface's address leave by it.

    >>> [" ".join(argv) for argv in way_back(Wire("br-vnet0001", "eth1", "10.0.0.2/24", gateway="10.0.0.1"), 7)]
    ... # doctest: +NORMALIZE_WHITESPACE
    ['nsenter -t 7 -n ip route replace 10.0.0.0/24 dev eth1 table 1001',
     'nsenter -t 7 -n ip route replace default via 10.0.0.1 dev eth1 table 1001',
     'nsenter -t 7 -n ip rule add from 10.0.0.2 table 1001 priority 1000']
    """
    if not wire.gateway:
        return []
    route = [*_inside(pid), "route", "replace"]
    there = ["dev", wire.internal, "table", wire.table]
    return [[*route, str(IPv4Interface(wire.address).network), *there],
            [*route, "default", "via", wire.gateway, *there],
            [*_inside(pid), "rule", "add", *wire.rule]]


def kind(ifname: str) -> str:
    """Return the kind of an interface, such as "bridge"; "" for a device that is no virtual one.

    Raises:
        ParadropError: there is none of that name.
    """
    shown = json.loads(_run(["ip", "-details", "-json", "link", "show", "dev", ifname]) or "[]")
    entry = shown[0] if shown else {}
    return str(entry.get("linkinfo", {}).get("info_kind", ""))


def _inside(pid: int) -> Argv:
    return ["nsenter", "-t", str(pid), "-n", "ip"]


def _run(argv: Argv) -> str:
    """Run a command and return what it says.

    Raises:
        ParadropError: it is absent, failed, or took longer than TIMEOUT seconds.
    """
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ParadropError(f"cannot connect the chute's interface: {error}") from error
    if done.returncode != 0:
        raise ParadropError(f"cannot connect the chute's interface: {' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def _quietly(argv: Argv) -> None:
    with contextlib.suppress(ParadropError):
        _run(argv)
