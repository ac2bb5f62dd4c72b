"""Chutes on a real engine: installed, stopped, started, updated, rolled back, deleted."""

import socket
import subprocess
import sys
import time
import urllib.request
from typing import Any

import pytest
from engine import Router

from paradrop.backend.fc.chutestorage import ChuteStorage
from paradrop.lib.chute import Chute
from paradrop.lib.utils import dockerapi, dockerclient

pytestmark = pytest.mark.docker

PAGE = 'FROM busybox\nRUN echo "hello from {}" > /www/index.html\nCMD ["httpd", "-f", "-p", "80", "-h", "/www"]\n'
SLEEP = 'CMD ["sleep", "1000"]\n'


def page(version: int | str = 1) -> str:
    return PAGE.format(version)


def get(url: str) -> str:
    """Fetch a page. The test's thread is in the router's network namespace."""
    for _ in range(20):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except ConnectionError:
            time.sleep(0.1)  # the server is just starting
    raise ConnectionError(url)


def test_the_documented_walk(router: Router) -> None:
    before = router.state()
    hello = {"name": "hello-world", "dockerfile": page(), "host_config": {"port_bindings": {80: 9000}}}
    router.do("create", **hello)
    assert "hello from 1" in get("http://127.0.0.1:9000/")
    assert any("Step 1/" in text for text in router.progress)
    router.do("stop", name="hello-world")
    with pytest.raises(OSError):
        get("http://127.0.0.1:9000/")
    assert ChuteStorage().getChute("hello-world").state == "stopped"
    router.do("start", name="hello-world")
    assert "hello from 1" in get("http://127.0.0.1:9000/")
    router.do("delete", name="hello-world")
    after = router.state()
    for part in ("containers", "images", "links", "rules", "store", "directories", "networks", "journal"):
        assert after[part] == before[part], part


def inspect(router: Router, name: str) -> dict[str, Any]:
    found: dict[str, Any] = router.engine.client.inspect_container(name)
    return found


def execute(router: Router, name: str, *argv: str) -> str:
    client = router.engine.client
    output: bytes = client.exec_start(client.exec_create(name, list(argv))["Id"])
    return output.decode()


def chute_of(name: str) -> Chute:
    chute = ChuteStorage().getChute(name)
    assert chute is not None
    return chute


def test_a_container_has_what_its_chute_asks_for(router: Router) -> None:
    router.do("create", name="full", version=3, dockerfile=f"FROM busybox\n{SLEEP}",
              environment={"COLOUR": "red", "N": 5},
              host_config={"port_bindings": {"53/udp": 5300, 80: 9000}, "dns": ["192.0.2.53"]},
              resources={"memory": 64 << 20, "cpu_fraction": 0.5})
    found = inspect(router, "full")
    host = found["HostConfig"]
    assert host["Memory"] == 64 << 20 and host["CpuShares"] == 1024
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 5}
    assert host["Dns"] == ["192.0.2.53"] and not host["Privileged"] and "NET_ADMIN" in str(host["CapAdd"])
    assert host["PortBindings"] == {"53/udp": [{"HostIp": "", "HostPort": "5300"}],
                                    "80/tcp": [{"HostIp": "", "HostPort": "9000"}]}
    environment = dict(line.split("=", 1) for line in execute(router, "full", "env").splitlines())
    assert environment.items() >= {"COLOUR": "red", "N": "5", "PARADROP_CHUTE_NAME": "full",
                                   "PARADROP_CHUTE_VERSION": "3", "PARADROP_DATA_DIR": "/data",
                                   "PARADROP_SYSTEM_DIR": "/paradrop"}.items()
    execute(router, "full", "touch", "/data/mine")
    assert (router.home / "lib" / "data" / "full" / "mine").exists()
    assert "Read-only" in execute(router, "full", "touch", "/paradrop/mine")


