"""How the manager gets from one configuration to the next; nothing is run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from paradrop.backend.pdconfd.config.command import Command
from paradrop.backend.pdconfd.config.manager import ConfigManager, findConfigFiles, sortCommands
from paradrop.lib import settings

Write = Callable[[str, str], str]


def network(name: str, number: int) -> str:
    return (f"config interface {name}\n option proto static\n option ifname {name}\n"
            f" option ipaddr 10.0.{number}.1\n option netmask 255.255.255.0\n")


def zone(name: str, *networks: str) -> str:
    return f"config zone\n option name {name}\n" + "".join(f" list network {network}\n" for network in networks)


DHCP = "config dnsmasq d\n list interface a\nconfig dhcp a\n option interface a\n"


def reload(dry: ConfigManager, search: str | None = None) -> list[str]:
    dry.loadConfig(search)
    return [str(command) for command in dry.getPreviousCommands()]


def status(dry: ConfigManager) -> dict[tuple[str, str], bool]:
    return {(entry["type"], entry["name"]): entry["success"] for entry in json.loads(dry.statusString())}


def test_the_order_of_commands_with_equal_priority_stays() -> None:
    commands = [Command(priority, f"run {number}") for number, priority in enumerate([40, 10, 40, 10, 20, 40])]
    assert [str(command) for command in sortCommands(commands)] == [f"run {n}" for n in (1, 3, 4, 0, 2, 5)]


def test_a_command_may_be_given_as_text() -> None:
    assert Command(10, "ip link show").command == ["ip", "link", "show"]


def test_where_files_are_looked_for(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = [write("dhcp", ""), write("network", "")]
    write(".hidden", "")
    here = tmp_path / "here"
    here.mkdir()
    (here / "network").touch()
    monkeypatch.chdir(here)
    assert findConfigFiles() == system
    assert findConfigFiles(system[1]) == [system[1]]
    assert findConfigFiles(str(here)) == [str(here / "network")]
    assert findConfigFiles("network") == ["network"]
    assert findConfigFiles("dhcp") == [system[0]]
    assert findConfigFiles("nothing") == findConfigFiles("/nothing") == []


def test_loading_the_same_again_does_nothing(dry: ConfigManager, write: Write) -> None:
    write("all", network("a", 1) + zone("z", "a") + DHCP + "config dnsmasq\nconfig dnsmasq\n")
    assert reload(dry)
    before = list(dry.currentConfig)
    assert reload(dry) == [] and list(dry.currentConfig) == before


def test_a_new_section_alone_is_applied(dry: ConfigManager, write: Write) -> None:
    write("network", network("a", 1))
    reload(dry)
    write("network", network("a", 1) + network("b", 2))
    assert all(command.endswith(("dev b", "dev b up")) for command in reload(dry))


def test_a_removed_section_is_undone(dry: ConfigManager, write: Write) -> None:
    write("network", network("a", 1) + network("b", 2))
    reload(dry)
    write("network", network("b", 2))
    assert reload(dry) == ["ip addr del 10.0.1.1/255.255.255.0 dev a"]


def test_a_removed_file_is_undone(dry: ConfigManager, write: Write) -> None:
    write("network", network("a", 1))
    path = write("more", network("b", 2))
    reload(dry)
    Path(path).unlink()
    assert reload(dry) == ["ip addr del 10.0.2.1/255.255.255.0 dev b"]


def test_a_changed_address_is_deleted_before_the_new_one_comes(dry: ConfigManager, write: Write) -> None:
    write("network", network("a", 1))
    reload(dry)
    write("network", network("a", 2))
    assert reload(dry) == ["ip addr del 10.0.1.1/255.255.255.0 dev a", "ip addr add 10.0.2.1/255.255.255.0 dev a"]


def test_dependents_of_a_changed_section_are_applied_again_and_others_not(dry: ConfigManager, write: Write) -> None:
    write("network", network("a", 1) + network("b", 2))
    write("dhcp", DHCP + "config dnsmasq e\n list interface b\nconfig dhcp b\n option interface b\n")
    reload(dry)
    write("network", network("a", 3) + network("b", 2))
    done = reload(dry)
    assert [command.split("/")[-1] for command in done if "dnsmasq" in command] == ["dnsmasq-d.pid)", "dnsmasq-d.pid"]
    assert not any("10.0.2.1" in command for command in done)


def test_dependents_of_dependents_are_applied_again(dry: ConfigManager, write: Write) -> None:
    rest = zone("z", "a") + "config redirect r\n option src z\n option proto udp\n option dest_port 53\n"
    write("all", network("a", 1) + rest)
    reload(dry)
    write("all", network("a", 1).replace("ifname a", "ifname c") + rest)
    done = reload(dry)
    assert any("PREROUTING --in-interface a" in command and "--delete" in command for command in done)
    assert any("PREROUTING --in-interface c" in command and "--insert" in command for command in done)


def test_what_a_section_waits_for_may_come_later(dry: ConfigManager, write: Write) -> None:
    write("dhcp", DHCP)
    assert reload(dry) == []
    assert status(dry) == {("dnsmasq", "d"): False, ("dhcp", "a"): True}
    write("network", network("a", 1))
    assert any(command.startswith("dnsmasq ") for command in reload(dry))
    assert all(status(dry).values())


def test_a_zone_takes_in_networks_that_come_later(dry: ConfigManager, write: Write) -> None:
    write("firewall", zone("z", "a", "b"))
    write("network", network("a", 1))
    assert not any(" b " in command for command in reload(dry))
    assert status(dry)["zone", "z"]
    write("network", network("a", 1) + network("b", 2))
    done = reload(dry)
    assert any("--in-interface b" in command for command in done)
    assert not any("--in-interface a" in command for command in done)


def test_a_dnsmasq_without_interfaces_serves_a_new_dhcp_section(dry: ConfigManager, write: Write) -> None:
    write("network", network("a", 1) + network("b", 2))
    write("dhcp", "config dnsmasq d\nconfig dhcp a\n option interface a\n")
    reload(dry)
    write("dhcp", "config dnsmasq d\nconfig dhcp a\n option interface a\nconfig dhcp b\n option interface b\n")
    assert [command.split()[0] for command in reload(dry)] == ["kill", "dnsmasq"]


def test_a_channel_change_restarts_the_access_point_and_keeps_its_link(dry: ConfigManager, write: Write) -> None:
    device = "config wifi-device wlan0\n option type auto\n option channel 1\n"
    rest = network("v0", 1) + "config wifi-iface w\n option device wlan0\n option network v0\n option ssid S\n"
    served = "config dnsmasq d\nconfig dhcp v0\n option interface v0\n"
    write("all", device + rest + served)
    reload(dry)
    write("all", device.replace("channel 1", "channel 6") + rest + served)
    assert [command.split()[0] for command in reload(dry)] == ["kill", "hostapd"]


def test_a_link_made_anew_takes_its_address_and_its_daemons_with_it(dry: ConfigManager, write: Write) -> None:
    device = "config wifi-device wlan0\n option type auto\n"
    rest = network("v0", 1) + "config wifi-iface w\n option device wlan0\n option network v0\n option ssid S\n"
    served = "config dnsmasq d\nconfig dhcp v0\n option interface v0\n"
    write("all", device + rest + served)
    reload(dry)
    write("all", device + " option phy phy0\n" + rest + served)
    done = [" ".join(command.split()[:3]) for command in reload(dry)]
    assert done.index("iw dev v0") < done.index("iw phy phy0") < done.index("ip addr add")
    assert any(command.startswith("dnsmasq") for command in done)


def test_an_interface_is_configured_again_when_its_wireless_network_comes(dry: ConfigManager, write: Write) -> None:
    text = network("v0", 1) + "config wifi-device wlan0\n option type auto\n"
    write("all", text)
    reload(dry)
    write("all", text + "config wifi-iface w\n option device wlan0\n option network v0\n")
    done = [" ".join(command.split()[:3]) for command in reload(dry)]
    assert done.index("iw dev wlan0") < done.index("ip addr add")


def test_shared_rules_come_with_the_first_zone_and_go_with_the_last(dry: ConfigManager, write: Write) -> None:
    write("network", network("a", 1) + network("b", 2))
    write("firewall", zone("y", "a") + zone("z", "b"))
    assert sum("--new-chain pdconfd_input" in command for command in reload(dry)) == 1 + dry.ipv6
    write("firewall", zone("z", "b"))
    assert not any("-chain" in command for command in reload(dry))
    write("firewall", "")
    assert sum("--delete-chain pdconfd_input" in command for command in reload(dry)) == 1 + dry.ipv6


def test_reloading_one_file_leaves_the_others_alone(dry: ConfigManager, write: Write) -> None:
    path = write("network", network("a", 1))
    write("more", network("b", 2))
    reload(dry)
    write("more", "")
    assert reload(dry, path) == [] and ("interface", "b") in dry.currentConfig
    assert reload(dry, "more") == ["ip addr del 10.0.2.1/255.255.255.0 dev b"]


def test_a_file_that_cannot_be_read_leaves_its_sections_alone(dry: ConfigManager, write: Write) -> None:
    write("network", network("a", 1))
    reload(dry)
    write("network", "config interface 'unclosed")
    assert reload(dry) == []
    assert status(dry) == {("interface", "a"): True, ("file", "network"): False}
    write("network", network("a", 1))
    assert reload(dry) == [] and status(dry) == {("interface", "a"): True}


def test_a_section_that_cannot_be_used_fails_alone(dry: ConfigManager, write: Write) -> None:
    write("network", "config interface bad #chute\n option ifname x\nconfig qos what\n" + network("a", 1))
    assert len(reload(dry)) == 4
    assert status(dry) == {("interface", "a"): True, ("interface", "bad"): False}
    bad = next(entry for entry in json.loads(dry.statusString()) if not entry["success"])
    assert bad["comment"] == "chute" and "proto is missing" in bad["error"]


def test_the_later_of_two_sections_with_one_name_counts(dry: ConfigManager, write: Write) -> None:
    write("network", network("a", 1) + network("a", 2))
    assert "ip addr add 10.0.2.1/255.255.255.0 dev a" in reload(dry)
    assert reload(dry) == []


def test_identical_sections_of_two_owners_live_apart(dry: ConfigManager, write: Write) -> None:
    redirect = "\n option proto tcp\n option dest_port 80\n"
    write("firewall", f"config redirect #one{redirect}config redirect #two{redirect}")
    reload(dry)
    write("firewall", f"config redirect #two{redirect}")
    done = reload(dry)
    assert len([command for command in done if "PREROUTING" in command]) == 1
    assert [entry["comment"] for entry in json.loads(dry.statusString())] == ["two"]


def test_findMatchingConfig(dry: ConfigManager, write: Write) -> None:
    write("all", network("a", 1))
    reload(dry)
    write("other", network("a", 2) + network("b", 1))
    changed, unknown = dry.readConfig([f"{settings.UCI_CONFIG_DIR}/other"])
    assert dry.findMatchingConfig(changed) is None
    assert dry.findMatchingConfig(changed, byName=True) is dry.currentConfig["interface", "a"]
    assert dry.findMatchingConfig(unknown, byName=True) is None


def test_changingSet(dry: ConfigManager, write: Write) -> None:
    path = write("one", network("a", 1))
    write("two", network("b", 1))
    reload(dry)
    assert {config.name for config in dry.changingSet([path])} == {"a"}


def test_waiting_for_the_first_load(dry: ConfigManager, write: Write) -> None:
    with pytest.raises(TimeoutError, match="not loaded"):
        dry.waitSystemUp(timeout=0.01)
    write("network", network("a", 1))
    dry.loadConfig()
    assert json.loads(dry.waitSystemUp()) == [
        {"type": "interface", "name": "a", "comment": None, "success": True, "error": None}]


def test_a_bug_in_one_section_type_does_not_stop_the_others(
        dry: ConfigManager, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise LookupError("a bug")
    monkeypatch.setattr("paradrop.backend.pdconfd.config.firewall.ConfigZone.steps", broken)
    write("all", zone("z") + network("a", 1))
    assert len(reload(dry)) == 4
    assert status(dry) == {("zone", "z"): False, ("interface", "a"): True}


def sections_200(changed: int | None = None) -> str:
    """Return 40 networks with zone, forwarding, dnsmasq and dhcp each; one of them may have another address."""
    return "".join(network(f"n{n}", 250 if n == changed else n) + zone(f"z{n}", f"n{n}")
                   + f"config forwarding\n option src z{n}\n option dest z0\n"
                   + f"config dnsmasq d{n}\n list interface n{n}\nconfig dhcp n{n}\n option interface n{n}\n"
                   for n in range(40))


def test_one_change_among_200_sections_takes_four_commands(dry: ConfigManager, write: Write) -> None:
    write("all", sections_200())
    assert len(reload(dry)) > 500 and len(dry.currentConfig) == 200
    write("all", sections_200(changed=7))
    assert [command.split()[0] for command in reload(dry)] == ["ip", "kill", "ip", "dnsmasq"]
