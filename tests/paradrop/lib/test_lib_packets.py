"""A chute's network as it is decided here and applied by pdconfd: real interfaces, leases and packets."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import run

import pytest

from paradrop.backend.pdconfd.config.manager import ConfigManager
from paradrop.backend.pdconfd.config.run import Runner
from paradrop.lib import settings
from tests.paradrop.lib.router import Router
from tests.paradrop.pdconfd.namespaces import NEEDED, Namespace, ask, connect, remove, serve

CHUTE = {
    "name": "shop", "dockerfile": "FROM x",
    "net": {"port": {"type": "lan", "intfName": "lan0", "dhcp": {"lease": "1h", "start": 100, "limit": 9}}},
    "firewall": [{"type": "redirect", "name": "web", "from": "@host.lan:8080", "to": "p*:80"}],
}


@pytest.fixture
def namespace() -> Iterator[Callable[[str], Namespace]]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if missing := [name for name in (*NEEDED, "udhcpc") if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    with ExitStack() as stack:
        def make(role: str) -> Namespace:
            found = Namespace(f"pl{os.getpid()}{role}")
            run(["ip", "netns", "add", found.name], check=True)
            stack.callback(remove, found)
            found.run("ip", "link", "set", "lo", "up")
            return found
        yield make


def give(where: Namespace, link: str, address: str, gateway: str | None = None) -> None:
    where.run("ip", "address", "add", address, "dev", link)
    where.run("ip", "link", "set", link, "up")
    if gateway:
        where.run("ip", "route", "add", "default", "via", gateway)


@pytest.mark.slow
def test_clients_get_leases_and_redirects_reach_the_chute(
        namespace: Callable[[str], Namespace], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, outside, client, chute = (namespace(role) for role in ("r", "o", "c", "s"))
    connect(host, "wan0", outside, "eth0")
    connect(host, "eth1", client, "eth0")
    connect(host, "docker0", chute, "eth0")
    give(host, "wan0", "203.0.113.1/24")
    give(host, "docker0", "172.17.0.1/16")
    give(outside, "eth0", "203.0.113.2/24", "203.0.113.1")
    give(chute, "eth0", "172.17.0.2/16", "172.17.0.1")
    client.run("ip", "link", "set", "eth0", "up")

    router = Router(home, monkeypatch)
    router.build({"wan0": "", "eth1": "", "docker0": ""}, ["default dev wan0", "172.17.0.0/16 dev docker0"])
    router.update(CHUTE)
    (record,) = router.interfaces("shop")
    manager = ConfigManager(settings.PDCONFD_WRITE_DIR, runner=Runner(host.prefix))
    try:
        manager.loadConfig()
        assert [one for one in json.loads(manager.statusString()) if not one["success"]] == []

        host.run("ip", "link", "add", "hport", "type", "veth", "peer", "name", record["internalIntf"],
                 "netns", chute.name)
        host.run("ip", "link", "set", "hport", "master", record["bridge"], "up")
        give(chute, record["internalIntf"], record["ipaddrWithPrefix"])

        serve(chute, record["internalIpaddr"], 80, "shop")
        assert ask(outside, "203.0.113.1", 8080) == "shop sees 203.0.113.2"
        assert ask(host, record["internalIpaddr"], 80) == f"shop sees {record['externalIpaddr']}"

        script = home / "lease"
        script.write_text('#!/bin/sh\n[ "$1" = bound ] && echo "$ip $router $subnet $dns" > ' + f"{home}/got\n")
        script.chmod(0o755)
        client.run("udhcpc", "-n", "-q", "-t", "10", "-T", "1", "-i", "eth0", "-s", str(script), timeout=30)
        address, gateway, mask, dns = (home / "got").read_text().split()
        prefix = record["subnet"].removesuffix(".0/24")
        assert address.startswith(f"{prefix}.1") and (gateway, mask, dns) == (
            record["internalIpaddr"], "255.255.255.0", record["externalIpaddr"])
        leases = Path(settings.EXTERNAL_SYSTEM_DIR.format(chute="shop")) / "dnsmasq-port.leases"
        assert address in leases.read_text()

        give(client, "eth0", f"{address}/24")
        assert ask(client, record["internalIpaddr"], 80) == f"shop sees {address}"

        router.update(CHUTE, "stop")
        manager.loadConfig()
        assert record["bridge"] not in host.run("ip", "link")
        assert address in leases.read_text()
        assert "shop" not in ask(outside, "203.0.113.1", 8080)
    finally:
        manager.unload()
    assert "dnsmasq" not in host.processes()
