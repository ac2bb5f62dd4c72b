"""Network namespaces that tests make, and what runs in them."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

NEEDED = ("ip", "iptables", "ip6tables", "sysctl", "dnsmasq")


class Namespace:
    """A network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.prefix = ("nsenter", f"--net=/run/netns/{name}")

    def run(self, *argv: str, check: bool = True, timeout: float = 20) -> str:
        """Run a program inside; return what it says."""
        done = subprocess.run([*self.prefix, *argv], capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout

    def popen(self, *argv: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([*self.prefix, *argv], stdout=subprocess.PIPE)

    def state(self) -> dict[str, Any]:
        """Everything that pdconfd may change here, less counters and what time changes."""
        links = json.loads(self.run("ip", "-json", "address", "show"))
        for link in links:
            link.pop("ifindex")
            link.pop("link_index", None)
            link.pop("operstate")
            link.pop("promiscuity", None)
            link.pop("qdisc")  # a link keeps the one that it got when it first came up
            link["flags"] = sorted(set(link["flags"]) - {"NO-CARRIER", "LOWER_UP"})
            # The kernel makes link-local addresses by itself whenever a link comes up
            link["addr_info"] = [entry for entry in link["addr_info"] if entry["scope"] != "link"]
        filters = [line for program in ("iptables", "ip6tables") for table in ("filter", "nat")
                   for line in self.run(program, "-t", table, "-S").splitlines()]
        routes = sorted(self.run("ip", "route", "show").splitlines())
        return {"links": links, "filters": filters, "routes": routes, "processes": self.processes(),
                "forwarding": self.run("sysctl", "net.ipv4.conf.all.forwarding")}

    def processes(self) -> list[str]:
        """The programs that run inside."""
        names = []
        for pid in self.pids():
            try:
                names.append(Path(f"/proc/{pid}/comm").read_text().strip())
            except OSError:
                continue  # it has ended meanwhile
        return sorted(names)

    def pids(self) -> list[int]:
        """The process ids of the programs that run inside."""
        done = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
        return [int(pid) for pid in done.stdout.split()]

    def end_processes(self) -> None:
        """End the programs that run inside."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def remove(found: Namespace) -> None:
    found.end_processes()
    subprocess.run(["ip", "netns", "delete", found.name], check=True)


def connect(one: Namespace, link: str, other: Namespace, far: str) -> None:
    """Lay a cable (a veth pair) between two namespaces; both ends are down and without addresses."""
    one.run("ip", "link", "add", link, "type", "veth", "peer", "name", far, "netns", other.name)


_SERVER = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family)
print("ready", flush=True)
while True:
    connection, peer = server.accept()
    connection.sendall(f"{sys.argv[3]} sees {peer[0]}".encode())
    connection.close()
"""

_CLIENT = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1.5) as connection:
        print(connection.recv(200).decode())
except OSError as error:
    print(type(error).__name__)
"""


def serve(where: Namespace, address: str, port: int, name: str) -> None:
    """Start a TCP server that says its name and whom it sees; it ends with its namespace."""
    process = where.popen(sys.executable, "-S", "-c", _SERVER, address, str(port), name)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"


def ask(where: Namespace, address: str, port: int) -> str:
    """Return what a TCP server says, or the name of the error that kept it from saying anything."""
    return where.run(sys.executable, "-S", "-c", _CLIENT, address, str(port)).strip()
