"""What worked before still works: DHCP, DNS and NAT of a router, with dnsmasq and netfilter in a network."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fussy import health, probes
from fussy.errors import UnhealthyRelease
from fussy.manifest import Check

from .conftest import Keys
from .firmware import Firmware

NETWORK = """
set -e
ip link set lo up
ip link add br-lan type bridge
ip address add 192.168.77.1/24 dev br-lan
ip link add lan0 type veth peer name port
ip link set port master br-lan
for link in port lan0 br-lan; do ip link set $link up; done
echo 1 > /proc/sys/net/ipv4/ip_forward
iptables -t nat -A POSTROUTING -s 192.168.77.0/24 -o wan0 -j MASQUERADE
iptables -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 192.168.77.9
echo ready
exec cat
"""

CHECKS: dict[str, dict[str, Any]] = {
    "dhcp": {"dhcp": "br-lan", "kept": True, "seconds": 3},
    "dns": {"dns": "router.lan@192.168.77.1", "kept": True, "seconds": 3},
    "nat": {"lines": ["iptables", "-t", "nat", "-S"], "seconds": 1},
    "way": {"route": "192.168.77.9 from 127.0.0.1 iif lo", "kept": True, "seconds": 1},
}


class Lan:
    """A network namespace with a bridge that has a port, NAT rules and, on demand, a dnsmasq."""

    def __init__(self, process: "subprocess.Popen[str]", place: Path) -> None:
        self.process, self.place = process, place

    def argv(self, *command: str | Path) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", *map(str, command)]

    def run(self, *command: str | Path, fails: int = 0, **options: Any) -> str:
        done = subprocess.run(self.argv(*command), capture_output=True, text=True, timeout=120, **options)
        assert done.returncode == fails, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    def dnsmasq(self, *more: str) -> None:
        self.run("dnsmasq", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--interface=br-lan",
                 "--bind-interfaces", *more, "--dhcp-range=192.168.77.50,192.168.77.99", "--user=root",
                 "--address=/router.lan/192.168.77.1", f"--pid-file={self.place}/pid",
                 f"--dhcp-leasefile={self.place}/leases")

    def stop(self) -> None:
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((self.place / "pid").read_text()), 15)


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    if os.geteuid() != 0:
        pytest.skip("needs root: a network namespace")
    for program in ("dnsmasq", "iptables", "ip", "nsenter"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: see scripts/packages")
    with subprocess.Popen(["unshare", "--net", "sh", "-c", NETWORK], text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        made = Lan(process, tmp_path)
        try:
            assert process.stdout.readline() == "ready\n"
            yield made
        finally:
            made.stop()
            process.stdin.close()


def test_what_the_network_stops_doing_takes_a_release_back(lan: Lan, tmp_path: Path, keys: Keys) -> None:
    etc = tmp_path / "etc/health.d"
    etc.mkdir(parents=True)
    for name, fields in CHECKS.items():
        (etc / f"{name}.json").write_text(json.dumps(fields))
    firmware = Firmware(tmp_path, keys)

    def install(name: str, hook: str, fails: int = 0) -> str:
        bundle = firmware.pack(name, {".post-install": f"#!/bin/sh\n{hook}\n"})
        return lan.run(sys.executable, "-m", "fussy", "install", bundle, "-k", keys.keyring, "-t", firmware.target,
                       "-l", tmp_path / "log", fails=fails, env={**os.environ, "FUSSY_ETC": str(etc.parent)})

    install("fw-1", "true")
    install("fw-2", "true")  # nothing answers, so nothing need answer
    lan.dnsmasq("--no-ping")
    assert "'health.d/dhcp.json' did not pass within 3 s: no DHCP server answers on br-lan" in install(
        "fw-3", f"kill $(cat {tmp_path}/pid)", fails=3)
    lan.dnsmasq("--no-ping")
    install("fw-4", "true")
    rule = "PREROUTING -p tcp --dport 80 -j DNAT --to-destination 192.168.77.9"
    said = install("fw-5", f"iptables -t nat -D {rule}", fails=3)
    assert "there before and now missing: -A PREROUTING -p tcp -m tcp --dport 80 -j DNAT" in said
    assert os.readlink(firmware.target / "current") == "fw-4"
    assert (tmp_path / "leases").read_text() == ""  # nobody took an address


INTERNET = """
import socket, subprocess
print("ready", flush=True)
input()
for words in ("address add 203.0.113.1/24 dev eth0", "link set eth0 up"):
    subprocess.run(["ip", *words.split()], check=True)
