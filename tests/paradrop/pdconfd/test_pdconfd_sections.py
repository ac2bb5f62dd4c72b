"""What each section type asks of the system; nothing is run."""

from collections.abc import Callable
from typing import Any

import pytest

from paradrop.backend.pdconfd.config.base import ConfigError, ConfigObject
from paradrop.backend.pdconfd.config.command import Command
from paradrop.backend.pdconfd.config.effects import StartDaemon
from paradrop.backend.pdconfd.config.manager import TYPES, ConfigManager
from paradrop.backend.pdconfd.config.wireless import isHexString

Write = Callable[[str, str], str]

LAN = """
config interface lan
    option proto static
    option ifname eth1
    option ipaddr 192.168.1.1
    option netmask 255.255.255.0
"""
ZONE = """
config zone
    option name lan
    list network lan
"""


def commands(dry: ConfigManager, write: Write, text: str) -> list[str]:
    """Return the commands of a first load."""
    write("all", text)
    dry.ipv6 = False
    dry.loadConfig()
    return [str(command) for command in dry.getPreviousCommands()]


def undo(dry: ConfigManager) -> list[str]:
    dry.unload()
    return [str(command) for command in dry.getPreviousCommands()]


def section(dry: ConfigManager, kind: str, name: str) -> ConfigObject:
    return dry.currentConfig[(kind, name)]


def build(kind: str, options: dict[str, Any], name: str | None = "x") -> ConfigObject:
    return TYPES[kind].build(ConfigManager("/nowhere", execCommands=False), "file", name, options, None)


def daemon_text(dry: ConfigManager) -> str:
    """Return the configuration file of the only daemon."""
    effects = [command.effect for command in dry.getPreviousCommands() if isinstance(command.effect, StartDaemon)]
    assert len(effects) == 1
    return effects[0].text


def test_options_have_the_documented_form() -> None:
    assert TYPES["dhcp"].options[0] == {"name": "interface", "type": str, "required": True, "default": None}
    assert {option["name"]: option for option in TYPES["dnsmasq"].options}["interface"]["type"] is list
    assert TYPES["interface"].typename == "interface"


def test_a_missing_option_and_a_wrong_number_are_said_together() -> None:
    with pytest.raises(ConfigError, match=r"dhcp x: interface is missing; limit: 'many' is not a whole number"):
        build("dhcp", {"limit": "many"})


@pytest.mark.parametrize("options", [
    {"proto": "static", "ifname": "eth0"},
    {"proto": "static", "ifname": "eth0", "ipaddr": "1.2.3.4.5"},
    {"proto": "static", "ifname": "eth0", "ipaddr": "1.2.3.4", "netmask": "255.0.255.0"},
    {"proto": "dhcp", "ifname": "much-too-long-for-linux"},
    {"proto": "dhcp", "ifname": "-x"},
    {"proto": "dhcp"},
    {"proto": "static", "ifname": "eth0", "ipaddr": "1.2.3.4", "gateway": "there"},
])
def test_interfaces_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^cannot use"):
        build("interface", options)


def test_a_control_character_cannot_get_into_a_value() -> None:
    with pytest.raises(ConfigError, match="control character"):
        build("dnsmasq", {"list": {"server": ["1.1.1.1\ndhcp-script=/bin/sh"]}})


@pytest.mark.parametrize(("text", "value"), [("0", False), ("False", False), ("1", True), ("yes", True), ("", True)])
def test_booleans(text: str, value: bool) -> None:
    assert build("zone", {"name": "z", "masq": text}).values.masq is value


def test_one_text_is_taken_as_a_list_and_split_at_blanks() -> None:
    assert build("zone", {"name": "z", "network": "lan guest"}).values.network == ("lan", "guest")


def test_a_section_is_named_by_its_title_its_name_option_or_a_number() -> None:
    assert build("zone", {"name": "z"}, name=None).getTypeAndName() == ("zone", "z")
    first, second = (build("dnsmasq", {}, name=None) for _ in range(2))
    assert first.anonymous and first.name != second.name and first.optionsMatch(second)


def test_a_static_interface(dry: ConfigManager, write: Write) -> None:
    done = commands(dry, write, LAN + "    option gateway 192.168.1.254\n")
    assert done[1:] == [
        "ip addr flush dev eth1",
        "ip addr add 192.168.1.1/255.255.255.0 dev eth1",
        "ip link set dev eth1 up",
        "ip route add default via 192.168.1.254 dev eth1",
    ]
    assert undo(dry) == ["ip route del default via 192.168.1.254 dev eth1",
                         "ip addr del 192.168.1.1/255.255.255.0 dev eth1"]


