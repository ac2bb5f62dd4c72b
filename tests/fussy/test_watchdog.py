"""The hardware watchdog during a trial. A pipe takes its place: what is written to it is what a watchdog would get."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fussy import watchdog
from fussy.errors import FussyError, Reverted

from .conftest import Keys
from .firmware import Firmware


class Device:
    """A named pipe that stands for /dev/watchdog."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self.end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def got(self) -> bytes:
        """Return what was written since the last time; it is open when that is asked."""
        try:
            return os.read(self.end, 4096)
        except BlockingIOError:
            return b""

    def wait(self, count: int = 1) -> None:
        end = time.monotonic() + 60
        had = 0
        while had < count:
            had += len(self.got())
            assert time.monotonic() < end
            time.sleep(0.02)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path / "watchdog")
    yield made
    os.close(made.end)


@pytest.fixture
def firmware(tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch, device: Device) -> Firmware:
    """A device whose owner names the watchdog, and on which fw-1 runs."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/trial.toml").write_text(f'confirm = "hand"\nwatchdog = "{device.path}"\n')
    monkeypatch.setenv("FUSSY_ETC", str(tmp_path / "etc"))
    made = Firmware(tmp_path, keys)
    made.install(made.pack("fw-1", {"a": "1"}))
    device.got()
    return made


def test_it_is_fed_and_stopped(device: Device) -> None:
    with watchdog.held(str(device.path), 60):
        device.wait(2)
        with watchdog.held(str(device.path), 60):
            pass
        device.wait()  # the inner one was left to the outer one
    assert device.got().endswith(b"V")


def test_it_is_fed_no_longer_than_allowed(device: Device) -> None:
    with watchdog.held(str(device.path), 0.1) as prolong:
        time.sleep(1.2)
        assert device.got() == b"\0"
        prolong(60)
        time.sleep(1.2)
        assert device.got() == b""  # the board is about to reset itself; nothing can be taken back


def test_only_what_is_decided_stops_it(device: Device) -> None:
    with pytest.raises(FussyError), watchdog.held(str(device.path), 60):
        raise FussyError("told to the operator")
    assert device.got().endswith(b"V")
    with pytest.raises(ZeroDivisionError), watchdog.held(str(device.path), 60):
        raise ZeroDivisionError
    assert b"V" not in device.got()


def test_it_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    with watchdog.held("", 60), watchdog.held(str(tmp_path / "none"), 60):
        pass
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "No such file" in caplog.text
    caplog.clear()
    monkeypatch.setattr(watchdog, "_never_stops", lambda device: True)
    with watchdog.held("/dev/null", 60):
        pass
    assert "it can't be stopped (nowayout)" in caplog.text


def test_hooks_and_checks_run_under_it(firmware: Firmware, device: Device) -> None:
    fails = f"#!/bin/sh\nsleep 1.5; [ -p {device.path} ]; exit 1\n"
    with pytest.raises(Reverted):
        firmware.install(firmware.pack("fw-2", {".post-install": fails}))
    fed = device.got()
    assert fed.count(b"\0") >= 2 and fed.endswith(b"V")


def test_an_install_that_is_killed_leaves_it_running(firmware: Firmware, device: Device) -> None:
    bundle = firmware.pack("fw-2", {".post-install": "#!/bin/sh\nexec sleep 60\n"})
    process = firmware.popen("install", bundle)
    device.wait(2)
    process.kill()
    process.wait()
    assert b"V" not in device.got()


@pytest.mark.parametrize("end", ["confirm", "reject", "stop", "kill"])
def test_it_is_held_until_the_trial_has_ended(firmware: Firmware, device: Device, end: str) -> None:
    firmware.install(firmware.pack("fw-2", {"a": "2"}))
    assert device.got().endswith(b"V")
    process = firmware.popen("trial", "--hold", "--pause", "0.3")
    device.wait(3)
    if end in ("confirm", "reject"):
        while firmware.popen(end).wait() == 5:  # a round of checks has the lock
            time.sleep(0.05)
    else:
        process.send_signal(signal.SIGTERM if end == "stop" else signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if end == "kill" else 0), output
    assert device.got().endswith(b"V") == (end != "kill")
    assert threading.active_count() == 1