server = socket.create_server(("203.0.113.1", 53))
print("listening", flush=True)
while True:
    server.accept()
"""


@pytest.fixture
def internet(lan: Lan) -> Iterator[None]:
    """A namespace beyond the router's wan0, with a server that knows no way to the router's own network."""
    with subprocess.Popen(lan.argv("unshare", "--net", sys.executable, "-c", INTERNET), text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        try:
            assert process.stdout.readline() == "ready\n"
            for words in (f"ip link add wan0 type veth peer name eth0 netns {process.pid}",
                          "ip address add 203.0.113.2/24 dev wan0", "ip link set wan0 up"):
                lan.run(*words.split())
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "listening\n"
            yield
        finally:
            process.kill()


def test_nat_is_asked_as_a_client_behind_the_router_does(lan: Lan, internet: None, tmp_path: Path, keys: Keys) -> None:
    question = "203.0.113.1:53 from 192.168.77.200 iif br-lan"
    asked = f"probes.within(30, lambda: __import__('fussy.behind').behind.nat({question!r}, 20))"
    assert ask(lan, asked) == ""
    for wrong, said in (("br-lan", "lan0 is no bridge"), ("192.168.77.200", "no address in the network of 10.0.0.1")):
        assert said in ask(lan, asked.replace(wrong, {"br-lan": "lan0"}.get(wrong, "10.0.0.1")))
    assert "is not HOST:PORT from" in ask(lan, asked.replace(" iif", ""))
    assert "fussy" not in lan.run("ip", "link"), "no cable is left"

    etc = tmp_path / "etc/health.d"
    etc.mkdir(parents=True)
    (etc / "nat.json").write_text(json.dumps({"nat": question, "kept": True, "seconds": 5}))
    firmware = Firmware(tmp_path, keys)
    rule = "POSTROUTING -s 192.168.77.0/24 -o wan0 -j MASQUERADE"
    for name, hook, fails in (("fw-1", "true", 0), ("fw-2", "true", 0), ("fw-3", f"iptables -t nat -D {rule}", 3)):
        bundle = firmware.pack(name, {".post-install": f"#!/bin/sh\n{hook}\n"})
        said = lan.run(sys.executable, "-m", "fussy", "install", bundle, "-k", keys.keyring, "-t", firmware.target,
                       "-l", tmp_path / "log", fails=fails, env={**os.environ, "FUSSY_ETC": str(etc.parent)})
    assert "'health.d/nat.json' did not pass within 5 s: timed out" in said
    assert os.readlink(firmware.target / "current") == "fw-2"


def ask(lan: Lan, question: str) -> str:
    script = f"from fussy import probes; print({question})"
    return lan.run(sys.executable, "-c", script).strip()


def test_dhcp_and_dns_are_asked_as_clients_do(lan: Lan) -> None:
    assert ask(lan, "probes.dhcp('br-lan', 0.3)") == "no DHCP server answers on br-lan"
    assert ask(lan, "probes.within(1, lambda: probes.dhcp('br-wan', 0.3))") == "No such device"
    lan.dnsmasq()  # which looks for three seconds whether anybody has the address that it is going to offer
    assert ask(lan, "probes.dhcp('br-lan', 10)") == ""
    assert ask(lan, "probes.dns('router.lan@192.168.77.1', 5)") == ""
    assert ask(lan, "probes.dns('other.lan@192.168.77.1', 0.3)") == "192.168.77.1 does not resolve other.lan"
    assert ask(lan, "probes.tcp('192.168.77.1:53', 5)") == ""
    assert ask(lan, "probes.within(1, lambda: probes.tcp('192.168.77.1:54', 5))") == "Connection refused"


def test_answers_that_are_none_are_passed_over() -> None:
    asked = b"abcd"
    head = probes.discover(b"\2abcde", asked)
    offer = b"\2" + head[1:236 + 4] + bytes([0, 12, 1, 65, 53, 1, 2, 255])
    assert probes.is_offer(offer, asked)
    for wrong in (head, offer[:200], offer.replace(asked, b"efgh"), offer[:-2] + b"\5\xff", offer[:240], offer[:-3]):
        assert not probes.is_offer(wrong, asked)
    answer = b"\0\7\x81\x80\0\1\0\1\0\0\0\0"
    assert probes.resolves(answer, 7)
    for none in (answer[:11], b"\0\6" + answer[2:], b"\0\7\1\0" + answer[4:], b"\0\7\x81\x83" + answer[4:],
                 answer[:6] + b"\0\0" + answer[8:]):
        assert not probes.resolves(none, 7)


@pytest.mark.parametrize(("script", "reason"), [
    ("exit 3", "exit status 3"), ("printf 'one\\ntwo \\033[31m\\n'; exit 3", "exit status 3: one / two ?[31m"),
    ("seq 5; exit 3", "exit status 3: 3 / 4 / 5")])
def test_what_a_command_says_makes_one_harmless_line(tmp_path: Path, script: str, reason: str) -> None:
    with pytest.raises(UnhealthyRelease) as failed:
        health.check(tmp_path, [Check("app", command=["sh", "-c", script], seconds=0.1)])
    assert str(failed.value).partition("within 0.1 s: ")[2] == reason


def test_units_are_asked_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        f"#!/bin/sh\necho $* >> {tmp_path}/asked\n[ $2 = good.service ] || {{ echo failed; exit 3; }}\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    health.check(tmp_path, [Check("unit", unit="good.service")])
    with pytest.raises(UnhealthyRelease, match=r"'unit' did not pass within 0\.1 s: exit status 3: failed"):
        health.check(tmp_path, [Check("unit", unit="bad.service", seconds=0.1)])
    assert "is-active good.service" in (tmp_path / "asked").read_text()


def test_pages_are_read_and_one_that_never_ends_is_given_up(tmp_path: Path) -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response({"/good": 200, "/drip": 200}.get(self.path, 503))
            self.end_headers()
            self.wfile.write(b"version 7")
            while self.path == "/drip" and not over.wait(0.05):
                self.wfile.write(b".")

        def log_message(self, format: str, *args: object) -> None:
            pass

    over = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        health.check(tmp_path, [Check("page", http=f"{url}/good", contains="version 7")])
        for path, seconds, problem in (("/bad", 0.1, "HTTP status 503"), ("/drip", 0.5, "no answer")):
            start = time.monotonic()
            with pytest.raises(UnhealthyRelease, match=problem):
                health.check(tmp_path, [Check("page", http=url + path, seconds=seconds)])
            assert time.monotonic() - start < 10
        over.set()
        server.shutdown()
    with pytest.raises(UnhealthyRelease, match=r"within 0\.1 s: Connection refused"):
        health.check(tmp_path, [Check("page", http=f"{url}/good", seconds=0.1)])


def test_a_check_that_hangs_is_killed_with_all_it_started(tmp_path: Path) -> None:
    name = f"{tmp_path}/hangs"
    Path(name).write_text("#!/bin/sh\nsleep 1000 &\necho $! >> children\nsleep 1000\n")
    Path(name).chmod(0o755)
    with pytest.raises(UnhealthyRelease, match="no answer"):
        health.check(tmp_path, [Check("hangs", command=[name], seconds=0.3)])
    for child in (tmp_path / "children").read_text().split():
        end = time.monotonic() + 10
        while Path(f"/proc/{child}").exists() and "(sleep) Z" not in Path(f"/proc/{child}/stat").read_text():
            assert time.monotonic() < end, "a child of the check lives on"
            time.sleep(0.02)
