"""Whatever is killed while a release is put on trial, confirmed, rejected, taken back at boot or mended, at any write,
and wherever the disk is full: a complete release is in use, and after a boot all ends as if nothing had happened.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from fussy import check, cli, state, uptime, verify
from fussy.target import Target, find
from tests.crash.killing import Point, copy, fail_at, kill_at, points
from tests.fussy.conftest import Keys
from tests.fussy.firmware import Firmware
from tests.fussy.test_trial import Life

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")]

# What lies there is never read again: files being made are thrown away, the pid in a lock is for people.
IDLE = re.compile(r"/\.fussy/staging/(tree|\d)|/lock>")
TRIAL = {"trial": {"confirm": "boot", "seconds": 1e6, "boots": 2}, "version": "2", "floor": "2"}
HOOK = "#!/bin/sh\necho \"$FUSSY_HOOK $2\" >> \"$FUSSY_TARGET/.fussy/hooks.log\"\n"
DEAD = "#!/bin/sh\n[ $2 = False ] || [ ${1##*/} = failsafe ]\n"
WELL = {"name": "app", "command": ["cat", "state"], "contains": "well", "seconds": 0.1}


class Device(Firmware):
    """A device with fw-1 and a failsafe; its LIFE is the test's to say."""

    def __init__(self, place: Path, keys: Keys, life: Life) -> None:
        super().__init__(place, keys)
        self.life = life
        self.options = ["-t", str(self.target), "-l", str(place / "log")]

    def first(self, hook: str = HOOK) -> None:
        self.install(self.pack("fw-1", {"app": "1", "same": "same" * 3000, ".post-install": hook}, version="1"))
        self.do("failsafe")

    def second(self, **described: object) -> Path:
        files = {"app": "2", "state": "well", "same": "same" * 3000, ".post-install": HOOK}
        return self.pack("fw-2", files, release={**TRIAL, **described})

    def do(self, *command: str, codes: tuple[int, ...] = (0,)) -> None:
        """Run a command in this process; CODES are the exit codes that it may have."""
        done = CliRunner().invoke(cli.fussy_command, [*command, *self.options])
        assert done.exit_code in codes, (command, done.exit_code, done.output)

    def boot(self) -> None:
        """Boot as the units of fussy/boot do."""
        self.life.boot()
        self.do("recover", "--early")
        self.do("recover")


def on_trial(device: Device) -> None:
    device.first()
    device.install(device.second())


def booted(device: Device) -> None:
    on_trial(device)
    device.boot()


def ill(device: Device) -> None:
    device.first()
    device.install(device.second(health=[WELL]))
    (device.target / "fw-2/state").write_text("ill!")
    device.life.boot()


def both_bad(device: Device) -> None:
    device.first(DEAD)
    device.install(device.second())


def third_boot(device: Device) -> None:
    booted(device)
    device.boot()
    device.life.boot()


def led_back(device: Device) -> None:
    third_boot(device)
    device.do("recover", "--early")


def two(device: Device) -> None:
    device.first()
    device.install(device.pack("fw-2", {"app": "2", ".post-install": HOOK}))


def rotten(device: Device) -> None:
    """Files of both releases, one of them shared, and a manifest; all can be mended from the failsafe."""
    device.first()
    device.install(device.pack("fw-2", {"app": "2", "same": "same" * 3000, "new": "1"}))
    (device.target / "fw-2/same").write_text("rotten")
    (device.target / "fw-2/new").unlink()
    (device.target / "fw-1/.fussy/manifest.json").write_text("{}")
    (device.target / "fw-1/app").chmod(0o600)


@dataclass(frozen=True)
class Scene:
    """What is there before, what is run, how that ends; what may be current after a kill, and what in the end, after
    the command was run again, with any of the exit codes AGAIN, and how the last change is called then."""

    prepare: Callable[[Device], object]
    command: tuple[str, ...]
    code: int
    between: set[str]
    ends: set[str]
    outcomes: set[str]
    again: tuple[int, ...] = (0,)