def test_an_interface_of_another_proto_is_left_to_the_host(dry: ConfigManager, write: Write) -> None:
    assert commands(dry, write, "config interface wan\n option proto dhcp\n option ifname eth0\n") == []


def test_a_disabled_interface_is_brought_down(dry: ConfigManager, write: Write) -> None:
    assert commands(dry, write, LAN + "    option enabled 0\n")[-1] == "ip link set dev eth1 down"


def test_a_bridge_is_made_before_its_members_join_and_deleted_last(dry: ConfigManager, write: Write) -> None:
    done = commands(dry, write, LAN.replace("eth1", "'eth1 eth2.10'") + "    option type bridge\n")
    assert done[:2] == ["ip link add link eth2 name eth2.10 type vlan id 10", "ip link add name br-lan type bridge"]
    assert "ip link set dev eth2.10 master br-lan" in done
    assert "ip addr add 192.168.1.1/255.255.255.0 dev br-lan" in done
    assert undo(dry)[-2:] == ["ip link delete br-lan", "ip link delete eth2.10"]


def test_a_chutes_interface_with_a_dot_in_its_name_is_no_vlan(dry: ConfigManager, write: Write) -> None:
    assert not any("vlan" in command for command in commands(dry, write, LAN.replace("eth1", "vwlan0.1234")))


def test_dnsmasq(dry: ConfigManager, write: Write) -> None:
    done = commands(dry, write, LAN + """
config dnsmasq dns
    list interface lan
    option noresolv 1
    list server 8.8.8.8
    option domain home
config dhcp lan
    option interface lan
    option start 10
    option limit 20
    option leasetime 1h
    list dhcp_option option:router,192.168.1.2
config domain
    option name home.example
    option ip 192.168.1.1
""")
    place = f"{dry.writeDir}/dnsmasq-dns"
    assert done[-1] == f"dnsmasq --conf-file={place}.conf --pid-file={place}.pid"
    lines = daemon_text(dry).splitlines()
    for line in (f"dhcp-leasefile={place}.leases", "no-resolv", "server=8.8.8.8", "domain=home", "except-interface=lo",
                 "bind-interfaces", "interface=eth1", "dhcp-range=192.168.1.10,192.168.1.30,255.255.255.0,1h",
                 "dhcp-option=option:router,192.168.1.2", "address=/home.example/192.168.1.1"):
        assert line in lines
    assert undo(dry)[-1] == f"kill $(cat {place}.pid)"


@pytest.mark.parametrize(("start", "limit", "wanted"), [
    (100, 150, "192.168.1.100,192.168.1.250"),
    (200, 150, "192.168.1.200,192.168.1.254"),
    (1, 0, "192.168.1.1,192.168.1.1"),
])
def test_the_range_ends_after_limit_more_addresses_or_with_the_network(
        dry: ConfigManager, write: Write, start: int, limit: int, wanted: str) -> None:
    commands(dry, write, LAN + f"config dnsmasq\nconfig dhcp lan\n option interface lan\n option start {start}\n"
                               f" option limit {limit}\n")
    assert f"dhcp-range={wanted},255.255.255.0,12h" in daemon_text(dry)


def test_a_range_outside_the_network_fails(dry: ConfigManager, write: Write) -> None:
    commands(dry, write, LAN + "config dnsmasq d\nconfig dhcp lan\n option interface lan\n option start 255\n")
    assert "no address of 192.168.1.0/24" in str(section(dry, "dnsmasq", "d").failure())


def test_options_of_several_interfaces_do_not_mix(dry: ConfigManager, write: Write) -> None:
    other = LAN.replace("lan", "guest").replace("eth1", "eth2").replace("192.168.1.", "192.168.2.")
    commands(dry, write, LAN + other + "config dnsmasq\n" + "".join(
        f"config dhcp {name}\n option interface {name}\n list dhcp_option 42,{ip}\n"
        for name, ip in (("lan", "1.1.1.1"), ("guest", "2.2.2.2"))))
    assert "dhcp-option=tag:eth1,42,1.1.1.1" in daemon_text(dry)
    assert "dhcp-option=tag:eth2,42,2.2.2.2" in daemon_text(dry)


def test_a_relay_hands_out_nothing_itself(dry: ConfigManager, write: Write) -> None:
    commands(dry, write, LAN + "config dnsmasq\nconfig dhcp lan\n option interface lan\n list relay 10.0.0.5\n")
    assert "dhcp-relay=192.168.1.1,10.0.0.5" in daemon_text(dry) and "dhcp-range" not in daemon_text(dry)


