"""Whatever is killed, at whichever write: ``current`` is a complete release, and the next run succeeds."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fussy import checked, manifest, state, verify
from fussy.target import Target, find
from tests.crash.killing import copy, fail_at, kill_at, points, run
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


def delta(old: str, new: str) -> Callable[[Firmware], list[str]]:
    """Install NEW by what it has more than OLD, which is there."""
    def command(firmware: Firmware) -> list[str]:
        release(firmware, new)
        made = firmware.pack_tree(firmware.place / "trees" / new, base=firmware.target / old)
        return ["install", str(made), "-k", str(firmware.keys.keyring)]

    return command


def spare(firmware: Firmware) -> None:
    """Install three releases and clean, so that the next can be made out of what is left of the first."""
    installed("fw-1", "fw-2", "fw-3")(firmware)
    firmware.run("clean")


def directory_called_current(firmware: Firmware) -> None:
    (firmware.target / "current").mkdir(parents=True)
    (firmware.target / "current/old").write_text("old")


SCENES = {
    "first install": Scene(lambda firmware: None, install("fw-1"), 0, {"", "fw-1"}, {"fw-1", "fw-1-1"}),
    "upgrade": Scene(installed("fw-1"), install("fw-2"), 0, {"fw-1", "fw-2"}, {"fw-2", "fw-2-1"}),
    "delta": Scene(installed("fw-1"), delta("fw-1", "fw-2"), 0, {"fw-1", "fw-2"}, {"fw-2", "fw-2-1"}),
    "spare": Scene(spare, delta("fw-3", "fw-4"), 0, {"fw-3", "fw-4"}, {"fw-4", "fw-4-1"}),
    "fallback": Scene(installed("fw-1"), install("fw-2", FAILS), 3, {"fw-1", "fw-2"}, {"fw-1"}),
    # a rollback that recovery has finished is refused: that release is current already
    "rollback": Scene(installed("fw-1", "fw-2"), lambda firmware: ["rollback", "fw-1"], 0, {"fw-1", "fw-2"}, {"fw-1"},
                      again=(1,)),
    "clean": Scene(installed("fw-1", "fw-2", "fw-3", "fw-4"), lambda firmware: ["clean"], 0, {"fw-4"}, {"fw-4"}),
    "failsafe": Scene(installed("fw-1"), lambda firmware: ["failsafe"], 0, {"fw-1"}, {"fw-1"}),
    "directory": Scene(directory_called_current, install("fw-2"), 0, {"current", "failsafe", "fw-2"},
                       {"fw-2", "fw-2-1"}),
}


def fresh(template: Path, target: Path) -> None:
    """Make TARGET a copy of TEMPLATE, in which the files that are known to be whole are known by their new inodes."""
    copy(template, target)
    if (target / ".fussy/spare").exists():
        root = target / "current"
        checked.save(find(target), [checked.record(os.lstat(root / entry.path), entry.identity())
                                    for entry in manifest.stored_entries(root / ".fussy/manifest.json")
                                    if entry.type == "file"])


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
    fresh(template, firmware.target)
    all_points = points(command, firmware.target, tmp_path / "strace.log", (scene.code,))
    assert len(all_points) > 10
    assert any("/spare" in point.text for point in all_points) == (name in ("spare", "clean"))
    killed = 0
    for point in all_points:
        fresh(template, firmware.target)
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
        assert all(verify.damage(other) == [] for other in target.releases() if (other / ".fussy").exists()), where
    assert killed >= len(all_points) * 0.95, f"only {killed} of {len(all_points)} kills took place"


def test_a_full_disk_in_the_middle_of_a_spare(tmp_path: Path, keys: Keys) -> None:
    firmware = Firmware(tmp_path, keys)
    spare(firmware)
    copy(firmware.target, tmp_path / "template")
    options = ["-t", str(firmware.target), "-l", str(tmp_path / "log")]
    command = delta("fw-3", "fw-4")(firmware) + options
    run(command)  # compiles what is imported, so that the calls of all runs are the same
    fresh(tmp_path / "template", firmware.target)
    takes_space = ("mkdir", "openat", "write", "link", "linkat", "symlink")
    writes = [point for point in points(command, firmware.target, tmp_path / "strace.log")
              if point.syscall in takes_space and "/staging/tree" in point.text]
    assert len(writes) >= 5
    target = find(firmware.target)
    for point in writes:
        fresh(tmp_path / "template", firmware.target)
        done = fail_at(command, point, "ENOSPC")
        assert done.code == 23, point.text + done.said
        assert complete(target) == "fw-3" and verify.damage(target.release("fw-2")) == []
        assert os.listdir(target.staging) == [] and not target.spare.exists()
    assert run(command) == 0
    assert complete(target) == "fw-4"
