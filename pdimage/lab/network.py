"""The networks of an environment: bridges in its network namespace, which has no way to the outside."""

import ipaddress
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdimage.lab import brctl

if TYPE_CHECKING:
    from pdimage.lab.virt import VirtEnv

LONGEST_LINK = 15  # characters that the kernel allows


class Network:
    """A network of ENV as SPEC describes it: ``name``, ``type``, ``gw``, ``mapping`` (addresses by name), …"""

    def __init__(self, env: "VirtEnv", spec: dict[str, Any]) -> None:
        self._env, self._spec = env, spec
        self._spec.setdefault("mapping", {})

    @property
    def spec(self) -> Mapping[str, Any]:
        """What describes the network."""
        return self._spec

    def name(self) -> str:
        """The name in the description."""
        return str(self._spec["name"])

    def gw(self) -> str:
        """The address of the gateway, which is the environment's own."""
        return str(self._spec["gw"])

    def is_management(self) -> bool:
        """Tell whether machines are reached over it."""
        return bool(self._spec.get("management", False))

    def link(self) -> str:
        """The name of the bridge."""
        return f"br-{self.name()}"[:LONGEST_LINK]

    def add_mapping(self, name: str, ip: str, save: bool = True) -> None:
        """Note that NAME has the address IP."""
        self._spec["mapping"][name] = ip
        if save:
            self.save()

    def add_mappings(self, mappings: Mapping[str, str]) -> None:
        """Note several addresses."""
        for name, ip in mappings.items():
            self.add_mapping(name, ip, save=False)
        self.save()

    def resolve(self, name: str) -> str:
        """Return the address of NAME.

        :raises KeyError: it has none here
        """
        return str(self._spec["mapping"][name])

    def alive(self) -> bool:
        """Tell whether the bridge is there."""
        return self._env.keeper.alive() and brctl.exists(self.link(), inside=self._env.keeper.inside)

    def start(self) -> None:
        """Make the bridge."""
        if not self.alive():
            brctl.create(self.link(), stp=False, inside=self._env.keeper.inside)

    def stop(self) -> None:
        """Remove the bridge."""
        if self.alive():
            brctl.destroy(self.link(), inside=self._env.keeper.inside)

    def plug(self, tap: str) -> None:
        """Make the tap device TAP as a port of the bridge, for a machine to open."""
        run = self._env.keeper.run
        if run("ip", "link", "show", "dev", tap, check=False).returncode:
            run("ip", "tuntap", "add", "dev", tap, "mode", "tap")
            run("ip", "link", "set", "dev", tap, "master", self.link(), "up")

    def save(self) -> None:
        """Write the description to the prefix."""
        with open(self._env.virt_path(f"net-{self.name()}"), "w", encoding="utf-8") as file:
            json.dump(self._spec, file, indent=4)


class BridgeNetwork(Network):
    """A switch and nothing else: whoever is plugged in is alone with the others there."""


class NATNetwork(Network):
    """A network with a gateway: names and addresses from dnsmasq, routes to the other NAT networks of the environment.

    What leaves it has the gateway's address (NAT). With ``serve`` in the description the gateway is a web server too.
    """

    def start(self) -> None:
        """Make the bridge and start what the gateway does."""
        super().start()
        keeper, network = self._env.keeper, ipaddress.ip_network(f"{self.gw()}/24", strict=False)
        keeper.run("ip", "address", "replace", f"{self.gw()}/24", "dev", self.link())
        keeper.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        rule = ("POSTROUTING", "--source", str(network), "!", "--destination", str(network), "--jump", "MASQUERADE")
        if keeper.run("iptables", "-t", "nat", "-C", *rule, check=False).returncode:
            keeper.run("iptables", "-t", "nat", "-A", *rule)
        for name, argv in self._programs().items():
            if not keeper.runs(name):
                keeper.spawn(name, argv)

    def stop(self) -> None:
        """Stop what the gateway does and remove the bridge."""
        for name in self._programs() if self._env.keeper.alive() else ():
            self._env.keeper.kill(name, 15)
        super().stop()

    def _programs(self) -> dict[str, list[str]]:
        """Return the command lines of the gateway's programs, by name."""
        programs = {f"dns-{self.name()}": self._dnsmasq()}
        if "serve" in self._spec:
            programs[f"web-{self.name()}"] = [
                sys.executable, "-I", "-m", "http.server", "--bind", self.gw(), "--directory", str(self._spec["serve"]),
                str(self._spec.get("port", 80))]
        return programs

    def _dnsmasq(self) -> list[str]:
        domain = self._spec.get("dns_domain_name", "lab")
        argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
                "--bind-interfaces", f"--listen-address={self.gw()}", f"--interface={self.link()}",
                "--except-interface=lo", "--no-ping",
                "--user=root", "--pid-file=", "--log-facility=-", f"--domain={domain}", f"--local=/{domain}/",
                f"--dhcp-leasefile={Path(self._env.virt_path(f'leases-{self.name()}'))}"]
        argv += [f"--host-record={name},{name}.{domain},{ip}" for name, ip in self._spec["mapping"].items()]
        argv.append(f"--host-record=gateway,gateway.{domain},{self.gw()}")
        if dhcp := self._spec.get("dhcp"):
            start, end = (f"{self.gw().rpartition('.')[0]}.{dhcp[which]}" for which in ("start", "end"))
            argv += [f"--dhcp-range={start},{end},1h", "--dhcp-authoritative"]
        return argv