def test_masquerading(dry: ConfigManager, write: Write) -> None:
    done = commands(dry, write, LAN + ZONE + "    option masq 1\n")
    rule = "POSTROUTING --out-interface eth1 --jump MASQUERADE --match comment --comment pdconfd zone lan"
    assert f"iptables --wait 5 --table nat --insert {rule}" in done
    assert done[-1] == "sysctl --write net.ipv4.conf.all.forwarding=1"
    assert f"iptables --wait 5 --table nat --delete {rule}" in undo(dry)


def test_masquerading_of_some_networks(dry: ConfigManager, write: Write) -> None:
    done = commands(dry, write, LAN + ZONE + "    option masq 1\n    list masq_src 10.0.0.0/8\n"
                                             "    list masq_dest !10.0.0.0/8\n")
    assert any("--out-interface eth1 --source 10.0.0.0/8 ! --destination 10.0.0.0/8 --jump MASQUERADE" in command
               for command in done)


def test_policies_follow_everything_that_accepts(dry: ConfigManager, write: Write) -> None:
    done = commands(dry, write, LAN + ZONE + "    option input reject\n    option output ACCEPT\n"
                                             "    option conntrack 1\n")
    for wanted in ("--append pdconfd_input --in-interface eth1 --jump REJECT",
                   "--append pdconfd_forward --in-interface eth1 --jump DROP",
                   "--append pdconfd_output --out-interface eth1 --jump ACCEPT",
                   "--insert pdconfd_input --in-interface eth1 --match conntrack --ctstate ESTABLISHED,RELATED"):
        assert any(wanted in command for command in done), wanted


def test_the_policy_return_makes_no_rule(dry: ConfigManager, write: Write) -> None:
    done = commands(dry, write, LAN + ZONE + "".join(f"    option {name} RETURN\n"
                                                     for name in ("input", "output", "forward")))
    assert not any("eth1" in command for command in done if command.startswith("iptables"))


def test_an_unknown_policy_or_family_fails(dry: ConfigManager, write: Write) -> None:
    with pytest.raises(ConfigError, match="'MAYBE' is not one of ACCEPT"):
        build("zone", {"name": "z", "input": "MAYBE"})
    commands(dry, write, LAN + ZONE + "    option family ipx\n")
    assert "family 'ipx'" in str(section(dry, "zone", "lan").failure())


def redirect(dry: ConfigManager, write: Write, **options: str) -> list[str]:
    lines = "".join(f"    option {key} {value}\n" for key, value in options.items())
    done = commands(dry, write, LAN + ZONE + "config redirect r\n" + lines)
    assert section(dry, "redirect", "r").failure() is None
    return [command.removeprefix("iptables --wait 5 --table nat ") for command in done if "--table nat" in command]


END = "--match comment --comment pdconfd redirect r"


def test_dnat_for_both_protocols(dry: ConfigManager, write: Write) -> None:
    assert redirect(dry, write, src="lan", proto="tcpudp", src_dport="8080", dest_ip="10.0.0.2", dest_port="80") == [
        f"--insert PREROUTING --in-interface eth1 --proto {proto} --dport 8080 --jump DNAT "
        f"--to-destination 10.0.0.2:80 {END}" for proto in ("tcp", "udp")]


def test_dnat_with_every_match(dry: ConfigManager, write: Write) -> None:
    assert redirect(dry, write, src="lan", proto="tcp", src_ip="1.1.1.1", src_dip="2.2.2.2", src_port="1000-2000",
                    src_dport="8000-8010", dest_ip="10.0.0.2") == [
        "--insert PREROUTING --in-interface eth1 --source 1.1.1.1 --destination 2.2.2.2 --proto tcp --sport 1000:2000 "
        f"--dport 8000:8010 --jump DNAT --to-destination 10.0.0.2 {END}"]


def test_dnat_without_a_protocol_has_no_ports(dry: ConfigManager, write: Write) -> None:
    assert redirect(dry, write, src="lan", proto="any", src_dport="80", dest_ip="10.0.0.2", dest_port="80") == [
        f"--insert PREROUTING --in-interface eth1 --jump DNAT --to-destination 10.0.0.2 {END}"]


def test_without_an_address_the_router_itself_is_meant(dry: ConfigManager, write: Write) -> None:
    assert redirect(dry, write, src="lan", proto="udp", src_dport="53", dest_port="5353") == [
        f"--insert PREROUTING --in-interface eth1 --proto udp --dport 53 --jump REDIRECT --to-port 5353 {END}"]


def test_snat(dry: ConfigManager, write: Write) -> None:
    assert redirect(dry, write, dest="lan", proto="tcp", src_ip="10.0.0.0/8", src_dip="192.168.1.1", target="SNAT",
                    dest_port="25") == [
        "--insert POSTROUTING --out-interface eth1 --source 10.0.0.0/8 --proto tcp --dport 25 --jump SNAT "
        f"--to-source 192.168.1.1 {END}"]


