"""pdconfd in network namespaces: real interfaces, packets, leases and processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from namespaces import Namespace, ask, connect, serve

from paradrop.backend.pdconfd.config.effects import Effect, Run, SetSysctl
from paradrop.backend.pdconfd.config.manager import ConfigManager
from paradrop.backend.pdconfd.config.run import Done, Runner
from paradrop.lib import settings

Write = Callable[[str, str], str]
Make = Callable[[str], Namespace]

WAN = """
config interface wan
    option proto static
    option ifname wan0
    option ipaddr 203.0.113.1
    option netmask 255.255.255.0
"""
CHUTE = """
config interface vlan0.0001 #chute
    option proto static
    option ifname vlan0.0001
    option ipaddr 192.168.200.1
    option netmask 255.255.255.0
"""
NETWORK = WAN + CHUTE
ZONES = """
config zone
    option name wan
    list network wan
    option masq 1
    option input DROP
    option forward REJECT
    option output ACCEPT
config zone
    option name chute
    list network vlan0.0001
    option input REJECT
    option forward REJECT
    option output ACCEPT
"""
FORWARDING = """
config forwarding
    option src chute
    option dest wan
"""
REDIRECT = """
config redirect web
    option src wan
    option proto tcp
    option src_dport 8080
    option dest_ip 192.168.200.2
    option dest_port 80
"""
DHCP = """
config dnsmasq dns
    list interface vlan0.0001
    option noresolv 1
config dhcp vlan0.0001
    option interface vlan0.0001
    option start 100
    option limit 5
    option leasetime 1h
    list dhcp_option option:router,192.168.200.2
"""


@pytest.fixture
def world(namespace: Make, router: Namespace) -> Namespace:
    """What lies beyond the router: 203.0.113.9, with no route into the chute's network."""
    found = namespace("w")
    connect(router, "wan0", found, "eth0")
    found.run("ip", "addr", "add", "203.0.113.9/24", "dev", "eth0")
    found.run("ip", "link", "set", "eth0", "up")
    return found


@pytest.fixture
def chute(namespace: Make, router: Namespace) -> Namespace:
    """A container's network, as 192.168.200.2 behind an interface with a chute's name."""
    found = namespace("c")
    connect(router, "vlan0.0001", found, "eth0")
    found.run("ip", "addr", "add", "192.168.200.2/24", "dev", "eth0")
    found.run("ip", "link", "set", "eth0", "up")
    found.run("ip", "route", "add", "default", "via", "192.168.200.1")
    return found


def status(manager: ConfigManager) -> dict[str, Any]:
    return {entry["type"] + " " + entry["name"]: entry["error"] for entry in json.loads(manager.statusString())}


def load(manager: ConfigManager) -> None:
    manager.loadConfig()
    failed = {name: error for name, error in status(manager).items() if error}
    assert not failed


