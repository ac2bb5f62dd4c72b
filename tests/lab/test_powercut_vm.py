"""A virtual router loses power in every stage of upgrades, again and again, and boots into a complete release."""

import re
import time
from pathlib import Path

import pytest

from pdimage.lab import plugin
from pdimage.lab.attended import READY, Machine
from pdimage.lab.moments import keep
from pdimage.lab.volatile import Disk, Kept, copy_file

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
    assert re.search(r"^ext4: 2 scenes recorded in \d+ s$", done.stdout, re.MULTILINE)


# Past the page cache, without a flush; then it is there, and a flush makes it durable.
WRITE = "head -c 8192 /dev/zero | tr '\\0' x >/run/x && dd if=/run/x of=/dev/vdc bs=4096 oflag=direct"
FLUSH = "cmp -n 8192 /run/x /dev/vdc && sync /dev/vdc"


def test_a_moment_keeps_what_was_not_flushed_and_a_flush_after_it_counts(tmp_path: Path) -> None:
    def disk(source: Path, kept: Kept | None = None) -> Disk:
        copy_file(source, tmp_path / "disk")
        return Disk(tmp_path / "disk", kept=kept)

    with Machine() as machine:
        before = disk(machine.blank)
        with machine.running(READY, following=before):
            machine.router.run(WRITE)
            kept = keep(machine.router, "written", before, tmp_path / "kept")
            assert [(write.offset, write.length) for write in kept.window] == [(0, 4096), (4096, 4096)]
            assert kept.writes == before.writes == 2
            assert [path.read_bytes()[:8192] for path in (kept.durable, before.path)] == [bytes(8192)] * 2
            machine.router.run(FLUSH)
            assert before.path.read_bytes()[:8192] == b"x" * 8192

        after = disk(kept.durable, kept)
        with machine.running("written", following=after):
            assert (after.writes, after.path.read_bytes()[:8192]) == (2, bytes(8192))
            machine.router.run(FLUSH)
            assert (after.writes, after.path.read_bytes()[:8192]) == (2, b"x" * 8192)


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
@pytest.mark.parametrize(("without", "plan", "problem"), [
    ("--without swap_link:directory", "--scene swap --at 100000 --policy none --seed 1",
     "acknowledged, but current is fw-3 and not fw-2"),
    ("--without publish:filesystem,swap_link:filesystem",
     "--scene install --stage swap --at 3 --policy subset --seed 8",
     "cannot verify /mnt/disk/opt/fw-4: cannot read the manifest: Input data was truncated; pack the firmware again"),
    # what is lost depends on how far the kernel had come by itself
    ("--without-sync", "--scene first --at 100000 --policy none --seed 1", "[^:].*"),
], ids=["the swap's", "the releases'", "all"])
def test_without_syncs_it_is_not_and_the_line_printed_does_it_again(without: str, plan: str, problem: str,
                                                                    tmp_path: Path) -> None:
    words = f"powercut --router {without} -f ext4 {plan}"
    name = "ext4-{}-{}.image".format(*re.findall(r"(?:--scene|--seed) (\S+)", plan))
    for place in (tmp_path / "one", tmp_path / "other"):
        done = lab(*words.split(), "--keep", str(place), seconds=600)

        assert done.returncode == 1, done.stdout + done.stderr
        assert re.match(f"ext4: {problem}: pdimage lab {re.escape(words)}\n", done.stdout), done.stdout
        assert "cannot call this safe: 1 of 1 power cuts left a router that is not well" in done.stderr
        assert [path.name for path in place.iterdir()] == [name]
