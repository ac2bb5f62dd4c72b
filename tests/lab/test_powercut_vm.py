"""A virtual router loses power in every stage of upgrades, again and again, and boots into a complete release."""

import re
import time

import pytest

from pdimage.lab import plugin

from .verbs import lab

pytestmark = pytest.mark.lab
# The router's kernel has all of them, this machine's may not.
FILESYSTEMS = ["ext4", "xfs", "btrfs", "f2fs", "overlay"]
SUMMARY = re.compile(r"^(\w+): (\d+) cuts, seeds \d+ to \d+: (\d+) not well, .*; [\d.]+ s each$", re.MULTILINE)


@pytest.fixture(autouse=True)
def machines() -> None:
    if reason := plugin.missing():
        pytest.skip(reason)


def test_power_goes_in_every_stage_of_going_back_and_of_cleaning() -> None:
    done = lab("powercut", "--router", "--planned", "--scene", "fallback", "--scene", "clean", seconds=600)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ext4: 10 cuts, seeds 1 to 10: 0 not well, "), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("what", [("--planned",), ("--cuts", "20", "--seed", str(int(time.time())))],
                         ids=["every stage", "random moments"])
def test_the_long_set(what: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    done = lab("powercut", "--router", "-f", "all", *what, seconds=3600)

    with capsys.disabled():
        print(f"\n{done.stdout}", end="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [(name, bad) for name, _, bad in SUMMARY.findall(done.stdout)] == [(name, "0") for name in FILESYSTEMS]


@pytest.mark.slow
def test_without_one_sync_what_was_acknowledged_is_lost_there_too() -> None:
    plan = "powercut --router -f ext4 --scene swap --at 100000 --policy none --seed 1"
    done = lab(*plan.split(), "--without", "swap_link:directory", seconds=600)

    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith(f"ext4: acknowledged, but current is fw-3 and not fw-2: pdimage lab {plan}\n")
    assert "cannot call this safe: 1 of 1 power cuts left a router that is not well" in done.stderr