def test_redirects_work_where_routers_filter_by_reverse_path(router: Router) -> None:
    """RFC 3704's strict filtering drops what does not come in the way that the answer would go."""
    engine, outside = router.engine, f"{router.engine.netns}-o"
    strict = ("sysctl", "-q", "-w", "net.ipv4.conf.all.rp_filter=1")
    subprocess.run(["ip", "netns", "add", outside], check=True)
    try:
        engine.run("ip", "link", "set", "wan0peer", "netns", outside)
        for words in ("address add 192.0.2.254/24 dev wan0peer", "link set wan0peer up"):
            subprocess.run(["ip", "-n", outside, *words.split()], check=True)
        engine.run(*strict)
        router.do("create", name="shop", dockerfile=page(),
                  net={"lan": {"type": "lan", "intfName": "port0"}},
                  firewall=[{"type": "redirect", "name": "web", "from": "@host.lan:8080", "to": "lan:80"}])
        pid = str(inspect(router, "shop")["State"]["Pid"])
        engine.run("nsenter", "-t", pid, "-n", *strict)
        for _ in range(2):
            fetch = "import urllib.request as r; print(r.urlopen('http://192.0.2.1:8080/', timeout=5).read().decode())"
            found = subprocess.run(["ip", "netns", "exec", outside, sys.executable, "-c", fetch], capture_output=True,
                                   text=True, timeout=20)
            assert found.stdout.strip() == "hello from 1", found.stderr
            dockerapi.wire_up(chute_of("shop"))  # as after a restart: the same again
        interface = chute_of("shop").getCache("networkInterfaces")[0]
        assert get(f"http://{interface['internalIpaddr']}/") == "hello from 1\n"
    finally:
        engine.run("sysctl", "-q", "-w", "net.ipv4.conf.all.rp_filter=0")
        subprocess.run(["ip", "-n", outside, "link", "set", "wan0peer", "netns", engine.netns], check=True)
        subprocess.run(["ip", "netns", "delete", outside], check=True)


def test_processor_time_is_shared_out_anew(router: Router) -> None:
    router.do("create", name="first", dockerfile=f"FROM busybox\n{SLEEP}")
    assert inspect(router, "first")["HostConfig"]["CpuShares"] == 0
    router.do("create", name="greedy", dockerfile=f"FROM busybox\n{SLEEP}", resources={"cpu_fraction": 0.5})
    assert [inspect(router, name)["HostConfig"]["CpuShares"] for name in ("first", "greedy")] == [512, 1536]
    result = router.update("create", name="more", dockerfile=f"FROM busybox\n{SLEEP}", resources={"cpu_fraction": 0.6})
    assert not result["success"] and "greedy (0.5)" in result["message"]
    router.do("delete", name="greedy")
    assert inspect(router, "first")["HostConfig"]["CpuShares"] == 1024


def test_data_survives_updates_and_goes_with_the_chute(router: Router) -> None:
    router.do("create", name="app", version=1, dockerfile=f"FROM busybox\n{SLEEP}")
    execute(router, "app", "touch", "/data/precious")
    router.do("update", name="app", version=2, dockerfile=f"FROM busybox\nENV A=1\n{SLEEP}")
    assert execute(router, "app", "ls", "/data") == "precious\n"
    assert len(router.engine.client.containers(all=True)) == 1
    router.do("delete", name="app")
    assert not list((router.home / "lib" / "data").iterdir())


def test_the_previous_version_can_be_brought_back_without_a_build(router: Router) -> None:
    router.do("create", name="app", version=1, dockerfile=f"FROM busybox\nENV V=1\n{SLEEP}")
    first = inspect(router, "app")["Image"]
    router.do("update", name="app", version=2, dockerfile=f"FROM busybox\nENV V=2\n{SLEEP}")
    router.do("update", name="app", version=3, dockerfile=f"FROM busybox\nENV V=3\n{SLEEP}")
    labelled = router.engine.client.images(filters={"label": dockerclient.LABEL})
    assert len(labelled) == 2 and first not in {image["Id"] for image in labelled}
    router.progress.clear()
    router.do("rollback", name="app")
    assert "V=2" in execute(router, "app", "env").splitlines() and not router.progress
    stored = ChuteStorage().getChute("app")
    assert stored is not None and stored.descriptor["version"] == 2 and stored.getCache("previous")["version"] == 3
    router.do("rollback", name="app")
    assert "V=3" in execute(router, "app", "env").splitlines()


@pytest.mark.parametrize("bad", [
    {"dockerfile": "FROM busybox\nRUN false\n"}, {"dockerfile": 'FROM busybox\nCMD ["false"]\n'},
    {"dockerfile": 'FROM busybox\nCMD ["no-such-program"]\n'}, {"external_image": "127.0.0.1:1/no/image"},
    {"dockerfile": f"FROM busybox\n{SLEEP}", "host_config": {"port_bindings": {80: 9090}}},
], ids=["build", "ends", "command", "image", "port"])
def test_a_version_that_does_not_come_up_leaves_the_old_one_running(router: Router, bad: dict[str, Any]) -> None:
    router.do("create", name="app", version=1, dockerfile=page(), host_config={"port_bindings": {80: 9000}})
    before = router.state()
    with socket.create_server(("0.0.0.0", 9090)):
        result = router.update("update", name="app", version=2, **bad)
    assert not result["success"], result
    assert router.state() == before
    assert "hello from 1" in get("http://127.0.0.1:9000/")


