"""Whatever is killed, at whichever write: ``current`` is a complete release, and the next run succeeds."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fussy import state, verify
from fussy.target import Target, find
from tests.crash.killing import copy, kill_at, points, run
from tests.fussy.conftest import Keys
from tests.fussy.firmware import Firmware

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")]

HOOK = "#!/bin/sh\necho \"$FUSSY_HOOK $1 $2\" >> \"$FUSSY_TARGET/.fussy/hooks.log\"\n"
FAILS = HOOK + "[ \"$2\" = True ]\n"


@dataclass(frozen=True)
class Scene:
    """What is there before, what is run and how it ends; what may be current ("": nothing) after a kill and a boot
    (``settled``; right after the kill too), and after a kill and the next run (``done``, with exit codes ``again``)."""

    prepare: Callable[[Firmware], object]
    command: Callable[[Firmware], list[str]]
    code: int
    settled: set[str]
    done: set[str]
    again: tuple[int, ...] = ()


def release(firmware: Firmware, name: str, post: str = HOOK) -> Path:
    number = name[-1]
    files = {"bin/app": f"app {number}", "lib/same": "same" * 3000, "etc/conf": "conf", ".pre-install": HOOK,
             ".post-install": post}
    tree = firmware.tree(name, files)
    os.link(tree / "lib/same", tree / "lib/again")
    (tree / "link").symlink_to("bin/app")
    return firmware.pack_tree(tree)


def install(name: str, post: str = HOOK) -> Callable[[Firmware], list[str]]:
    return lambda firmware: ["install", str(release(firmware, name, post)), "-k", str(firmware.keys.keyring)]


def installed(*names: str) -> Callable[[Firmware], object]:
    return lambda firmware: [firmware.install(release(firmware, name)) for name in names]


def delta(firmware: Firmware) -> list[str]:
    """Install fw-2 by what it has more than fw-1."""
    release(firmware, "fw-2")
    made = firmware.pack_tree(firmware.place / "trees/fw-2", base=firmware.target / "fw-1")
    return ["install", str(made), "-k", str(firmware.keys.keyring)]


def directory_called_current(firmware: Firmware) -> None:
    (firmware.target / "current").mkdir(parents=True)
    (firmware.target / "current/old").write_text("old")


SCENES = {
    "first install": Scene(lambda firmware: None, install("fw-1"), 0, {"", "fw-1"}, {"fw-1", "fw-1-1"}),
    "upgrade": Scene(installed("fw-1"), install("fw-2"), 0, {"fw-1", "fw-2"}, {"fw-2", "fw-2-1"}),
    "delta": Scene(installed("fw-1"), delta, 0, {"fw-1", "fw-2"}, {"fw-2", "fw-2-1"}),
    "fallback": Scene(installed("fw-1"), install("fw-2", FAILS), 3, {"fw-1", "fw-2"}, {"fw-1"}),
    # a rollback that recovery has finished is refused: that release is current already
    "rollback": Scene(installed("fw-1", "fw-2"), lambda firmware: ["rollback", "fw-1"], 0, {"fw-1", "fw-2"}, {"fw-1"},
                      again=(1,)),
    "clean": Scene(installed("fw-1", "fw-2", "fw-3"), lambda firmware: ["clean"], 0, {"fw-3"}, {"fw-3"}),
    "failsafe": Scene(installed("fw-1"), lambda firmware: ["failsafe"], 0, {"fw-1"}, {"fw-1"}),
    "directory": Scene(directory_called_current, install("fw-2"), 0, {"current", "failsafe", "fw-2"},
                       {"fw-2", "fw-2-1"}),
}


def complete(target: Target) -> str:
    """Return the name of the current release after checking that it is whole, "" when there is none."""
    if not os.path.lexists(target.current):
        return ""
    if (target.current / "old").exists():  # the release without a manifest
        assert (target.current / "old").read_text() == "old"
        return os.path.basename(os.path.realpath(target.current)).replace("current~", "failsafe")
    current = target.current_release()
    assert current is not None, f"current leads nowhere: {os.readlink(target.current)}"
    assert verify.damage(current) == []
    return current.name


@pytest.mark.parametrize("name", SCENES)
def test_killed_at_every_write(name: str, tmp_path: Path, keys: Keys) -> None:
    scene = SCENES[name]
    firmware = Firmware(tmp_path, keys)
    scene.prepare(firmware)
    template = tmp_path / "template"
    copy(firmware.target, template)
    options = ["-t", str(firmware.target), "-l", str(tmp_path / "log")]
    command = scene.command(firmware) + options
    run(command)  # compiles what is imported, so that the calls of all runs are the same
    copy(template, firmware.target)
    all_points = points(command, firmware.target, tmp_path / "strace.log", (scene.code,))
    assert len(all_points) > 10
    killed = 0
    for point in all_points:
        copy(template, firmware.target)
        killed += kill_at(command, point)
        if not firmware.target.exists():
            continue
        target = find(firmware.target)
        where = f"killed at {point.text}"
        assert complete(target) in scene.settled, where
        if point.count % 2:
            assert run(["recover", *options]) == 0, where
            assert complete(target) in scene.settled, where
            assert not target.staging.exists() or not os.listdir(target.staging), where
        else:
            assert run(command) in (scene.code, *scene.again), where
            assert complete(target) in scene.done, where
        assert state.load(target).transaction is None, where
    assert killed >= len(all_points) * 0.95, f"only {killed} of {len(all_points)} kills took place"
