"""Asking pdconfd: in this process, over its socket, over D-Bus."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from xml.etree import ElementTree

import pytest
from namespaces import Namespace

from paradrop.backend.pdconfd import bus, client, main, wire
from paradrop.backend.pdconfd.config.manager import ConfigManager
from paradrop.lib.errors import ParadropError

Write = Callable[[str, str], str]

LAN = "config interface lan\n option proto dhcp\n option ifname eth1\n"
WAN = LAN.replace("lan", "wan")

# A process of its own asks for what its arguments say
ASK = """
import sys
from paradrop.backend.pdconfd import client
from paradrop.lib import settings
settings.relocate(sys.argv[1])
print(getattr(client, sys.argv[2])(*sys.argv[4:], dbus=sys.argv[3] == "bus"))
"""

# pdconfd as a process of its own, in a network namespace
SERVE = """
import sys
from paradrop.backend.pdconfd import main
from paradrop.lib import settings
settings.relocate(sys.argv[1])
main.run_pdconfd(dbus=sys.argv[2] == "bus")
"""


def ask(home: Path, method: str, *args: str, bus: bool = False) -> str:
    done = subprocess.run([sys.executable, "-c", ASK, str(home), method, "bus" if bus else "socket", *args],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def names(status: str | None) -> list[str]:
    return [entry["name"] for entry in json.loads(status or "null")]


@pytest.fixture
def listening(dry: ConfigManager) -> Iterator[main.Listening]:
    """A service in this process whose manager runs nothing."""
    found = main.run_thread(dry)
    yield found
    found.close()


def test_without_a_service_the_answer_is_none(home: Path) -> None:
    assert client.reloadAll() is None and client.reload("network") is None and client.waitSystemUp() is None


def test_in_one_process(write: Write, listening: main.Listening) -> None:
    client.waitSystemUp()
    path = write("network", LAN)
    assert names(client.reloadAll()) == ["lan"]
    write("network", LAN + WAN)
    assert names(client.reload(path)) == ["lan", "wan"]
    assert names(client.waitSystemUp()) == ["lan", "wan"]


def test_from_another_process(write: Write, listening: main.Listening, home: Path) -> None:
    write("network", LAN)
    assert names(ask(home, "reloadAll")) == ["lan"]
    write("network", WAN)
    assert names(ask(home, "reload", "network")) == ["wan"]
    assert names(ask(home, "waitSystemUp")) == ["wan"]


def test_the_socket_is_for_its_owner_alone_and_goes_with_the_service(dry: ConfigManager) -> None:
    listening = main.listen(dry)
    path = Path(wire.socket_path())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert wire.ask(str(path), "Test", []) is True
    listening.close()
    assert not path.exists() and main.ConfigService.configManager is None


def test_a_second_service_is_refused_and_a_dead_ones_socket_is_replaced(dry: ConfigManager) -> None:
    path = Path(wire.socket_path())
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    listening = main.listen(dry)
    try:
        with pytest.raises(OSError, match="another pdconfd does"):
            main.listen(dry)
        assert wire.ask(str(path), "Test", []) is True
    finally:
        listening.close()


@pytest.mark.parametrize("request_line", [
    b"", b"\n", b"nonsense\n", b"[]\n", b'{"method": "Reload"}\n', b'{"method": "__init__", "arguments": []}\n',
    b'{"method": "Reload", "arguments": [1]}\n', b'{"method": "Test", "arguments": ["x"]}\n', b"x" * 70_000 + b"\n",
])
def test_a_bad_request_gets_an_error(listening: main.Listening, request_line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(wire.socket_path())
        connection.sendall(request_line)
        connection.shutdown(socket.SHUT_WR)
        try:
            answer = connection.makefile("rb").readline()
        except ConnectionResetError:
            return  # it had more to say than we read
    assert "error" in json.loads(answer)


def test_a_request_that_does_not_end_is_dropped(dry: ConfigManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire._Handler, "timeout", 0.2)
    listening = main.listen(dry)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(wire.socket_path())
            connection.sendall(b'{"method"')
            assert connection.recv(100) == b""
        assert wire.ask(wire.socket_path(), "Test", [], timeout=5) is True
    finally:
        listening.close()


def test_waiting_does_not_keep_others_waiting(dry: ConfigManager, write: Write, home: Path) -> None:
    write("network", LAN)
    listening = main.listen(dry)
    try:
        future = client.callDeferredMethod("WaitSystemUp")
        assert client.callDeferredMethod("Test").result(10) is True
        assert not future.done()
        assert names(client.reloadAll()) == ["lan"] == names(future.result(10))
    finally:
        listening.close()


def test_unloading_on_demand(dry: ConfigManager, write: Write) -> None:
    write("network", LAN)
    listening = main.listen(dry)
    try:
        client.reloadAll()
        assert client.Blocking(client.callDeferredMethod("UnloadAll")).wait(10) is True
        assert names(dry.statusString()) == []
    finally:
        listening.close()


def test_blocking() -> None:
    good: Future[str] = Future()
    threading.Timer(0.05, good.set_result, ["done"]).start()
    assert client.Blocking(good).wait() == "done"
    bad: Future[str] = Future()
    bad.set_exception(OSError("no"))
    assert client.Blocking(bad).wait() is None
    assert client.Blocking(Future()).wait(timeout=0.01) is None
    held = client.Blocking(Future())
    held.unlock("at last")
    assert held.wait() == "at last"


def start(home: Path, router: Namespace, how: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([*router.prefix, sys.executable, "-c", SERVE, str(home), how])


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_alone_it_loads_answers_and_leaves_nothing(write: Write, home: Path, router: Namespace) -> None:
    before = router.state()
    router.run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth2")
    write("network", "config interface lan\n option proto static\n option ifname eth1\n option ipaddr 10.0.0.1\n"
                     " option netmask 255.0.0.0\n")
    write("dhcp", "config dnsmasq\nconfig dhcp lan\n option interface lan\n")
    with start(home, router, "socket") as process:
        wait_for(Path(wire.socket_path()).exists)
        status = json.loads(ask(home, "waitSystemUp"))
        assert [entry["success"] for entry in status] == [True, True, True]
        assert "dnsmasq" in router.processes()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    router.run("ip", "link", "del", "eth1")
    assert router.state() == before


BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={path}/bus</listen>
  <policy context="default">
    <allow user="*"/> <deny own="*"/> <deny send_type="method_call"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow receive_type="method_call"/> <allow receive_type="method_return"/>
    <allow receive_type="error"/> <allow receive_type="signal"/>
  </policy>
  <include>{policy}</include>
</busconfig>
"""