@pytest.mark.parametrize("options", [
    {"target": "MARK", "proto": "tcp"}, {"target": "SNAT", "proto": "tcp", "dest": "lan"},
    {"src": "lan", "proto": "tcp"}, {"src": "nowhere", "proto": "tcp", "dest_port": "80"},
])
def test_redirects_that_make_no_sense_fail(dry: ConfigManager, write: Write, options: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="cannot apply redirect r"):
        redirect(dry, write, **options)


def test_forwarding_from_zone_to_zone(dry: ConfigManager, write: Write) -> None:
    other = (LAN + ZONE).replace("lan", "wan").replace("eth1", "eth0")
    done = commands(dry, write, LAN + ZONE + other + "config forwarding\n option src lan\n option dest wan\n")
    assert any("--insert pdconfd_forward 2 --in-interface eth1 --out-interface eth0 --jump ACCEPT" in command
               for command in done)


WIFI = LAN.replace("eth1", "vwlan0.0001") + """
config wifi-device wlan0
    option type auto
    option channel 6
config wifi-iface
    option device wlan0
    option mode ap
    option network lan
    option ssid Test
"""


def test_an_access_point_on_a_link_of_its_own(dry: ConfigManager, write: Write) -> None:
    done = commands(dry, write, WIFI)
    assert done[0] == "iw dev wlan0 interface add vwlan0.0001 type __ap"
    assert done[1].startswith("ip addr flush dev vwlan0.0001")
    assert any(command.startswith("ip link set dev vwlan0.0001 address 02:") for command in done)
    assert done[-1].startswith("hostapd -P ")
    assert undo(dry)[-1] == "iw dev vwlan0.0001 del"


def test_an_access_point_on_the_radio_itself(dry: ConfigManager, write: Write) -> None:
    done = commands(dry, write, WIFI.replace("vwlan0.0001", "wlan0"))
    assert not any(command.startswith("iw") for command in done) and done[-1].startswith("hostapd")


def test_an_access_point_of_a_chute_is_put_into_its_bridge(dry: ConfigManager, write: Write) -> None:
    done = commands(dry, write, """
config interface vwlan0001 #chute
    option proto static
    option type bridge
    option bridge_empty 1
    option ipaddr 192.168.200.1
    option netmask 255.255.255.0
config wifi-device wifi020304050607
    option type auto
    option ifname wlan0
    option phy phy0
config wifi-iface vwlan0001 #chute
    option device wifi020304050607
    option network vwlan0001
    option ifname vwlan0001
""")
    assert done[:2] == ["ip link add name br-vwlan0001 type bridge",
                        "iw phy phy0 interface add vwlan0001 type __ap"]
    assert "ip addr add 192.168.200.1/255.255.255.0 dev br-vwlan0001" in done
    assert {"interface=vwlan0001", "bridge=br-vwlan0001", "ssid=Paradrop"} <= set(daemon_text(dry).splitlines())


def test_a_radio_known_by_its_phy(dry: ConfigManager, write: Write) -> None:
    done = commands(dry, write, WIFI.replace("auto\n", "auto\n    option phy phy3\n    option txpower 20\n"))
    assert "iw phy phy3 interface add vwlan0.0001 type __ap" in done
    assert "iw phy phy3 set txpower fixed 2000" in done
    assert "iw phy phy3 set txpower auto" in undo(dry)


def test_a_station_and_a_monitor(dry: ConfigManager, write: Write) -> None:
    done = commands(dry, write, WIFI.replace("mode ap", "mode sta"))
    assert done[0].endswith("type managed") and done[-1].startswith("wpa_supplicant -B -c ")
    dry.unload()
    done = commands(dry, write, WIFI.replace("mode ap", "mode monitor"))
    assert done[0].endswith("type monitor") and not any("hostapd" in command for command in done)


def test_isHexString() -> None:
    assert isHexString("0123456789abcdefABCDEF") and not isHexString("g") and not isHexString("")


def test_undo_of_a_section_that_was_never_applied(dry: ConfigManager) -> None:
    lan = build("interface", {"proto": "static", "ifname": "e0", "ipaddr": "10.0.0.1", "netmask": "255.0.0.0"}, "lan")
    both = {lan.getTypeAndName(): lan}
    assert [command.priority for command in lan.commands(both)] == [Command.PRIO_CONFIG_IFACE] * 4
    assert [str(command) for command in lan.undoCommands(both)] == ["ip addr del 10.0.0.1/255.0.0.0 dev e0"]


def test_dump_tells_everything_about_a_section() -> None:
    dumped = build("forwarding", {"src": "a", "dest": "b"}).dump()
    assert dumped["type"] == "forwarding" and dumped["options"]["src"] == "a" and dumped["source"] == "file"
