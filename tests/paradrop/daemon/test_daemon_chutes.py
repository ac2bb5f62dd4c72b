"""The daemon with a real Docker engine: power cycles, kills, logs, and an engine that is not there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from engine import Engine
from process import PORT, Daemon, running

pytestmark = pytest.mark.docker

CHUTES = Path(__file__).resolve().parents[3] / "pdimage/chutes"
THERE = ("localhost", str(PORT))
PAGE = "http://127.0.0.1:9000/"


@pytest.fixture
def router(engine_of_session: Engine, tmp_path: Path) -> Daemon:
    engine_of_session.clear()
    return Daemon(tmp_path, engine_of_session)


def containers(router: Daemon) -> list[str]:
    assert router.engine
    return sorted(name for item in router.engine.client.containers(all=True) for name in item["Names"])


def stop_containers(router: Daemon) -> None:
    """What a power cut does to containers, the engine being told not to start them again."""
    assert router.engine
    for item in router.engine.client.containers():
        router.engine.client.kill(item["Id"])


def test_chutes_come_back_after_a_power_cycle(router: Daemon) -> None:
    with running(router):
        router.paradrop("chute", "install", *THERE, "config.yaml", cwd=CHUTES / "hello-world")
        router.kill()
        stop_containers(router)
        assert router.page(PAGE) is None
        router.start()
        router.await_page(PAGE)
        assert containers(router) == ["/hello-world"]
        changes = router.paradrop("router", "changes", *THERE)
        assert "hello-world" not in changes, "nobody asked for the restart"
        # a stop by the service manager, the engine going on, is no power cycle: the chute stays as it is
        started = router.engine.client.inspect_container("hello-world")["State"]["StartedAt"]  # type: ignore[union-attr]
        assert router.kill(signal.SIGTERM) == 0
        router.start()
        router.await_page(PAGE)
        assert router.engine.client.inspect_container("hello-world")["State"]["StartedAt"] == started  # type: ignore[union-attr]
        router.paradrop("chute", "stop", *THERE, "hello-world")
        router.kill()
        router.start()
        time.sleep(1)
        assert router.page(PAGE) is None, "a stopped chute stays stopped"


@pytest.mark.parametrize("delay", [0.05, 0.4, 0.8, 1.2, 1.8])
def test_a_kill_at_any_moment_neither_loses_nor_doubles_a_chute(router: Daemon, delay: float) -> None:
    with running(router):
        command = subprocess.Popen(
            [*router.prefix(), sys.executable, "-m", "paradrop.tools", "chute", "install", *THERE, "config.yaml"],
            cwd=CHUTES / "hello-world", env=router.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True)
        time.sleep(0.3 + delay)
        router.kill()
        output = command.communicate(timeout=30)[0]
        assert command.returncode in (0, 4), output
        assert "Traceback" not in output
        router.start()
        listed = json.loads(router.paradrop("chute", "list", *THERE, "--json"))
        if command.returncode == 0 or listed:
            assert [chute["name"] for chute in listed] == ["hello-world"]
            router.await_page(PAGE)
            assert containers(router) == ["/hello-world"]
        else:
            for _ in range(50):
                if not containers(router):
                    break
                time.sleep(0.1)
            assert containers(router) == []
            router.paradrop("chute", "install", *THERE, "config.yaml", cwd=CHUTES / "hello-world")
            router.await_page(PAGE)


def test_logs_of_a_chute_end_with_their_readers(router: Daemon) -> None:
    talker = {"name": "talker", "owner": "me", "dockerfile": {
        "inline": "FROM busybox\nSTOPSIGNAL SIGKILL\n"
                  "CMD i=0; while true; do echo line $i; i=$((i + 1)); sleep 0.1; done\n"}}
    (router.home / "talker.json").write_text(json.dumps(talker))
    with running(router):
        router.paradrop("chute", "install", *THERE, "talker.json")
        time.sleep(0.5)
        assert router.paradrop("chute", "logs", *THERE, "talker").startswith("line 0\nline 1\n")
        assert router.process
        tasks = Path(f"/proc/{router.process.pid}/task")
        before = len(list(tasks.iterdir()))
        command = [*router.prefix(), sys.executable, "-m", "paradrop.tools", "chute", "logs", *THERE, "talker", "-f"]
        readers = [subprocess.Popen([*command, "-n", "1"], env=router.environment, stdout=subprocess.PIPE, text=True)
                   for _ in range(5)]
        for reader in readers:
            assert reader.stdout
            assert reader.stdout.readline().startswith("line")
            assert reader.stdout.readline().startswith("line")
        assert len(list(tasks.iterdir())) > before
        for reader in readers:
            reader.kill()
            reader.communicate()
        for _ in range(100):
            if len(list(tasks.iterdir())) <= before + 5:  # the HTTP side keeps a few idle threads for a while
                break
            time.sleep(0.1)
        assert len(list(tasks.iterdir())) <= before + 5


def test_a_quiet_chute_is_followed_all_the_same(router: Daemon) -> None:
    router.settings["DOCKER_TIMEOUT"] = "2"
    quiet = {"name": "quiet", "owner": "me", "dockerfile": {
        "inline": "FROM busybox\nSTOPSIGNAL SIGKILL\nCMD echo first; sleep 6; echo last; sleep 1000\n"}}
    (router.home / "quiet.json").write_text(json.dumps(quiet))
    with running(router):
        router.paradrop("chute", "install", *THERE, "quiet.json")
        command = [*router.prefix(), sys.executable, "-m", "paradrop.tools", "chute", "logs", *THERE, "quiet", "-f"]
        with subprocess.Popen(command, env=router.environment, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdout
            assert [reader.stdout.readline() for _ in range(2)] == ["first\n", "last\n"]
            reader.kill()


def test_without_an_engine_the_rest_goes_on(tmp_path: Path, engine_of_session: Engine) -> None:
    router = Daemon(tmp_path, engine_of_session, settings={
        "DOCKER_HOST": f"unix://{tmp_path}/nobody.sock", "DOCKER_TIMEOUT": "2"})
    with running(router):
        began = time.monotonic()
        output = router.paradrop("chute", "install", *THERE, "config.yaml", cwd=CHUTES / "hello-world", code=1)
        assert output.splitlines()[-1].startswith("ERROR: Failed to install chute.(cannot reach the Docker engine")
        assert time.monotonic() - began < 15
        assert "chutes: none" in router.paradrop("router", "status", *THERE)


@pytest.mark.slow
def test_a_stop_amid_a_build_is_told_and_leaves_nothing(router: Daemon) -> None:
    long = {"name": "long", "owner": "me", "dockerfile": {"inline": "FROM busybox\nRUN sleep 40\n"}}
    (router.home / "long.json").write_text(json.dumps(long))
    with running(router):
        command = subprocess.Popen(
            [*router.prefix(), sys.executable, "-m", "paradrop.tools", "chute", "install", *THERE, "long.json"],
            cwd=router.home, env=router.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(2)
        began = time.monotonic()
        assert router.kill(signal.SIGTERM) == 0
        assert time.monotonic() - began < 15
        output = command.communicate(timeout=10)[0]
        assert command.returncode == 1
        assert output.splitlines()[-1].startswith("ERROR: Failed to install chute.(The router stops before this is")
        router.start()
        assert json.loads(router.paradrop("chute", "list", *THERE, "--json")) == []


def test_a_failed_build_says_why(router: Daemon) -> None:
    broken = {"name": "broken", "owner": "me", "dockerfile": {"inline": "FROM busybox\nRUN false\n"}}
    (router.home / "broken.json").write_text(json.dumps(broken))
    with running(router):
        output = router.paradrop("chute", "install", *THERE, "broken.json", code=1)
        assert "RUN false" in output
        assert output.splitlines()[-1].startswith("ERROR: Failed to install chute.(Building docker image failed; "
                                                  "check your Dockerfile for errors.")
        output = router.paradrop("chute", "stop", *THERE, "nobody", code=1)
        assert output.splitlines()[-1] == "ERROR: Failed to stop chute.(No chute found with id: nobody)"


def test_the_routers_configuration_is_set_or_stays(router: Daemon) -> None:
    assert router.engine
    router.engine.run("ip", "link", "add", "name", "spare0", "type", "veth", "peer", "name", "spare1")
    good = "config interface 'spare'\n\toption proto 'static'\n\toption ifname 'spare0'\n" \
           "\toption ipaddr '203.0.113.1'\n\toption netmask '255.255.255.0'\n"
    chutes = "config interface 'theirs' #some-chute\n\toption proto 'none'\n\toption ifname 'x'\n"
    try:
        (router.home / "config").mkdir()
        (router.home / "config/network").write_text(chutes)
        with running(router):
            (router.home / "new").write_text(good)
            output = router.paradrop("router", "set-config", *THERE, "network", "new")
            assert output == "Configuring router...\n\nRouter setconfig network success\n"
            assert "203.0.113.1/24" in router.engine.run("ip", "-4", "address", "show", "dev", "spare0")
            shown = router.paradrop("router", "config", *THERE, "network")
            assert "some-chute" in shown
            assert "#__PARADROP__" in shown

            (router.home / "bad").write_text(good + "config interface 'other'\n\toption proto 'static'\n"
                                             "\toption ifname 'nothing0'\n\toption ipaddr '203.0.113.9'\n"
                                             "\toption netmask '255.255.255.0'\n")
            output = router.paradrop("router", "set-config", *THERE, "network", "bad", code=1)
            assert "the old one is back: interface other" in output.splitlines()[-1]
            assert router.paradrop("router", "config", *THERE, "network") == shown
            assert "203.0.113.1/24" in router.engine.run("ip", "-4", "address", "show", "dev", "spare0")

            (router.home / "empty").write_text("")
            (router.home / "shown").write_text(shown)
            router.paradrop("router", "set-config", *THERE, "network", "empty")
            assert "203.0.113.1" not in router.engine.run("ip", "-4", "address", "show", "dev", "spare0")
            router.paradrop("router", "set-config", *THERE, "network", "shown")
            assert router.paradrop("router", "config", *THERE, "network") == shown
            router.paradrop("router", "set-config", *THERE, "network", "nothing", code=3)
            assert not list((router.home / "lib/uci-backup").glob("network-*"))
    finally:
        router.engine.run("ip", "link", "delete", "dev", "spare0")


def test_a_chute_s_list_shows_what_the_containers_do(router: Daemon) -> None:
    short = {"name": "short", "owner": "me", "dockerfile": {
        "inline": "FROM busybox\nSTOPSIGNAL SIGKILL\nCMD sleep 1000\n"}}
    (router.home / "short.json").write_text(json.dumps(short))
    engine = router.engine
    assert engine
    with running(router):
        router.paradrop("chute", "install", *THERE, "short.json")
        assert containers_of(router) == [{"service": "main", "state": "running", "detail": ANY}]
        engine.client.pause("short")
        assert "running  paused" in router.paradrop("chute", "list", *THERE)
        engine.client.unpause("short")
        engine.client.kill("short")
        assert "running  exited (137) " in router.paradrop("chute", "list", *THERE)
        engine.client.remove_container("short")
        assert containers_of(router) == [{"service": "main", "state": "missing", "detail": None}]
        os.kill(engine.pid, signal.SIGSTOP)  # an engine that hangs
        try:
            began = time.monotonic()
            assert "running  unknown" in router.paradrop("chute", "list", *THERE)
            assert time.monotonic() - began < 10
        finally:
            os.kill(engine.pid, signal.SIGCONT)


def containers_of(router: Daemon) -> Any:
    return json.loads(router.paradrop("chute", "list", *THERE, "--json"))[0]["containers"]


def test_update_and_rollback(router: Daemon) -> None:
    with running(router):
        for version in (1, 2):
            config = {"name": "greeter", "owner": "me", "version": version,
                      "host_config": {"port_bindings": {80: 9000}}, "dockerfile": {
                          "inline": f"FROM busybox\nRUN mkdir -p /www && echo {version} > /www/index.html\n"
                                    "STOPSIGNAL SIGKILL\nCMD httpd -f -p 80 -h /www\n"}}
            (router.home / "config.yaml").write_text(json.dumps(config))
            router.paradrop("chute", "install" if version == 1 else "update", *THERE, "config.yaml")
        assert router.await_page(PAGE) == "2\n"
        output = router.paradrop("chute", "rollback", *THERE, "greeter")
        assert output.splitlines()[0] == "Rolling back chute..."
        assert output.splitlines()[-1] == "Chute greeter rollback success"
        assert router.await_page(PAGE) == "1\n"
        router.paradrop("chute", "restart", *THERE, "greeter")
        assert router.await_page(PAGE) == "1\n"
