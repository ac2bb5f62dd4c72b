"""From descriptors to UCI files: each .yaml in networks/ is a router with chutes, the .uci beside what it gets."""

import json
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from paradrop.backend.pdconfd.config.manager import ConfigManager
from paradrop.lib import chutespec, conflicts, descriptor, settings
from paradrop.lib.chute import Chute
from paradrop.lib.config import dhcp, firewall, network, osconfig, placing, uciutils
from paradrop.lib.errors import ConflictError, DescriptorError, ParadropError
from paradrop.lib.utils import uci
from tests.paradrop.lib.router import FILES, Router, wifi_chute

CASES = Path(__file__).parent / "networks"


@pytest.fixture
def router(home: Path, monkeypatch: pytest.MonkeyPatch) -> Router:
    router = Router(home, monkeypatch)
    router.build({"lo": "", "eth0": "", "eth1": "", "wlan0": "wifi", "wlan1": "wifi", "docker0": "", "veth12": ""},
                 ["default dev eth0", "192.168.1.0/24 dev eth0", "172.17.0.0/16 dev docker0"])
    return router


def golden(case: dict[str, Any], router: Router) -> str:
    for name, text in case.get("uci", {}).items():
        Path(uci.getSystemPath(name)).write_text(text)
    for kind, source in case["updates"]:
        router.update(source, kind)
    return "".join(f"### {name}\n{router.text(name)}" for name in FILES)


