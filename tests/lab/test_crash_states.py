"""From whatever a power cut leaves of an upgrade's writes, the router boots into a complete release."""

import re
from pathlib import Path

import pytest

from .verbs import lab

pytestmark = pytest.mark.slow
# Scenes and samples for each file system: ext4 stands for all in what the others would only show again.
SEEN = {"ext4": (["install", "rollback", "clean", "spare"], 1), "xfs": (["install"], 0), "btrfs": (["install"], 1),
        "f2fs": (["install"], 0), "overlay": (["install"], 0)}
SUMMARY = re.compile(r"(\w+) ([\w-]+): (\d+) states, seed 1: (\d+) not well, \d+ repaired at boot; [\d.]+ s each")


def counts(output: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Return how many states there were and how many were not well, by file system and scene."""
    return {(name, scene): (int(states), int(bad)) for name, scene, states, bad in SUMMARY.findall(output)}


@pytest.mark.parametrize("name", SEEN)
def test_every_state_boots_into_a_complete_release(name: str) -> None:
    scenes, samples = SEEN[name]
    done = lab("crash-states", "-f", name, "--samples", str(samples), *(f"--scene={scene}" for scene in scenes))

    assert done.returncode == 0, done.stdout + done.stderr
    if skipped := re.fullmatch(r"\w+: skipped: (.*)\n", done.stdout):
        pytest.skip(skipped[1])
    seen = counts(done.stdout)
    assert {key: bad for key, (_, bad) in seen.items()} == {(name, scene): 0 for scene in scenes}
    assert all(states > 8 for states, _ in seen.values())


@pytest.mark.lab
def test_the_long_set(capsys: pytest.CaptureFixture[str]) -> None:
    done = lab("crash-states", "-f", "all", seconds=3600)

    with capsys.disabled():
        print(f"\n{done.stdout}", end="")
    bad = [line for line in done.stdout.splitlines() if not SUMMARY.match(line) and ": skipped: " not in line]
    assert len(counts(done.stdout)) > 40 and len(bad) == sum(lost for _, lost in counts(done.stdout).values())
    # the one that powercut.rst tells of: a disk that tears btrfs' superblock
    assert not bad or [re.sub(r"flush .*: torn, sample \d+", "…", line) for line in bad] == [
        "btrfs confirm: after …: on trial is fw-6, not nothing"]


def test_without_syncs_acknowledged_upgrades_are_lost_and_releases_broken() -> None:
    done = lab("crash-states", "-f", "ext4", "-f", "btrfs", "--scene", "install", "--samples", "0", "--without-sync")

    assert done.returncode == 1
    assert re.search(r"cannot call this safe: \d+ of \d+ crash states left a router that is not well", done.stderr)
    seen = counts(done.stdout)
    assert set(seen) == {("ext4", "install"), ("btrfs", "install")}
    assert all(bad > 0 for _, bad in seen.values())
    assert re.search(r"ext4 install: mark done .*: acknowledged, but current is fw-3 and not fw-4", done.stdout)
    assert re.search(r"ext4 install: flush .*opt/fw-4: cannot read the manifest", done.stdout)


LOST = "acknowledged, but current is fw-3 and not fw-2"
BROKEN = "cannot verify /mnt/ext4/disk/opt/failsafe: cannot read the manifest"


@pytest.mark.parametrize(("point", "name", "scene", "problem"), [
    ("swap_link:directory", "ext4", "swap", LOST),
    ("publish:filesystem", "ext4", "first-failsafe", BROKEN),
    ("clean:directory", "ext4", "clean", "acknowledged, but notes is there again"),
    pytest.param("make_failsafe:filesystem", "ext4", "failsafe", BROKEN, marks=pytest.mark.lab),
    pytest.param("replace_file:directory", "ext4", "confirm", "on trial is fw-6, not nothing", marks=pytest.mark.lab),
    pytest.param("replace_file:file", "btrfs", "trial", "on trial is None, not fw-6", marks=pytest.mark.lab),
])
def test_without_a_single_sync_the_promise_it_is_for_is_broken(point: str, name: str, scene: str, problem: str) -> None:
    done = lab("crash-states", "-f", name, "--scene", scene, "--samples", "0", "--without", point)

    assert done.returncode == 1, done.stdout + done.stderr
    assert problem in done.stdout
    assert counts(done.stdout)[name, scene][1] > 0


def test_a_recording_has_the_same_states_each_time(tmp_path: Path) -> None:
    (tmp_path / "ext4-clean.partial").mkdir()  # one that was killed
    words = ("crash-states", "--scene", "clean", "--samples", "1", "--verbose", "--recording", str(tmp_path))
    first, second = lab(*words), lab(*words)

    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "ext4-clean", "ext4-clean/disk", "ext4-clean/log"]
    lines = [[line for line in done.stdout.splitlines() if "states" not in line] for done in (first, second)]
    assert lines[0] == lines[1] and len(lines[0]) > 10