def test_a_dhcp_client_gets_a_lease(manager: ConfigManager, write: Write, chute: Namespace, tmp_path: Path) -> None:
    if shutil.which("udhcpc") is None:
        pytest.skip("not installed: udhcpc")
    chute.run("ip", "addr", "flush", "dev", "eth0")
    write("network", CHUTE)
    write("dhcp", DHCP)
    load(manager)
    script = tmp_path / "script"
    script.write_text(f'#!/bin/sh\n[ "$1" = bound ] && echo "$ip $subnet $router $dns $lease" > {tmp_path}/lease\n')
    script.chmod(0o755)
    chute.run("udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "5", "-T", "1", "-s", str(script))
    address, mask, router, dns, lease = (tmp_path / "lease").read_text().split()
    assert address in {f"192.168.200.{n}" for n in range(100, 106)}
    assert (mask, router, dns, lease) == ("255.255.255.0", "192.168.200.2", "192.168.200.1", "3600")


def test_a_redirect_carries_packets_and_its_undo_stops_them(
        manager: ConfigManager, write: Write, world: Namespace, chute: Namespace) -> None:
    serve(chute, "192.168.200.2", 80, "chute")
    write("network", NETWORK)
    write("firewall", ZONES + REDIRECT)
    load(manager)
    assert ask(world, "203.0.113.1", 8080) == "chute sees 203.0.113.9"
    write("firewall", ZONES)
    load(manager)
    assert ask(world, "203.0.113.1", 8080) == "TimeoutError"


def test_a_redirect_to_the_router_itself(
        manager: ConfigManager, write: Write, router: Namespace, world: Namespace) -> None:
    write("network", WAN)
    write("firewall", ZONES + "config redirect\n option src wan\n option proto tcp\n option src_dport 80\n"
                              " option dest_port 8000\n")
    load(manager)
    serve(router, "203.0.113.1", 8000, "router")
    assert ask(world, "203.0.113.1", 80) == "router sees 203.0.113.9"
    assert ask(world, "203.0.113.1", 8000) == "TimeoutError", "the input policy still holds"


def test_a_chute_reaches_the_world_only_through_a_forwarding_and_masquerading(
        manager: ConfigManager, write: Write, world: Namespace, chute: Namespace) -> None:
    serve(world, "203.0.113.9", 80, "world")
    write("network", NETWORK)
    write("firewall", ZONES)
    load(manager)
    assert ask(chute, "203.0.113.9", 80) == "ConnectionRefusedError", "forward REJECT"
    write("firewall", ZONES + FORWARDING)
    load(manager)
    assert ask(chute, "203.0.113.9", 80) == "world sees 203.0.113.1"
    write("firewall", ZONES)
    load(manager)
    assert ask(chute, "203.0.113.9", 80) == "ConnectionRefusedError"


def test_nobody_comes_in_where_the_policy_says_so(
        manager: ConfigManager, write: Write, router: Namespace, world: Namespace, chute: Namespace) -> None:
    write("network", NETWORK)
    write("firewall", ZONES + FORWARDING)
    load(manager)
    serve(router, "0.0.0.0", 22, "router")
    serve(chute, "192.168.200.2", 80, "chute")
    serve(world, "203.0.113.9", 80, "world")
    world.run("ip", "route", "add", "192.168.200.0/24", "via", "203.0.113.1")
    assert ask(chute, "192.168.200.1", 22) == "ConnectionRefusedError", "input REJECT of the chute's zone"
    assert ask(world, "203.0.113.1", 22) == "TimeoutError", "input DROP of wan"
    assert ask(world, "192.168.200.2", 80) == "ConnectionRefusedError", "forward REJECT of wan"
    assert ask(router, "203.0.113.9", 80) == "world sees 203.0.113.1", "replies to the router's own connections"
    write("firewall", ZONES.replace("output ACCEPT", "output REJECT") + FORWARDING)
    load(manager)
    assert ask(router, "203.0.113.9", 80) == "ConnectionRefusedError", "output REJECT"


def test_a_port_that_another_program_publishes_is_left_to_its_rules(
        manager: ConfigManager, write: Write, router: Namespace, world: Namespace, chute: Namespace) -> None:
    """As Docker does: a rule of its own in nat, and one that lets the packets through in FORWARD."""
    serve(chute, "192.168.200.2", 80, "container")
    write("network", NETWORK)
    write("firewall", ZONES.split("config zone\n    option name chute")[0])
    load(manager)
    router.run("iptables", "-t", "nat", "-A", "PREROUTING", "-i", "wan0", "-p", "tcp", "--dport", "9000", "-j", "DNAT",
               "--to-destination", "192.168.200.2:80")
    assert ask(world, "203.0.113.1", 9000) == "container sees 203.0.113.9"
    router.run("iptables", "-P", "FORWARD", "DROP")
    assert ask(world, "203.0.113.1", 9000) == "TimeoutError", "its rules decide, not we"


def test_policies_hold_for_ipv6_and_neighbours_are_still_found(
        manager: ConfigManager, write: Write, router: Namespace, world: Namespace) -> None:
    if not manager.ipv6:
        pytest.skip("this kernel has no IPv6")
    write("all", WAN.replace("static", "dhcp") + ZONES.split("config zone\n    option name chute")[0])
    load(manager)
    for where, link, address in ((router, "wan0", "2001:db8::1"), (world, "eth0", "2001:db8::9")):
        where.run("ip", "link", "set", link, "up")
        where.run("ip", "addr", "add", f"{address}/64", "dev", link, "nodad")
    serve(world, "2001:db8::9", 80, "world")
    serve(router, "2001:db8::1", 80, "router")
    assert ask(router, "2001:db8::9", 80) == "world sees 2001:db8::1"
    assert ask(world, "2001:db8::1", 80) == "TimeoutError"


def test_snat_gives_packets_the_address_that_it_says(
        manager: ConfigManager, write: Write, router: Namespace, world: Namespace, chute: Namespace) -> None:
    router.run("ip", "addr", "add", "203.0.113.77/32", "dev", "lo")
    world.run("ip", "route", "add", "203.0.113.77", "via", "203.0.113.1")
    serve(world, "203.0.113.9", 80, "world")
    write("network", NETWORK)
    write("firewall", ZONES.replace("option masq 1", "") + FORWARDING
          + "config redirect\n option target SNAT\n option dest wan\n option proto tcp\n"
            " option src_ip 192.168.200.0/24\n option src_dip 203.0.113.77\n")
    load(manager)
    assert ask(chute, "203.0.113.9", 80) == "world sees 203.0.113.77"


def test_a_bridge_joins_its_members(
        manager: ConfigManager, write: Write, namespace: Make, router: Namespace, chute: Namespace) -> None:
    other = namespace("d")
    connect(router, "lan1", other, "eth0")
    other.run("ip", "addr", "add", "192.168.200.3/24", "dev", "eth0")
    other.run("ip", "link", "set", "eth0", "up")
    before = router.state()
    write("network", "config interface lan\n option type bridge\n option proto static\n option ipaddr 192.168.200.1\n"
                     " option netmask 255.255.255.0\n list ifname vlan0.0001\n list ifname lan1\n")
    load(manager)
    serve(other, "192.168.200.3", 80, "other")
    serve(router, "192.168.200.1", 80, "router")
    assert ask(chute, "192.168.200.1", 80) == "router sees 192.168.200.2"
    assert ask(chute, "192.168.200.3", 80) == "other sees 192.168.200.2"
    manager.unload()
    router.end_processes()
    assert settled(router, before) == before


ALL = NETWORK + ZONES + FORWARDING + REDIRECT + DHCP


def settled(where: Namespace, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the state, after waiting a little for processes to go."""
    deadline = time.monotonic() + 3
    while (state := where.state()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return state


def test_unloading_brings_everything_back(
        manager: ConfigManager, write: Write, router: Namespace, world: Namespace, chute: Namespace) -> None:
    router.run("ip", "link", "set", "wan0", "up")
    router.run("ip", "addr", "add", "198.51.100.7/24", "dev", "wan0", "label", "wan0:old", "brd", "+")
    router.run("ip", "route", "add", "default", "via", "198.51.100.1", "metric", "7")
    router.run("iptables", "-A", "FORWARD", "-i", "other", "-j", "DROP")
    router.run("sysctl", "net.ipv4.conf.all.forwarding=1")
    before = router.state()
    write("all", ALL)
    load(manager)
    assert router.state() != before
    manager.unload()
    assert settled(router, before) == before
    assert [path.name for path in Path(settings.PDCONFD_WRITE_DIR).iterdir()] == ["journal"]


def test_a_change_and_its_reverse_bring_everything_back(
        manager: ConfigManager, write: Write, router: Namespace, world: Namespace, chute: Namespace) -> None:
    write("all", ALL)
    load(manager)
    before = router.state()
    write("all", ALL.replace("192.168.200.", "192.168.222.").replace("8080", "8081").replace("REJECT", "DROP"))
    load(manager)
    assert settled(router, before) != before
    write("all", ALL)
    load(manager)
    after = settled(router, before)
    for state in (before, after):
        state["filters"].sort()  # rules of equal rank may have changed places
    assert after == before


class Faulty(Runner):
    """A runner in which one effect does not start, fails, or hangs after it did its work; and no rules go together."""

    def __init__(self, prefix: tuple[str, ...], victim: Effect, kind: str) -> None:
        super().__init__(prefix)
        self.victim, self.kind = victim, kind

    def perform(self, effect: Effect) -> Done:
        if isinstance(effect, Run) and effect.stdin:
            return Done(1, 0, "", "not together")
        if effect != self.victim:
            return super().perform(effect)
        if self.kind == "does not start":
            raise FileNotFoundError("no such program")
        if self.kind == "hangs":
            super().perform(effect)
            raise TimeoutError("no end")
        return Done(1, 0, "", "it does not work")


SMALL = WAN.replace("static", "dhcp") + CHUTE + DHCP + REDIRECT + """
config zone wan
    option name wan
    list network wan
    option masq 1
    option family ipv4
"""


@pytest.mark.slow
def test_a_command_that_fails_at_each_place_is_told_and_undone(
        manager: ConfigManager, dry: ConfigManager, write: Write, router: Namespace, world: Namespace,
        chute: Namespace) -> None:
    write("all", SMALL)
    before = router.state()
    dry.loadConfig()
    planned = dry.getPreviousCommands()
    assert len(planned) > 20
    for number, command in enumerate(planned):
        kind = ("fails", "hangs", "does not start")[number % 3]
        manager.runner = Faulty(router.prefix, command.effect, kind)
        manager.loadConfig()
        assert any(status(manager).values()), f"{command} {kind}"
        assert all(command.result is not None for command in manager.getPreviousCommands()), "the others are run"
        manager.runner = Runner(router.prefix)
        manager.unload()
        assert settled(router, before) == before, f"{command} {kind}"


class Slow(Runner):
    """A runner in which rules that go together are there, but the program that brings them does not end."""

    def perform(self, effect: Effect) -> Done:
        done = super().perform(effect)
        if isinstance(effect, Run) and effect.stdin:
            raise TimeoutError("no end")
        return done


def test_rules_of_which_nobody_knows_whether_they_are_there_are_undone(
        manager: ConfigManager, write: Write, router: Namespace, world: Namespace, chute: Namespace) -> None:
    write("all", SMALL)
    before = router.state()
    manager.runner = Slow(router.prefix)
    manager.loadConfig()
    assert "no end" in status(manager)["zone wan"]
    assert sum("MASQUERADE" in line for line in router.state()["filters"]) == 1, "nothing was done twice"
    manager.runner = Runner(router.prefix)
    manager.unload()
    assert settled(router, before) == before


def test_a_rule_that_the_kernel_refuses_fails_alone(
        manager: ConfigManager, write: Write, router: Namespace, world: Namespace, chute: Namespace) -> None:
    bad = "config redirect bad\n option src wan\n option proto tcp\n option src_dport 99999\n option dest_ip 10.0.0.1\n"
    before = router.state()
    write("all", SMALL + bad)
    manager.loadConfig()
    failed = [name for name, error in status(manager).items() if error]
    assert failed == ["redirect bad"] and "99999" in status(manager)["redirect bad"]
    assert sum("MASQUERADE" in line for line in router.state()["filters"]) == 1
    manager.unload()
    assert settled(router, before) == before


def test_names_with_blanks_and_quotes_reach_the_rules_whole(
        manager: ConfigManager, write: Write, router: Namespace) -> None:
    zone = "config zone\n option name \"it's \\\\ \\\"odd\\\"\"\n list network wan\n"
    write("all", WAN.replace("static", "dhcp") + zone)
    load(manager)
    rules = router.run("iptables-save", "-t", "filter")
    assert r'--comment "pdconfd zone it\'s \\ \"odd\""' in rules
    manager.unload()
    assert "pdconfd" not in router.run("iptables-save")


def test_after_a_failure_the_changed_section_is_tried_again(
        manager: ConfigManager, write: Write, router: Namespace, chute: Namespace) -> None:
    write("network", CHUTE)
    victim = Run(("ip", "addr", "add", "192.168.200.1/255.255.255.0", "dev", "vlan0.0001"))
    manager.runner = Faulty(router.prefix, victim, "fails")
    manager.loadConfig()
    assert "it does not work" in status(manager)["interface vlan0.0001"]
    manager.loadConfig()
    assert manager.getPreviousCommands() == [], "what did not change is left alone"
    write("network", CHUTE.replace("200.1", "200.9"))
    manager.runner = Runner(router.prefix)
    load(manager)
    assert "192.168.200.9/24" in router.run("ip", "addr", "show", "dev", "vlan0.0001")


def dnsmasq_pid() -> int:
    return int((Path(settings.PDCONFD_WRITE_DIR) / "dnsmasq-dns.pid").read_text())


def test_a_daemon_lives_on_while_other_sections_change(
        manager: ConfigManager, write: Write, router: Namespace, world: Namespace, chute: Namespace) -> None:
    write("all", ALL)
    load(manager)
    pid = dnsmasq_pid()
    write("all", ALL.replace("203.0.113.1", "203.0.113.2").replace("8080", "8081"))
    load(manager)
    assert dnsmasq_pid() == pid
    write("all", ALL.replace("limit 5", "limit 6"))
    load(manager)
    assert dnsmasq_pid() != pid and router.processes() == ["dnsmasq"]


def test_a_daemon_that_died_is_started_by_the_next_load(
        manager: ConfigManager, write: Write, router: Namespace, chute: Namespace, world: Namespace) -> None:
    write("all", ALL)
    load(manager)
    pid = dnsmasq_pid()
    os.kill(pid, signal.SIGKILL)
    while router.processes():
        time.sleep(0.02)
    load(manager)
    assert len(manager.getPreviousCommands()) == 2 and dnsmasq_pid() != pid
    assert router.processes() == ["dnsmasq"]


def test_a_process_that_is_not_ours_is_left_alone(
        manager: ConfigManager, write: Write, world: Namespace, chute: Namespace) -> None:
    write("all", ALL)
    load(manager)
    ours = dnsmasq_pid()
    with subprocess.Popen(["sleep", "100"]) as other:
        pidfile = Path(settings.PDCONFD_WRITE_DIR) / "dnsmasq-dns.pid"
        pidfile.write_text(f"{other.pid}\n")
        manager.unload()
        assert other.poll() is None
        other.kill()
    os.kill(ours, signal.SIGKILL)


def test_a_daemon_that_does_not_start_fails_with_its_own_words(
        manager: ConfigManager, write: Write, chute: Namespace, world: Namespace) -> None:
    write("all", ALL.replace("option noresolv 1", "list server 999.1.1.1"))
    manager.loadConfig()
    failed = {name: error for name, error in status(manager).items() if error}
    assert list(failed) == ["dnsmasq dns"] and "dnsmasq: " in failed["dnsmasq dns"]


def test_a_daemon_that_did_not_start_is_tried_again_by_the_next_load(
        manager: ConfigManager, write: Write, chute: Namespace, world: Namespace, tmp_path: Path) -> None:
    write("all", ALL.replace("option noresolv 1", f"option leasefile {tmp_path}/later/leases"))
    manager.loadConfig()
    assert "cannot open or create lease file" in status(manager)["dnsmasq dns"]
    (tmp_path / "later").mkdir()
    load(manager)
    assert dnsmasq_pid()


def test_a_program_that_hangs_is_ended(router: Namespace) -> None:
    runner = Runner(router.prefix, limit=0.3)
    with pytest.raises(TimeoutError, match=r"no end after 0\.3 s"):
        runner.run(["sh", "-c", "sleep 1000 & sleep 1000"])
    deadline = time.monotonic() + 5
    while router.processes() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert router.processes() == []


def test_undoing_a_kernel_parameter_twice_over(router: Namespace) -> None:
    runner = Runner(router.prefix)
    effect = SetSysctl("net.ipv4.conf.all.forwarding", "1")
    undo = runner.learn(effect)
    assert undo == SetSysctl("net.ipv4.conf.all.forwarding", "0")
    assert runner.perform(effect).status == 0 and runner.learn(effect) == effect


KILLED = """
import os, sys
from paradrop.backend.pdconfd.config.manager import ConfigManager
from paradrop.backend.pdconfd.config.run import Runner
from paradrop.lib import settings

class Mortal(Runner):
    left = int(sys.argv[3])
    def perform(self, effect):
        done = super().perform(effect)
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), 9)
        return done