@pytest.mark.parametrize("name", sorted(path.stem for path in CASES.glob("*.yaml")))
def test_golden(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = yaml.safe_load((CASES / f"{name}.yaml").read_text())
    router = Router(home, monkeypatch)
    router.build(case["links"], case["routes"])
    assert golden(case, router) == (CASES / f"{name}.uci").read_text()


@pytest.mark.parametrize("name", sorted(path.stem for path in CASES.glob("*.yaml")))
def test_pdconfd_has_no_objection(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = yaml.safe_load((CASES / f"{name}.yaml").read_text())
    router = Router(home, monkeypatch)
    router.build(case["links"], case["routes"])
    golden(case, router)
    manager = ConfigManager(settings.PDCONFD_WRITE_DIR, execCommands=False)
    manager.loadConfig(execute=False)
    sections = json.loads(manager.statusString())
    assert sections and [one for one in sections if not one["success"]] == []


class TestStability:
    def test_a_chute_keeps_what_it_had(self, router: Router) -> None:
        router.update(wifi_chute("one"))
        router.update(wifi_chute("two"))
        before = {name: router.interfaces(name) for name in ("one", "two")}
        for kind in ("restart", "update", "stop", "start"):
            router.update(wifi_chute("one"), kind)
        assert {name: router.interfaces(name) for name in ("one", "two")} == before
        router.update(wifi_chute("one", ssid="another"), "update")
        assert router.interfaces("one") == [{**before["one"][0], "ssid": "another"}]

    def test_a_stopped_chute_loses_nothing_to_others(self, router: Router) -> None:
        router.update(wifi_chute("one"))
        had = router.interfaces("one")[0]
        router.update(wifi_chute("one"), "stop")
        assert router.interfaces("one") == []
        for number in range(20):
            router.update({**wifi_chute(f"other{number}"), "net": {"lan": {"type": "vlan", "vlan_id": number + 1,
                                                                          "intfName": "v0"}}})
            assert router.interfaces(f"other{number}")[0]["subnet"] != had["subnet"]
        router.update(wifi_chute("one"), "start")
        assert router.interfaces("one") == [had]

    def test_another_process_decides_the_same(self, router: Router) -> None:
        script = "from paradrop.lib.config.placing import stableNumber; print(stableNumber('a:wifi'))"
        numbers = {subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                                  env={"PYTHONHASHSEED": seed}).stdout for seed in ("1", "2")}
        assert numbers == {f"{placing.stableNumber('a:wifi')}\n"}

    def test_installed_again_it_gets_the_same(self, router: Router) -> None:
        router.update(wifi_chute("one"))
        first = router.interfaces("one")
        router.update(wifi_chute("one"), "delete")
        router.update(wifi_chute("two"))
        router.update(wifi_chute("one"))
        assert router.interfaces("one") == first


class TestPool:
    def subnet(self, router: Router, name: str) -> IPv4Network:
        return IPv4Network(router.interfaces(name)[0]["subnet"])

    def test_moves_away_from_the_wan(self, router: Router) -> None:
        router.update(wifi_chute("one"))
        assert self.subnet(router, "one").subnet_of(IPv4Network("192.168.128.0/17"))
        router.set_routes(router.root / "route", ["default dev eth0", "192.168.128.0/17 dev eth0"])
        router.update(wifi_chute("two"))
        router.update(wifi_chute("one"), "restart")
        for name in ("one", "two"):
            assert self.subnet(router, name).subnet_of(IPv4Network("10.128.0.0/9"))

    def test_its_own_routes_do_not_drive_a_chute_away(self, router: Router) -> None:
        router.update(wifi_chute("one"))
        had = router.interfaces("one")[0]
        router.set_routes(router.root / "route", ["default dev eth0", f"{had['subnet']} dev {had['bridge']}"])
        router.update(wifi_chute("one"), "restart")
        assert router.interfaces("one")[0] == had

    def test_a_default_route_by_halves_is_no_network(self, router: Router) -> None:
        router.set_routes(router.root / "route", ["default dev eth0", "0.0.0.0/1 dev tun0", "128.0.0.0/1 dev tun0"])
        router.update(wifi_chute("one"))

    def test_the_routers_own_networks_are_left_out(self, router: Router) -> None:
        Path(uci.getSystemPath("network")).write_text(
            "config interface lan\n\toption proto static\n\toption ipaddr 192.168.128.1\n"
            "\toption netmask 255.255.128.0\n")
        router.update(wifi_chute("one"))
        assert self.subnet(router, "one").subnet_of(IPv4Network("10.128.0.0/9"))

    def test_used_up(self, router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(settings, "DYNAMIC_NETWORK_POOL", "192.168.200.0/24")
        monkeypatch.setattr(settings, "ALTERNATE_NETWORK_POOL", "192.168.201.0/24")
        router.update(wifi_chute("one"))
        router.update(wifi_chute("two"))
        with pytest.raises(ParadropError, match=r"pools 192.168.20\d.0/24 and 192.168.20\d.0/24 are used up"):
            router.update(wifi_chute("three"))

    @pytest.mark.parametrize(("text", "owner"), [("192.168.1.0/25", "192.168.1.0/24 of the router's eth0"),
                                                 ("172.17.5.0/24", "172.17.0.0/16 of the router's docker0")])
    def test_a_fixed_network_that_is_taken(self, router: Router, text: str, owner: str) -> None:
        with pytest.raises(ConflictError, match=f"net.wifi.ipv4_network: {text} overlaps {owner}"):
            router.update(wifi_chute("one", ipv4_network=text, dhcp={"lease": "1h", "start": 5, "limit": 5}))

    @given(st.lists(st.tuples(st.sampled_from(["create", "delete", "stop", "restart"]), st.integers(0, 11)),
                    max_size=25))
    def test_no_two_chutes_share_anything(self, steps: list[tuple[str, int]]) -> None:
        """Networks, numbers and links of all chutes differ, after whatever operations."""
        chutes: dict[str, list[Any]] = {}
        for kind, number in steps:
            name = f"chute{number}"
            taken = tuple((owner, one) for owner, some in chutes.items() if owner != name for one in some)
            facts = placing.Facts(devices={"wifi": ["r0", "r1"]}, pools=("10.0.0.0/21", "10.1.0.0/16"), taken=taken,
                                  networks=((IPv4Network("10.0.4.0/23"), "x"),))
            if kind == "delete":
                chutes.pop(name, None)
            elif kind != "stop":
                wanted = chutespec.Specification(name, services=(chutespec.Service("main", interfaces=(
                    chutespec.Interface("a", "wifi", "wlan0", "ap"),)),))
                chutes[name] = placing.place(name, wanted, chutes.get(name, []), facts)
        records = [one for some in chutes.values() for one in some]
        subnets = [IPv4Network(one["subnet"]) for one in records]
        for index, subnet in enumerate(subnets):
            assert not any(subnet.overlaps(other) for other in [*subnets[:index], IPv4Network("10.0.4.0/23")])
        assert len({one["externalIntf"] for one in records}) == len(records)
        assert all(len(one["bridge"]) <= 15 for one in records)


class TestDevices:
    def test_access_points_share_one_radio_while_there_is_room(self, router: Router) -> None:
        for number in range(10):
            router.update(wifi_chute(f"chute{number}"))
        used = [router.interfaces(f"chute{number}")[0]["device"] for number in range(10)]
        assert used == [used[0]] * 8 + [next(name for name in used if name != used[0])] * 2

    def test_no_radio_left(self, router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(settings, "ALLOW_MONITOR_MODE", True)
        for name in ("one", "two"):
            router.update(wifi_chute(name, mode="monitor", dhcp=None))
        with pytest.raises(ConflictError, match="net.wifi: no radio is left beside one and two"):
            router.update(wifi_chute("three"))

    def test_listening_must_be_allowed(self, router: Router) -> None:
        with pytest.raises(ParadropError, match="ALLOW_MONITOR_MODE"):
            router.update(wifi_chute("one", mode="monitor"))

    def test_requirements(self, router: Router) -> None:
        router.update({"name": "none", "dockerfile": "FROM x"})
        sections = uci.UCIConfig(uci.getSystemPath("wireless"))
        sections.config[1][1]["hwmode"] = "11a"
        sections.save()
        router.update(wifi_chute("one", requests={"hwmode": "11a"}))
        assert router.interfaces("one")[0]["device"] == sections.config[1][0]["name"]
        with pytest.raises(ParadropError, match=r"Missing device\(s\) requested by chute: .* hwmode 11x"):
            router.update(wifi_chute("two", requests={"hwmode": "11x"}))

    def test_a_radio_keeps_its_section_when_its_name_changes(self, router: Router) -> None:
        router.update(wifi_chute("one"))
        before = router.interfaces("one")
        net = router.root / "net"
        for old, new in (("wlan0", "tmp0"), ("wlan1", "wlan0"), ("tmp0", "wlan1")):
            (net / old).rename(net / new)
        router.update(wifi_chute("one"), "restart")
        assert router.interfaces("one") == before
        options = {config["name"]: options for config, options in uci.UCIConfig(uci.getSystemPath("wireless")).config
                   if config["type"] == "wifi-device"}
        assert options[before[0]["device"]]["ifname"] == "wlan1"

    def test_sections_that_are_there_stay(self, router: Router) -> None:
        Path(uci.getSystemPath("wireless")).write_text("config wifi-device wlan0\n\toption channel '11'\n\n")
        Path(uci.getSystemPath("firewall")).write_text("config zone\n\toption name 'wan'\n\n")
        router.update(wifi_chute("one"))
        assert "config wifi-device wlan0\n\toption channel '11'\n\n" in router.text("wireless")
        assert router.interfaces("one")[0]["device"] == "wlan0"
        assert router.text("firewall").count("name 'wan'") == 1

    def test_wan_stays_while_the_cable_is_out_and_follows_the_card(self, router: Router) -> None:
        router.update(wifi_chute("one"))
        router.set_routes(router.root / "route", [])
        router.update(wifi_chute("one"), "restart")
        assert "option ifname 'eth0'" in router.text("network")
        (router.root / "net" / "eth0").rename(router.root / "net" / "eth9")
        router.set_routes(router.root / "route", ["default dev eth9"])
        router.update(wifi_chute("one"), "restart")
        assert "eth0" not in router.text("network") and "option ifname 'eth9'" in router.text("network")

    def test_the_way_to_the_internet_may_be_a_vlan(self, router: Router) -> None:
        (router.root / "net" / "eth0").rename(router.root / "net" / "eth0.7")
        router.set_routes(router.root / "route", ["default dev eth0.7"])
        router.update(wifi_chute("one"))
        assert "option ifname 'eth0.7'" in router.text("network")

    def test_a_lan_device_has_one_owner(self, router: Router) -> None:
        chute = {"dockerfile": "FROM x", "net": {"port": {"type": "lan", "intfName": "lan0"}}}
        router.update({"name": "one", **chute})
        assert router.interfaces("one")[0]["link"] == "eth1"
        with pytest.raises(ConflictError, match="net.port: no LAN device is left beside one"):
            router.update({"name": "two", **chute})
        router.update({"name": "one"}, "delete")
        Path(uci.getSystemPath("network")).write_text("config interface lan\n\tlist ifname eth1\n")
        with pytest.raises(ParadropError, match="Missing device"):
            router.update({"name": "two", **chute})


class TestConflicts:
    @pytest.mark.parametrize(("more", "mistake"), [
        ({"net": {"w": {"type": "wifi", "intfName": "wlan0", "ssid": "one"}}}, "net.w.ssid: one belongs to one"),
        ({"host_config": {"port_bindings": {80: 9000}}}, "host_config.port_bindings.80: port 9000 belongs to one"),
        ({"host_config": {"port_bindings": {"80/udp": 5353}}}, "port_bindings.80/udp: port 5353 belongs to one"),
        ({"host_config": {"port_bindings": {80: 14321}}}, "port_bindings.80: port 14321 is the router's own"),
        ({"resources": {"cpu_fraction": 0.5}}, r"resources: 0.5 of .* asked for, beside one \(0.75\), of 1"),
        ({"net": {"v": {"type": "vlan", "intfName": "v0", "vlan_id": 7}}}, "net.v.vlan_id: 7 belongs to one"),
        ({"net": {"v": {"type": "vlan", "intfName": "v0", "vlan_id": 8, "ipv4_network": "10.9.9.0/25"}}},
         "net.v.ipv4_network: 10.9.9.0/25 overlaps 10.9.9.0/24 of one"),
    ])
    def test_names_the_other(self, router: Router, more: dict[str, Any], mistake: str) -> None:
        one = wifi_chute("one")
        one["net"]["vlan"] = {"type": "vlan", "intfName": "v0", "vlan_id": 7, "ipv4_network": "10.9.9.0/24"}
        one |= {"host_config": {"port_bindings": {80: 9000}}, "resources": {"cpu_fraction": 0.75},
                "firewall": [{"type": "redirect", "from": "@host.lan:5353", "to": "wifi:53"}]}
        router.update(one)
        files = router.all_text()
        with pytest.raises(ConflictError, match=mistake):
            router.update({"name": "two", "dockerfile": "FROM x", **more})
        assert router.all_text() == files
        router.update({**one, **{key: value for key, value in more.items() if key == "resources"}}, "update")

    def test_a_wrong_descriptor_changes_nothing(self, router: Router) -> None:
        with pytest.raises(DescriptorError, match=r"net.wifi.ssid: longer than 32 bytes"):
            router.update(wifi_chute("one", ssid="x" * 33))
        assert all("one" not in text for text in router.all_text().values())


def test_memory_is_looked_at_where_its_size_is_known() -> None:
    one, two = (descriptor.parse({"name": name, "dockerfile": "FROM x", "resources": {"memory": 40_000_000}})
                for name in ("one", "two"))
    assert list(conflicts.find(two, [one, two], memory=80_000_000)) == []
    assert list(conflicts.find(two, [one, two])) == []
    assert list(conflicts.find(two, [one], memory=70_000_000)) == [
        "resources: 40000000 bytes of memory are asked for, beside one (40000000), of 70000000"]


class TestUndo:
    def test_each_file_goes_back(self, router: Router) -> None:
        router.update(wifi_chute("one"))
        before = router.all_text()
        update = router.prepare({**wifi_chute("two"), "firewall": [
            {"type": "redirect", "from": "@host.lan:81", "to": "w*:80"}]})
        router.decide(update)
        router.write(update)
        assert all(router.text(name) != before[name] for name in FILES)
        for name in (*FILES, *FILES):
            osconfig.revertConfig(update, name)
        network.abortNetworkConfig(update)
        assert router.all_text() == before
        assert update.new.getCache("networkInterfaces") is None

    def test_an_older_backup_is_never_restored(self, router: Router) -> None:
        router.update(wifi_chute("one"))
        router.update(wifi_chute("two"))
        before = router.all_text()
        update = router.update(wifi_chute("two"), "restart")
        osconfig.revertConfig(update, "network")
        assert router.all_text() == before

    def test_nothing_to_restore(self, router: Router) -> None:
        update = router.prepare(wifi_chute("one"))
        uciutils.dropBackups(FILES)
        for name in FILES:
            osconfig.revertConfig(update, name)

    def test_a_crash_is_set_right(self, router: Router) -> None:
        router.update(wifi_chute("one"))
        router.update(wifi_chute("gone"))
        before = router.all_text()
        crashed = router.prepare(wifi_chute("one", ssid="new"), "update")
        router.decide(crashed)
        router.write(crashed)
        half = router.prepare(wifi_chute("half"))
        router.decide(half)
        network.setOSNetworkConfig(half)
        assert osconfig.reconcile(router.getChuteList(), ["half", "one"]) == ["network", "wireless"]
        assert {name: sorted(text.split("\n\n")) for name, text in router.all_text().items()} == {
            name: sorted(text.split("\n\n")) for name, text in before.items()}
        assert osconfig.reconcile(router.getChuteList(), ["half", "one"]) == []

    def test_sections_of_strangers_stay(self, router: Router) -> None:
        Path(uci.getSystemPath("network")).write_text("config interface x #somebody\n\n")
        osconfig.reconcile([], ["half"])
        assert router.text("network") == "config interface x #somebody\n\n"

    def test_remove(self, router: Router) -> None:
        update = router.update(wifi_chute("one"))
        path = uci.getSystemPath("network")
        assert uciutils.removeConfigs(update.new, ["osNetworkConfig"], path)
        assert not uciutils.removeConfigs(update.new, ["osNetworkConfig"], path)
        assert uci.UCIConfig(path).getChuteConfigs("one") == []


def test_set_config_says_whether_it_changed(router: Router) -> None:
    update = router.update(wifi_chute("one"))
    assert network.setOSNetworkConfig(update) is False
    router.prepare(wifi_chute("one"))
    update.new.setCache("osNetworkConfig", [])
    assert network.setOSNetworkConfig(update) is True


def test_without_a_cache_clients_ask_the_servers_themselves(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dhcp, "DNSMASQ_CACHE_ENABLED", False)
    router.update(wifi_chute("one", dhcp={"lease": "1h", "start": 5, "limit": 5, "dns": ["1.1.1.1", "8.8.8.8"]}))
    assert "list dhcp_option 'option:dns-server,1.1.1.1,8.8.8.8'" in router.text("dhcp")
    assert "noresolv" not in router.text("dhcp")


def test_matching_interfaces() -> None:
    records = [{"name": "wifi"}, {"name": "lan"}]
    assert firewall.findMatchingInterface("l?n", records) == {"name": "lan"}
    assert firewall.findMatchingInterface("*", records) == {"name": "wifi"}
    assert firewall.findMatchingInterface("x*", records) is None


def test_equal_definitions() -> None:
    one = {"name": "a", "netType": "wifi", "internalIntf": "w", "ssid": "x"}
    assert network.interfaceDefsEqual(one, {**one, "ssid": "y"})
    assert not network.interfaceDefsEqual(one, {**one, "internalIntf": "y"})


def test_reclaiming() -> None:
    chute = Chute({"name": "ab"})
    chute.setCache("networkInterfaces", [{"name": "x"}])
    network.reclaimNetworkResources(chute)
    assert chute.getCache("networkReservations") == [{"name": "x"}]


def test_l3bridge_is_refused_aloud(router: Router) -> None:
    with pytest.raises(ParadropError, match="l3bridge"):
        router.update(wifi_chute("one", l3bridge="lan"))


def test_lists_in_options() -> None:
    options: dict[str, Any] = {}
    uciutils.appendListItem(options, "a", 1)
    uciutils.appendListItem(options, "a", 2)
    uciutils.setList(options, "b", (3,))
    assert options == {"list": {"a": [1, 2], "b": [3]}}