def test_a_container_that_ends_at_once_tells_its_last_words(router: Router) -> None:
    result = router.update("create", name="app", dockerfile='FROM busybox\nCMD ["sh", "-c", "echo alas; exit 3"]\n')
    assert not result["success"] and "status 3" in result["message"] and "alas" in result["message"]


def test_a_container_that_has_done_its_work_is_no_failure(router: Router) -> None:
    router.do("create", name="app", dockerfile='FROM busybox\nCMD ["true"]\n')


def test_several_services_find_each_other_by_name(router: Router) -> None:
    before = router.state()
    services = {
        "web": {"type": "inline", "dockerfile": page(), "requests": {"port-bindings": {80: 9000}}},
        "tool": {"type": "inline", "dockerfile": f"FROM busybox\n{SLEEP}", "environment": {"A": "b"}},
    }
    router.do("create", name="pair", services=services, environment={"ALL": "yes"})
    assert {item["Names"][0] for item in router.engine.client.containers()} == {"/pair-web", "/pair-tool"}
    assert "1 packets received" in execute(router, "pair-tool", "ping", "-c", "1", "-W", "5", "web")
    assert {"ALL=yes", "A=b"} <= set(execute(router, "pair-tool", "env").splitlines())
    router.do("update", name="pair", version=2, dockerfile=f"FROM busybox\n{SLEEP}")
    assert [item["Names"] for item in router.engine.client.containers()] == [["/pair"]]
    router.do("delete", name="pair")
    after = router.state()
    assert sorted(after["rules"]) == sorted(before["rules"])  # Docker puts its own in another order
    assert not differences(before, {**after, "rules": before["rules"]})


def differences(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {part for part in before if before[part] != after[part]} - {"disk"}


def test_new_environment_at_a_restart(router: Router) -> None:
    router.do("create", name="app", dockerfile=f"FROM busybox\n{SLEEP}", environment={"A": "1"})
    number = inspect(router, "app")["Id"]
    router.do("restart", name="app")
    assert inspect(router, "app")["Id"] == number
    router.do("restart", name="app", environment={"A": "2"})
    assert "A=2" in execute(router, "app", "env").splitlines()
    assert len(router.engine.client.containers(all=True)) == 1


@pytest.mark.parametrize(("kind", "values", "message"), [
    ("stop", {"name": "none"}, "No chute found with id: none"),
    ("start", {"name": "none"}, "No chute found with id: none"),
    ("delete", {"name": "none"}, "No chute found with id: none"),
    ("start", {"name": "app"}, "app already running."),
    ("create", {"name": "app", "dockerfile": "FROM busybox"}, "app already exists on this device."),
    ("update", {"name": "app", "version": 1, "dockerfile": "FROM busybox"}, "Version 1 already exists on this device."),
    ("rollback", {"name": "app"}, "No previous version of app is kept."),
    ("create", {"name": "new", "dockerfile": "FROM busybox", "host_config": {"port_bindings": {1: 9000}}}, "app"),
])
def test_refusals_change_nothing(router: Router, kind: str, values: dict[str, Any], message: str) -> None:
    router.do("create", name="app", version=1, dockerfile=f"FROM busybox\n{SLEEP}",
              host_config={"port_bindings": {80: 9000}})
    before = router.state()
    result = router.update(kind, **values)
    assert not result["success"] and message in result["message"]
    assert router.state() == before


def test_all_mistakes_are_told_at_once(router: Router) -> None:
    result = router.update("create", name="bad", dockerfile="FROM busybox", nets=1, net={
        "wifi": {"type": "wifi", "intfName": "wlan0", "ssid": "x" * 33}, "other": {"type": "tin can"}})
    assert not result["success"]
    assert "net.wifi.ssid: longer than 32 bytes" in result["message"] and "net.other.type" in result["message"]


def test_what_is_not_ours_is_left_alone(router: Router) -> None:
    client = router.engine.client
    number = client.create_container("busybox", ["sleep", "1000"], name="taken")["Id"]
    client.start(number)
    result = router.update("create", name="taken", dockerfile=f"FROM busybox\n{SLEEP}")
    assert not result["success"] and "taken" in result["message"]
    assert client.inspect_container("taken")["Id"] == number


def test_chutes_that_run_are_left_alone_when_the_runtime_restarts(router: Router) -> None:
    router.do("create", name="app", dockerfile=f"FROM busybox\n{SLEEP}")
    started = inspect(router, "app")["State"]["StartedAt"]
    router.restart()
    assert inspect(router, "app")["State"]["StartedAt"] == started


def test_chutes_come_back_after_the_engine_lost_everything(router: Router) -> None:
    router.do("create", name="app", dockerfile=page(), host_config={"port_bindings": {80: 9000}})
    router.engine.clear()
    router.restart()
    assert "hello from 1" in get("http://127.0.0.1:9000/")