@pytest.fixture
def system_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A system bus of our own, as strict as the real one, with the policy file that ships."""
    pytest.importorskip("dbus_fast")
    if shutil.which("dbus-daemon") is None:
        pytest.skip("not installed: dbus-daemon")
    conf = tmp_path / "bus.conf"
    conf.write_text(BUS.format(path=tmp_path, policy=Path(bus.__file__).with_name("com.paradrop.config.conf")))
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
    with subprocess.Popen(["dbus-daemon", f"--config-file={conf}", "--nofork"]) as process:
        wait_for((tmp_path / "bus").exists)
        yield tmp_path
        process.terminate()


def test_over_dbus(system_bus: Path, write: Write, dry: ConfigManager, home: Path) -> None:
    write("network", LAN)
    listening = main.listen(dry, dbus=True)
    try:
        assert names(ask(home, "reloadAll", bus=True)) == ["lan"]
        write("network", WAN)
        assert names(client.reload("network", dbus=True)) == ["wan"]
        assert names(client.waitSystemUp(dbus=True)) == ["wan"]
        assert bus.ask("Test", [], 10) is True
        assert bus.ask("UnloadAll", [], 10) is True
        with pytest.raises(ParadropError, match="InvalidArgs"):
            bus.ask("Reload", [], 10)
        with pytest.raises(ParadropError, match="UnknownMethod|UnknownObject"):
            bus.ask("Nonsense", [], 10)
        with pytest.raises(ParadropError, match="has an owner"):
            bus.Bus(main.ConfigService.dbusInterfaces[0], lambda *_: None)
    finally:
        listening.close()
    assert client.reloadAll(dbus=True) is None


def test_dbus_send_understands_us(system_bus: Path, write: Write, dry: ConfigManager) -> None:
    if shutil.which("dbus-send") is None:
        pytest.skip("not installed: dbus-send")
    write("network", LAN)
    listening = main.listen(dry, dbus=True)
    try:
        done = subprocess.run(["dbus-send", "--system", "--print-reply", "--dest=com.paradrop.config", "/",
                               "com.paradrop.config.Reload", "string:network"],
                              capture_output=True, text=True, timeout=20)
        assert done.returncode == 0 and '"name": "lan"' in done.stdout, done.stderr
        done = subprocess.run(["dbus-send", "--system", "--print-reply=literal", "--dest=com.paradrop.config", "/",
                               "org.freedesktop.DBus.Introspectable.Introspect"],
                              capture_output=True, text=True, timeout=20)
        methods = ElementTree.fromstring(done.stdout.strip()).findall("interface[@name='com.paradrop.config']/method")
        assert [method.get("name") for method in methods] == ["Reload", "ReloadAll", "Test", "UnloadAll",
                                                              "WaitSystemUp"]
    finally:
        listening.close()


def test_another_user_can_neither_call_over_dbus_nor_over_the_socket(
        system_bus: Path, dry: ConfigManager, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to be somebody else")
    listening = main.listen(dry, dbus=True)
    Path(wire.socket_path()).chmod(0o777)
    try:
        pid = os.fork()
        if pid == 0:
            os.setuid(65534)
            outcome = 0
            for attempt in (lambda: bus.ask("Test", [], 5), lambda: wire.ask(wire.socket_path(), "Test", [], 5)):
                try:
                    attempt()
                    outcome = 1
                except (ParadropError, OSError):
                    pass
            os._exit(outcome)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        listening.close()


def test_no_bus_is_said_and_leaves_no_socket(dry: ConfigManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    with pytest.raises(ParadropError, match=r"cannot offer com\.paradrop\.config"):
        main.listen(dry, dbus=True)
    assert client.reloadAll(dbus=True) is None
    main.listen(dry).close()


def test_dbus_is_not_imported_unless_asked_for() -> None:
    code = "import sys, paradrop.backend.pdconfd.client; sys.exit('dbus_fast' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