settings.relocate(sys.argv[1])
manager = ConfigManager(settings.PDCONFD_WRITE_DIR, runner=Mortal(("nsenter", f"--net=/run/netns/{sys.argv[2]}")))
manager.loadConfig()
print("unharmed")
"""


@pytest.mark.parametrize("after", [1, 3, 5, 6, 7, 1000])
def test_what_a_killed_pdconfd_left_is_undone_by_the_next(
        manager: ConfigManager, write: Write, router: Namespace, world: Namespace, chute: Namespace, home: Path,
        after: int) -> None:
    before = router.state()
    write("all", SMALL)
    done = subprocess.run([sys.executable, "-c", KILLED, str(home), router.name, str(after)], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == (0 if after == 1000 else -9), done.stderr
    assert router.state() != before or after == 1
    load(manager)
    assert router.processes() == ["dnsmasq"]
    assert sum("MASQUERADE" in line for line in router.state()["filters"]) == 1
    manager.unload()
    assert settled(router, before) == before


def test_a_journal_from_before_the_reboot_means_nothing(manager: ConfigManager, write: Write, router: Namespace,
                                                        chute: Namespace) -> None:
    journal = Path(settings.PDCONFD_WRITE_DIR) / "journal"
    journal.parent.mkdir(parents=True)
    journal.write_text('{"boot":"another"}\n{"number":1,"undo":{"type":"run","argv":["ip","link","del","vlan0.0001"]}}\n')
    write("network", CHUTE)
    load(manager)


def test_without_a_journal_the_network_still_comes_up(
        manager: ConfigManager, write: Write, router: Namespace, chute: Namespace, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("paradrop.backend.pdconfd.config.journal.write_private", full)
    write("network", CHUTE)
    load(manager)
    assert "No space left on device" in caplog.text and "192.168.200.1" in router.run("ip", "addr")


def test_a_journal_that_was_cut_is_used_as_far_as_it_goes(
        manager: ConfigManager, write: Write, router: Namespace) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    journal = Path(settings.PDCONFD_WRITE_DIR) / "journal"
    journal.parent.mkdir(parents=True)
    router.run("ip", "link", "add", "br-left", "type", "bridge")
    journal.write_text(f'{{"boot":"{boot}"}}\n{{"number":1,"undo":{{"type":"run","argv":["ip","link","del","br-left"]}}}}\n'
                       '{"number":2,"un')
    write("network", "")
    manager.loadConfig()
    assert "br-left" not in router.run("ip", "link", "show")
    assert not journal.exists()
