"""The daemon as a process: how it starts, what it tells the service manager, how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import urllib3
from process import Daemon, running

from paradrop import main, notify
from paradrop.lib import settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    """A daemon with nothing on its disk, no engine, and no commands run by pdconfd."""
    return Daemon(tmp_path, settings={"PDFCD_PORT": str(free_port())})


def ask(daemon: Daemon, path: str, token: str | None = None) -> urllib3.BaseHTTPResponse:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return urllib3.request("GET", f"http://127.0.0.1:{daemon.settings['PDFCD_PORT']}{path}", headers=headers,
                           retries=False, timeout=10)


def test_it_starts_on_an_empty_disk_stays_small_and_stops_cleanly(daemon: Daemon) -> None:
    with running(daemon):
        assert ask(daemon, "/v1/test").data == b"SUCCESS\n"
        token = (daemon.home / "run/api/token").read_text().strip()
        assert json.loads(ask(daemon, "/api/v1/status", token).data)["chutes"] == {}
        time.sleep(1)
        assert daemon.memory() < 60
        assert daemon.kill(signal.SIGTERM) == 0
    assert "told to stop" in daemon.log()
    assert "Traceback" not in daemon.log()
    lines = [json.loads(line) for line in (daemon.home / "lib/logs/log").read_text().splitlines()]
    assert lines[-1]["level"]


def test_stopping_ends_streams_and_is_told(daemon: Daemon) -> None:
    place = daemon.home / "notify"
    with running(daemon), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        place.unlink()
        channel.bind(str(place))
        channel.settimeout(10)
        token = (daemon.home / "run/api/token").read_text().strip()
        url = f"http://127.0.0.1:{daemon.settings['PDFCD_PORT']}/api/v1/logs?follow=true"
        answer = urllib3.request("GET", url, headers={"Authorization": f"Bearer {token}"}, preload_content=False)
        began = time.monotonic()
        assert daemon.kill(signal.SIGTERM) == 0
        assert time.monotonic() - began < 8
        assert channel.recv(100) == b"STOPPING=1"
        answer.read()


def test_the_watchdog_hears_of_it(daemon: Daemon) -> None:
    daemon.settings["WATCHDOG_USEC"] = "400000"
    place = daemon.home / "notify"
    with running(daemon), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        place.unlink()
        channel.bind(str(place))
        channel.settimeout(10)
        began = time.monotonic()
        assert [channel.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        assert time.monotonic() - began < 4


def test_a_taken_port_is_told_in_one_line(daemon: Daemon) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(daemon.settings["PDFCD_PORT"])))
        other.listen()
        done = subprocess.run([sys.executable, "-m", "paradrop.main"], cwd=daemon.home, env=daemon.environment,
                              capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "cannot listen" in line]
    assert "PDFCD_PORT" in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("setting", "text"), [
    ("nonsense", "KEY:value"), ("PDFCD_V1_NETWORKS:10.0.0.0/8 all", "PDFCD_V1_NETWORKS: 'all'"),
    ("PDFCD_FAILURE_LIMIT:few", "not a whole number"), ("PDFCD_ADDRESS:nowhere.invalid", "cannot listen on nowhere"),
])
def test_an_unusable_setting_is_told_in_one_line(daemon: Daemon, setting: str, text: str) -> None:
    done = subprocess.run([sys.executable, "-m", "paradrop.main", "-s", setting], cwd=daemon.home,
                          env=daemon.environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert text in done.stderr


def test_pdconfd_alone(daemon: Daemon) -> None:
    process = subprocess.Popen([sys.executable, "-m", "paradrop.main", "--config"], cwd=daemon.home,
                               env=daemon.environment, stderr=subprocess.PIPE, text=True)
    try:
        socket_directory = daemon.home / "run"
        for _ in range(100):
            if any(path.is_socket() for path in socket_directory.rglob("*")):
                break
            time.sleep(0.1)
        else:
            raise AssertionError("no socket")
        with pytest.raises(urllib3.exceptions.HTTPError):
            ask(daemon, "/v1/test")
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_documented_arguments() -> None:
    args = main.parse_arguments([])
    assert (args.mode, args.config, args.settings) == ("production", False, [])
    assert main.parse_arguments(["-l"]).mode == "local"
    assert main.parse_arguments(["--unittest"]).mode == "unittest"
    assert main.parse_arguments(["-m", "development"]).development
    assert main.parse_arguments(["-s", "A:b", "--settings", "C:d"]).settings == ["A:b", "C:d"]


def test_the_mode_for_tests_runs(tmp_path: Path) -> None:
    port = free_port() % 20000 + 2000
    daemon = Daemon(tmp_path, arguments=("--unittest",), settings={"PDFCD_PORT": str(port)})
    with running(daemon):
        answer = urllib3.request("GET", f"http://127.0.0.1:{port + 20000}/v1/test", retries=False, timeout=10)
        assert answer.data == b"SUCCESS\n"
        assert daemon.kill(signal.SIGTERM) == 0
    assert "Traceback" not in daemon.log()


HEAVY = {"docker", "pyroute2", "dbus_fast", "cryptography", "requests"}


@pytest.mark.parametrize(("what", "absent"), [
    ("paradrop.main, paradrop.backend.pdfcd.server, paradrop.backend.pdfcd.app, paradrop.backend.pdconfd.main", HEAVY),
    ("paradrop.backend.pdconfd.main", HEAVY | {"starlette", "uvicorn"}),
    ("paradrop.tools.cli", HEAVY | {"starlette", "uvicorn", "paradrop.backend.fc"}),
])
def test_heavy_libraries_are_imported_when_first_used(what: str, absent: set[str]) -> None:
    code = f"import sys, {what}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not absent & set(done.stdout.split())


def test_local_mode_leaves_the_system_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if hasattr(settings, name)]:
        monkeypatch.delenv(name)
    main.configure(main.parse_arguments(["--local", "-v", "-s", "PDFCD_PORT:1234"]))
    assert settings.UCI_CONFIG_DIR.startswith("/tmp/")
    assert settings.PDCONFD_WRITE_DIR.startswith("/tmp/")
    assert (settings.VERBOSE, settings.PDFCD_PORT) == (True, 1234)


def test_nobody_to_notify(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify.notify("READY=1")
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    assert notify.watchdog_seconds() == 3
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert notify.watchdog_seconds() is None


def test_the_nexus_finds_a_server(home: Path) -> None:
    from paradrop.backend.pdfcd import identity
    from paradrop.backend.pdfcd.journal import Journal

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        settings.addSetting("PDSERVER_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        nexus = main.Nexus("test", Journal())
        nexus.onStart()
        assert not [thread for thread in threading.enumerate() if thread.name == "nexus"], "it has no keys yet"
        identity.provision("pd.joe.aardvark", "key", "certificate")
        nexus.onStart()
        server.settimeout(10)
        server.accept()[0].close()
        for _ in range(100):
            if nexus._avatar:
                break
            time.sleep(0.05)
        assert nexus._avatar.name == settings.PDSERVER_URL
        nexus.onStop()
        assert nexus._avatar is None
