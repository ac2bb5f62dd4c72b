"""A router made of files: devices, routes, UCI files, and the chutes that were put on it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from paradrop.lib.chute import Chute
from paradrop.lib.config import devices, dhcp, firewall, network, wifi
from paradrop.lib.utils import uci

FILES = ("network", "wireless", "firewall", "dhcp")


@dataclass
class Update:
    """An update as the plans' functions see it."""

    new: Chute
    old: Chute | None
    chuteStor: "Router"
    updateType: str = "create"

    @property
    def name(self) -> str:
        return str(self.new.name)


@dataclass
class Router:
    """``links`` are names with ``wifi`` for radios; ``routes`` are ``NETWORK dev LINK`` as ip(8) shows them."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    chutes: dict[str, Chute] = field(default_factory=dict)

    def build(self, links: Mapping[str, str], routes: list[str]) -> None:
        sys_net, table = self.root / "net", self.root / "route"
        for number, (name, kind) in enumerate(links.items(), 2):
            link = sys_net / name
            link.mkdir(parents=True)
            (link / "ifindex").write_text(f"{number}\n")
            (link / "address").write_text(f"02:00:00:00:00:{number:02x}\n")
            if kind == "wifi":
                (link / "phy80211").mkdir()
                (link / "phy80211" / "name").write_text(f"phy{number}\n")
        self.set_routes(table, routes)
        self.monkeypatch.setattr(devices, "SYS_NET", sys_net)
        self.monkeypatch.setattr(devices, "PROC_ROUTE", table)

    def set_routes(self, table: Path, routes: list[str]) -> None:
        lines = ["Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT"]
        for text in routes:
            destination, _, link = text.split()
            net = uci_network("0.0.0.0/0" if destination == "default" else destination)
            lines.append(f"{link}\t{net[0]}\t00000000\t0001\t0\t0\t0\t{net[1]}\t0\t0\t0")
        table.write_text("\n".join(lines) + "\n")

    def getChuteList(self) -> list[Chute]:
        return list(self.chutes.values())

    def update(self, descriptor: Mapping[str, Any], kind: str = "create") -> Update:
        """Run all that an update does to the configuration, and keep the chute as the store would."""
        update = self.prepare(descriptor, kind)
        self.decide(update)
        self.write(update)
        if kind == "delete":
            del self.chutes[update.name]
        else:
            self.chutes[update.name] = Chute.fromDump(json.loads(json.dumps(update.new.fullDump())))
        return update

    def prepare(self, descriptor: Mapping[str, Any], kind: str = "create") -> Update:
        new = Chute(descriptor if kind not in network.WITHOUT_NETWORKS else {"name": descriptor["name"]})
        return Update(new, self.chutes.get(str(new.name)), self, kind)

    def decide(self, update: Update) -> None:
        devices.getSystemDevices(update)
        network.getNetworkConfig(update)
        network.getOSNetworkConfig(update)
        wifi.getOSWirelessConfig(update)
        network.getVirtNetworkConfig(update)
        firewall.getOSFirewallRules(update)
        firewall.getDeveloperFirewallRules(update)
        dhcp.getVirtDHCPSettings(update)

    def write(self, update: Update) -> None:
        devices.setSystemDevices(update)
        wifi.setOSWirelessConfig(update)
        network.setOSNetworkConfig(update)
        firewall.setOSFirewallRules(update)
        dhcp.setVirtDHCPSettings(update)

    def text(self, name: str) -> str:
        """Return a UCI file; what lies below the root is shown from there."""
        path = Path(uci.getSystemPath(name))
        return path.read_text().replace(f"{self.root}/", "") if path.exists() else ""

    def all_text(self) -> dict[str, str]:
        return {name: self.text(name) for name in FILES}

    def interfaces(self, name: str) -> list[dict[str, Any]]:
        return list(self.chutes[name].getCache("networkInterfaces"))


def uci_network(text: str) -> tuple[str, str]:
    """Return a network's address and mask as /proc/net/route has them."""
    from ipaddress import IPv4Network
    net = IPv4Network(text)
    return tuple(address.packed[::-1].hex().upper() for address in (net.network_address, net.netmask))  # type: ignore


def wifi_chute(name: str, ssid: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a descriptor with one access point."""
    return {"name": name, "dockerfile": "FROM x", "net": {"wifi": {
        "type": "wifi", "intfName": "wlan0", "ssid": ssid or name, "key": "password1",
        "dhcp": {"lease": "12h", "start": 100, "limit": 50}, **more}}}