SCENES = {
    "install": Scene(Device.first, ("install",), 0, {"fw-1", "fw-2"}, {"fw-2"}, {"on-trial"}, (0, 12)),
    "confirm": Scene(on_trial, ("confirm",), 0, {"fw-2"}, {"fw-2"}, {"confirmed"}, (0, 1)),
    "reject": Scene(on_trial, ("reject",), 0, {"fw-1", "fw-2"}, {"fw-1"}, {"reverted"}, (0, 1)),
    "both bad": Scene(both_bad, ("reject",), 0, {"fw-1", "fw-2", "failsafe"}, {"failsafe"}, {"failsafe"}, (0, 1)),
    "good checks": Scene(booted, ("trial",), 0, {"fw-2"}, {"fw-2"}, {"confirmed"}),
    "bad checks": Scene(ill, ("trial",), 3, {"fw-1", "fw-2"}, {"fw-1"}, {"reverted"}, (0, 3)),
    "third boot, early": Scene(third_boot, ("recover", "--early"), 0, {"fw-1", "fw-2"}, {"fw-1"}, {"reverted"}),
    "third boot, late": Scene(led_back, ("trial",), 0, {"fw-1"}, {"fw-1"}, {"reverted"}),
    "third boot": Scene(third_boot, ("recover",), 0, {"fw-1", "fw-2"}, {"fw-1"}, {"reverted"}),
    "rollback": Scene(two, ("rollback", "fw-1"), 0, {"fw-1", "fw-2"}, {"fw-1"}, {"rolled-back"}, (0, 1)),
    "repair": Scene(rotten, ("check", "--repair"), 0, {"fw-2"}, {"fw-2"}, {"installed"}),
}


@pytest.fixture
def device(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    life = Life()
    monkeypatch.setattr(uptime, "now", lambda: life.moment)
    # in memory, where syncs cost nothing: who is killed loses nothing that was not synced
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as place:
        monkeypatch.setenv("FUSSY_ETC", f"{place}/etc")
        yield Device(Path(place), keys, life)


def disturbed(scene: Scene, device: Device, calls: str) -> Iterator[tuple[list[str], Point]]:
    """Yield the command and each point of it, all as it was before, and look at what is left when it was disturbed."""
    scene.prepare(device)
    command = [*scene.command]
    if command == ["install"]:
        command += [str(device.second()), "-k", str(device.keys.keyring)]
    moment, template = device.life.moment, device.place / "template"
    copy(device.target, template)
    device.do(*command, codes=(scene.code,))
    copy(template, device.target)
    device.life.moment = moment
    for point in points([*command, *device.options], device.target, device.place / "strace", (scene.code,)):
        if IDLE.search(point.text) or not re.match(calls, point.syscall):
            continue
        device.life.moment = moment
        copy(template, device.target)
        yield [*command, *device.options], point
        target = find(device.target)
        release = target.current_release()
        assert release and release.name in scene.between, point
        assert scene.command[0] == "check" or verify.damage(release) in ([], ["'state' has other content"]), point
        device.boot()
        assert (now := target.current_release()) and now.name in scene.between, point
        device.do(*command, codes=scene.again)
        device.boot()
        ended(scene, target, point)


def ended(scene: Scene, target: Target, point: Point) -> None:
    now = state.load(target)
    current = target.current_release()
    assert current and current.name in scene.ends, point
    assert now.last and now.last.outcome in scene.outcomes, (point, now.last)
    assert now.transaction is None, point
    outcome = now.last.outcome
    assert (now.trial is not None) == (outcome == "on-trial"), point
    assert now.floor == ("2" if outcome == "confirmed" else ""), point
    refused = {"fw-2"} if outcome in ("reverted", "failsafe") else set()
    assert {bad.release for bad in now.bad if bad.refused} == refused, point
    assert {path.name for path in target.root.iterdir()} == {".fussy", "current", "failsafe", "fw-1", "fw-2"}, point
    assert [fault for fault in check.examine(target) if fault.entry.path != "state"] == [], point


@pytest.mark.parametrize("name", SCENES)
def test_killed_at_every_write(name: str, device: Device) -> None:
    killed = [kill_at(command, point) for command, point in disturbed(SCENES[name], device, "")]
    assert len(killed) >= 3
    assert all(killed), killed


@pytest.mark.parametrize("name", SCENES)
def test_a_full_disk_at_every_write(name: str, device: Device) -> None:
    """The failsafe will do where the way back to the previous release was cut off."""
    scene = SCENES[name]
    if "fw-1" in scene.between:
        scene = replace(scene, between={*scene.between, "failsafe"}, ends={*scene.ends, "failsafe"},
                        outcomes={*scene.outcomes, "failsafe"})
    for command, point in disturbed(scene, device, "openat|p?write|mkdir|rename|symlink|link$"):
        done = fail_at(command, point, "ENOSPC")
        assert done.code in (0, 3, 4, 23, 40), (point, done)
        assert done.code == 0 or ": cannot " in done.said.splitlines()[-1], (point, done)
