from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paradrop.lib.chute import Chute
from paradrop.lib.utils import addresses


class Store:
    def __init__(self, *chutes: Chute) -> None:
        self.chutes = list(chutes)

    def getChuteList(self) -> list[Chute]:
        return self.chutes


def chute(name: str, *interfaces: dict[str, Any], **descriptor: Any) -> Chute:
    found = Chute({"name": name, **descriptor})
    found.setCache("networkInterfaces", list(interfaces))
    return found


AP = {"name": "wifi", "netType": "wifi", "mode": "ap", "device": "radio0", "ssid": "Home", "internalIntf": "wlan0",
      "externalIntf": "vwlan0001", "subnet": "10.0.5.0/24", "externalIpaddr": "10.0.5.1", "internalIpaddr": "10.0.5.2"}
STORE = Store(chute("other", AP, dockerfile="FROM x", host_config={"port_bindings": {80: 9000}}), chute("me", AP))


@pytest.mark.parametrize(("text", "valid"), [("1.2.3.4", True), ("1.2.3", False), ("1.2.3.256", False), ("", False),
                                             ("::1", False), ("1.2.3.4/8", False)])
def test_validity(text: str, valid: bool) -> None:
    assert addresses.isIpValid(text) is valid


def test_availability_looks_at_others_only() -> None:
    alone = Store(chute("me", AP))
    for ipaddr, network_free, address_free in [("10.0.5.1", False, False), ("10.0.5.9", False, True),
                                               ("10.0.6.1", True, True), ("nonsense", False, False)]:
        assert addresses.isIpAvailable(ipaddr, STORE, "me") is network_free
        assert addresses.isStaticIpAvailable(ipaddr, STORE, "me") is address_free
    assert addresses.isIpAvailable("10.0.5.1", alone, "me") and addresses.isStaticIpAvailable("10.0.5.1", alone, "me")
    assert not addresses.isWifiSSIDAvailable("Home", STORE, "me")
    assert addresses.isWifiSSIDAvailable("Home", alone, "me") and addresses.isWifiSSIDAvailable("Away", STORE, "me")


def test_radios() -> None:
    assert addresses.isWifiOnRadio("radio0", STORE, "me") and not addresses.isWifiOnRadio("radio1", STORE, "me")
    assert addresses.isWifiIntAvailable("radio0", 7, STORE, "me")
    assert not addresses.isWifiIntAvailable("radio0", 8, STORE, "me")
    sta = Store(chute("other", {**AP, "mode": "sta"}, {**AP, "mode": "monitor", "device": "radio1"}))
    assert addresses.isStaMeshOnRadio("radio0", sta, "me") and not addresses.isStaMeshOnRadio("radio1", sta, "me")
    assert addresses.isStaMeshAvailable(STORE, "me") and not addresses.isStaMeshAvailable(sta, "me")
    assert addresses.isRadioPassedthrough("radio1", sta, "me")
    assert not addresses.isRadioPassedthrough("radio0", sta, "me")


@pytest.mark.parametrize(("wanted", "taken", "free"), [
    ("8000", [], True), ("9000", [], False), ("8990:9010", [], False), ("9001-9002", [], True), (81, ["80-82"], False),
    ("0", [], False), ("5:4", [], False), ("x", [], False), ("70000", [], False), (81, ["nonsense"], True)])
def test_wan_ports(wanted: str, taken: list[str], free: bool) -> None:
    assert addresses.areWanPortsAvailable(wanted, taken, STORE, "me") is free


def test_phys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "PHYS", tmp_path)
    (tmp_path / "phy0").mkdir()
    assert addresses.checkPhyExists(0) and addresses.checkPhyExists("phy0")
    assert not addresses.checkPhyExists(1) and not addresses.checkPhyExists("../../etc")


def test_arithmetic() -> None:
    assert addresses.incIpaddr("10.0.0.255") == "10.0.1.0"
    assert addresses.incIpaddr("10.0.0.0", -1) == "9.255.255.255"
    assert addresses.incIpaddr("255.255.255.255") is None and addresses.incIpaddr("x") is None
    assert addresses.maxIpaddr("10.1.2.3") == "10.1.2.254" and addresses.maxIpaddr("x") is None
    assert addresses.getSubnet("10.1.2.3", "255.255.255.0") == "10.1.2.0"
    assert addresses.getSubnet("10.1.2.3", "x") is None
    assert addresses.isSameSubnet("10.1.2.3", "10.1.2.200") and not addresses.isSameSubnet("10.1.2.3", "10.1.3.3")
    assert not addresses.isSameSubnet("x", "x")


@given(st.ip_addresses(v=4), st.integers(-2**33, 2**33))
def test_increments(address: IPv4Address, inc: int) -> None:
    result = int(address) + inc
    assert addresses.incIpaddr(str(address), inc) == (str(IPv4Address(result)) if 0 <= result < 2**32 else None)


@given(st.text(), st.text())
def test_nonsense_is_no_error(a: str, b: str) -> None:
    addresses.incIpaddr(a), addresses.maxIpaddr(a), addresses.getSubnet(a, b), addresses.isSameSubnet(a, b)
    addresses.areWanPortsAvailable(a, [b], STORE, "me")
    addresses.isIpAvailable(a, STORE, b)
    addresses.checkPhyExists(a)


def test_interfaces() -> None:
    wan = {"name": "up", "netType": "wan", "internalIntf": "eth0", "externalIntf": "e", "externalIpaddr": "10.0.0.1"}
    both = chute("a", AP, wan)
    assert addresses.getInternalIntfList(both) == ["wlan0", "eth0"]
    assert addresses.getWANIntf(both) == wan
    assert addresses.getGatewayIntf(both) == ("10.0.0.1", "eth0")
    assert addresses.getGatewayIntf(chute("a", AP)) == (None, None)
    assert addresses.getWANIntf(chute("a", AP)) is None
    assert addresses.getInternalIntfList(Chute({"name": "a"})) is None
    assert addresses.getGatewayIntf(Chute({"name": "a"})) == (None, None)
    assert addresses.getChuteIntf("wifi", [AP]) == "vwlan0001"
    assert addresses.getChuteIntf("lan", [AP]) == "lan"
    assert addresses.getChuteIntf("@net.host.wifi", [AP]) == "wifi"
