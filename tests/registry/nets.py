"""A server's network, a gateway that masquerades, and a router behind it, as network namespaces."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from tests.paradrop.engine import Engine

SERVER = "10.77.0.1"
UPLINK = "192.168.77.2"


@dataclass(frozen=True)
class Nets:
    """The namespaces: of the server and its users, of the gateway, and of the router."""

    server: str
    gateway: str
    router: str

    def run(self, where: str, *argv: str) -> str:
        """Run a command in a namespace."""
        return subprocess.run(["nsenter", f"--net=/run/netns/{where}", *argv], check=True, capture_output=True,
                              text=True, timeout=60).stdout

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Drop all packets between router and server, as long as the block lasts. Nobody is told."""
        rule = ("FORWARD", "-j", "DROP")
        self.run(self.gateway, "iptables", "-I", *rule)
        try:
            yield
        finally:
            self.run(self.gateway, "iptables", "-D", *rule)

    def listening(self, where: str) -> set[str]:
        """Return the addresses at which something listens in a namespace (TCP and UDP)."""
        rows = self.run(where, "ss", "-Hlntu").splitlines()
        return {row.split()[4].rpartition(":")[0] for row in rows}


@contextlib.contextmanager
def behind_nat(engine: Engine) -> Iterator[Nets]:
    """Put the router with this engine behind a gateway, beyond which a server is."""
    nets = Nets(f"walk-server-{os.getpid()}", f"walk-gateway-{os.getpid()}", engine.netns)
    try:
        for name in (nets.server, nets.gateway):
            subprocess.run(["ip", "netns", "add", name], check=True, timeout=20)
            nets.run(name, "ip", "link", "set", "lo", "up")
        _wire(nets, (nets.server, "lan0", f"{SERVER}/24"), (nets.gateway, "up0", "10.77.0.2/24"))
        _wire(nets, (nets.router, "wan0", f"{UPLINK}/24"), (nets.gateway, "down0", "192.168.77.1/24"))
        nets.run(nets.router, "ip", "route", "add", "default", "via", "192.168.77.1")
        nets.run(nets.gateway, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        nets.run(nets.gateway, "iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "up0", "-j", "MASQUERADE")
        nets.run(nets.gateway, "iptables", "-A", "FORWARD", "-i", "up0", "-m", "conntrack", "--ctstate", "NEW", "-j",
                 "DROP")
        yield nets
    finally:
        # the end of a namespace takes its links away only some time later
        subprocess.run(["ip", "-n", nets.router, "link", "delete", "wan0"], check=False, capture_output=True,
                       timeout=20)
        for name in (nets.server, nets.gateway):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True, timeout=20)


def _wire(nets: Nets, *ends: tuple[str, str, str]) -> None:
    (one, first, _), (other, second, _) = ends
    subprocess.run(["ip", "-n", one, "link", "add", first, "type", "veth", "peer", "name", second, "netns", other],
                   check=True, timeout=20)
    for where, name, address in ends:
        nets.run(where, "ip", "address", "add", address, "dev", name)
        nets.run(where, "ip", "link", "set", name, "up")


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Move this thread, and what it starts, into a network namespace."""
    with Engine.inside(Engine(root=None, netns=name, pid=0)):  # type: ignore[arg-type]
        yield
