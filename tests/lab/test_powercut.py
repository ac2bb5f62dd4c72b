"""Power is cut again and again in the middle of upgrades: the router is well each time. Nothing of it stays behind."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pdimage.lab.powercut import Plan, drawn

from .verbs import check_machine, lab

CUTS = 20


@pytest.mark.slow
def test_the_router_is_well_after_every_power_cut() -> None:
    done = lab("powercut", "--cuts", str(CUTS), "--seed", "1", "--filesystem", "ext4")

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"ext4: {CUTS} cuts, seeds 1 to {CUTS}: 0 not well, "), done.stdout


@pytest.mark.lab
@pytest.mark.slow
def test_the_long_set(capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(time.time())
    done = lab("powercut", "--cuts", "130", "--seed", str(seed), "--filesystem", "all", seconds=3600)

    with capsys.disabled():
        print(f"\n{done.stdout}", end="")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_without_syncs_it_is_not_and_the_line_printed_does_it_again(tmp_path: Path) -> None:
    plan = "powercut --without-sync -f ext4 --scene first --at 100000 --policy none --seed 1"
    outcome = f"ext4: the target is gone: pdimage lab {plan}\n"
    for keep in (tmp_path / "one", tmp_path / "other"):
        failed = lab(*plan.split(), "--keep", str(keep))

        assert failed.returncode == 1, failed.stdout + failed.stderr
        assert failed.stdout.startswith(outcome), failed.stdout
        assert "cannot call this safe: 1 of 1 power cuts left a router that is not well" in failed.stderr
        assert [path.name for path in keep.iterdir()] == ["ext4-first-1.image"]


def test_a_boot_repairs_a_torn_superblock() -> None:
    # the first write is the superblock, by the mount; this seed leaves one of its two sectors
    done = lab("powercut", "-f", "ext4", "--scene", "first", "--at", "1", "--policy", "torn", "--seed", "1")

    assert done.stdout.startswith("ext4: 1 cuts, seeds 1 to 1: 0 not well, 0 after the end, 1 repaired at boot; ")
    assert done.returncode == 0


def test_a_second_cut_may_come_in_a_boot_before_anything_is_installed() -> None:
    done = lab("powercut", "--scene", "first", "--at", "1", "--policy", "all", "--seed", "1", "--again", "5")

    assert done.stdout.startswith("ext4: 1 cuts, seeds 1 to 1: 0 not well, 0 after the end, "), done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize(("options", "line"), [
    ((), "cannot mount file systems: run as root\n"),
    (("--router",), "cannot start an environment: unshare: unshare failed: Operation not permitted; "
                    "be root on a kernel with process and network namespaces\n")])
def test_without_root_one_line_says_so(options: tuple[str, ...], line: str) -> None:
    # whoever is in a user namespace without any ids is nobody
    done = subprocess.run(["unshare", "--user", sys.executable, "-m", "pdimage", "lab", "powercut", *options],
                          capture_output=True, text=True, timeout=300, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (40, "", f"pdimage lab powercut: {line}")


def test_a_seed_is_a_plan() -> None:
    lengths = {"install": 70, "rollback": 30, "clean": 8}
    plans = [drawn(seed, lengths) for seed in range(1000)]

    assert plans == [drawn(seed, lengths) for seed in range(1000)]
    assert {plan.scene for plan in plans} == set(lengths)
    assert {plan.policy for plan in plans} == {"none", "all", "prefix", "subset", "torn"}
    assert {plan.at for plan in plans if plan.scene == "clean"} == set(range(1, 10)), "one of nine after the end"
    assert 200 < sum(plan.again > 0 for plan in plans) < 400
    assert Plan("clean", 3, "torn", 7, again=2).words() == "--scene clean --at 3 --policy torn --seed 7 --again 2"


def ours(token: str) -> dict[str, str]:
    """Return the processes that have TOKEN in their environment, with their command lines."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if token.encode() in (process / "environ").read_bytes():
                found[process.name] = (process / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or not ours
            continue
    return found


def loops(mounts: str) -> dict[str, str]:
    """Return the loop devices in a mount table, with the number that each got when it was last attached to a file."""
    return {name: Path(f"/sys/block/{name}/diskseq").read_text() for name in re.findall(r"/dev/(loop\d+)", mounts)}


def attached(loop: str, number: str) -> bool:
    """Whether a loop device is still attached as it was."""
    device = Path("/sys/block") / loop
    return (device / "loop/backing_file").exists() and (device / "diskseq").read_text() == number


def in_the_middle(token: str) -> dict[str, str]:
    """Wait until an upgrade runs on a disk that is mounted, and return its loop devices."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        running = ours(token)
        installs = [pid for pid, line in running.items() if "\0install\0" in line]
        if installs and any("qemu-storage-daemon" in line for line in running.values()):
            with suppress(OSError):
                if found := loops(Path(f"/proc/{installs[0]}/mountinfo").read_text()):
                    return found
        time.sleep(0.01)
    raise AssertionError(f"no upgrade runs: {ours(token)}")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_stays_when_it_is_killed_in_mid_run(number: signal.Signals) -> None:
    check_machine()
    token = f"POWERCUT_TEST={os.getpid()}-{number}"
    there = set(Path("/mnt").iterdir())
    command = [sys.executable, "-m", "pdimage", "lab", "powercut", "--scene", "first", "--cuts", "1000"]
    runner = subprocess.Popen(command, env={**os.environ, **dict([token.split("=")])}, stdout=subprocess.DEVNULL)
    try:
        devices = in_the_middle(token)
        runner.send_signal(number)
        assert runner.wait(10) == -number
        deadline = time.monotonic() + 10
        while (ours(token) or any(attached(*each) for each in devices.items())) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ours(token) == {}
        assert [loop for loop, attachment in devices.items() if attached(loop, attachment)] == []
        assert not re.search(r" /mnt/ext4|private", Path("/proc/self/mountinfo").read_text())
        assert set(Path("/mnt").iterdir()) == there
    finally:
        runner.kill()
        runner.wait()
