"""Faults of the machine itself: two updaters at once, locks that were left, a wrong clock, no release that works."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fussy import state
from fussy import target as targets
from fussy.publishing import packing
from fussy.updating import trusted
from tests.fussy.channels import Channel
from tests.fussy.clocks import standing_at
from tests.fussy.conftest import Keys
from tests.fussy.machine import small_file_system

from .router import Router
from .simulator import Repository
from .web import Answer, Server, wait_for

FAILS = "#!/bin/sh\n[ \"$2\" = True ]\n"
FAILS_TOO = "#!/bin/sh\n[ ! -e \"$FUSSY_TARGET/broken\" ]\n"


@pytest.fixture
def channel(channel: Channel) -> Channel:
    """A channel with a release."""
    channel.add(1)
    return channel


# --- locks ------------------------------------------------------------------------------------------------------------


def test_two_updaters_at_once(router: Router, server: Server) -> None:
    seen = threading.Event()

    def late(path: str, answer: Answer) -> Answer:
        if path.startswith("targets"):
            seen.wait(10)
        return answer

    server.fault = late
    router.set(server.url, patience=15.0)
    first = router.popen()
    wait_for(lambda: any(path.startswith("targets") for path in server.requests))
    said = router.run(fails=5)
    assert "another updater works on it" in said and str(first.pid) in said
    seen.set()
    out, err = first.communicate(timeout=60)
    assert (first.returncode, err) == (0, ""), out
    assert router.current() == "firmware-1"


def test_an_updater_beside_another_command(router: Router) -> None:
    with targets.hold(router.target):
        assert "another" in router.run(fails=5)
    router.run()
    assert router.current() == "firmware-1"


def test_a_lock_that_was_left_hinders_nobody(router: Router) -> None:
    """The pid in it may be that of any process by now."""
    router.private.mkdir(parents=True)
    for lock in (router.private / "lock", router.found.private / "lock"):
        lock.write_text(f"{os.getpid()}\n")
    router.update(expect="updated")


# --- clocks -----------------------------------------------------------------------------------------------------------


def at(router: Router, date: str, *arguments: str, fails: int = 0) -> str:
    """Run the updater with the clock at DATE."""
    clock, environment = standing_at(f"{date} 00:05:00", router.place)
    start = "\nimport runpy\nrunpy.run_module('fussy', run_name='__main__', alter_sys=True)\n"
    command = [sys.executable, "-c", clock + start, *router.command("-v", *arguments)[3:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == fails, (done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_a_clock_in_1970(channel: Channel, router: Router) -> None:
    said = at(router, "1970-01-01")
    assert "updated to firmware-1" in said and "the clock shows 1970-01-01, so expiry is judged as of 20" in said
    assert router.current() == "firmware-1"
    channel.add(2)
    assert "updated from 1.0 to firmware-2" in at(router, "1970-01-01")
    assert router.current() == "firmware-2"


def test_a_clock_in_2100(router: Router) -> None:
    said = at(router, "2100-01-01", fails=51)
    assert "has expired; the clock shows 2100-01-01. If that is wrong, set the clock" in said
    assert trusted.load_floor(router.private).time == 0, "nothing is kept of a wrong time"
    router.update(expect="updated")
    said = at(router, "2100-01-01", fails=51)
    assert router.current() == "firmware-1"
    router.update(expect="nothing-new")


def test_a_freeze_on_a_router_whose_clock_is_behind(tmp_path: Path, keys: Keys) -> None:
    """It knows the time of its last good check, and judges by that."""
    repository = Repository(tmp_path / "other")
    repository.offer("1.0")
    router = Router(tmp_path, keys, repository.metadata / "1.root.json", tmp_path / "other")
    router.update(check=True, expect="available")
    repository.signed["timestamp"].expires = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)
    repository.publish(bump=("timestamp",))
    said = at(router, "1970-01-01", "--check", fails=51)
    assert "timestamp.json has expired; the clock shows 1970-01-01" in said and "freeze attack" in said


# --- releases ---------------------------------------------------------------------------------------------------------


def test_both_releases_are_bad(channel: Channel, router: Router) -> None:
    """The new one does not work, and the old one not any more: the failsafe comes, and a good one after it."""
    router.update(expect="updated")
    router.run(verb="failsafe")
    channel("add", "router", channel.tree(2, {"a": "2", ".pre-install": FAILS_TOO}))
    router.update(expect="updated")
    (router.target / "broken").touch()
    channel("add", "router", channel.tree(3, {"a": "3", ".post-install": FAILS}))
    done = router.update(expect="reverted")
    assert done.exit_code == 3 and "failsafe is in use again" in done.line
    assert router.current() == "failsafe"
    # the second was good once, so it may have another try
    assert "firmware-2" in router.update(expect="reverted").line
    for _ in range(2):
        router.update(expect="refused")
        assert router.current() == "failsafe"
    channel.add(4)
    router.update(expect="updated")
    assert router.current() == "firmware-4"


def test_nothing_to_fall_back_to(channel: Channel, router: Router) -> None:
    channel("withdraw", "router", "firmware-1")
    channel("add", "router", channel.tree(2, {"a": "2", ".post-install": FAILS}))
    done = router.update(expect="unrecoverable")
    assert done.exit_code == 4 and "there is no release to go back to" in done.line
    assert router.current() == ""
    assert router.update().exit_code == 26
    channel.add(3)
    router.update(expect="updated")


def test_a_delta_whose_base_was_altered_is_followed_by_the_full_bundle(channel: Channel, router: Router,
                                                                       server: Server) -> None:
    data = random.Random(1).randbytes(50_000)
    channel("add", "router", channel.tree(2, {"app": data}))
    router.update(expect="updated")
    (router.target / "firmware-2/app").write_bytes(b"x" * 50_000)
    channel("add", "router", channel.tree(3, {"app": data + b"3"}))
    done = router.update(expect="updated")
    assert "by a full bundle" in done.line
    assert [path.rpartition(".from-")[1] for path in server.requests if "firmware-3" in path] == [".from-", ""]
    assert router.current() == "firmware-3"


def test_a_delta_whose_base_can_not_be_read_is_followed_by_what_does_without(
        channel: Channel, router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a sector of the disk has died: by a delta from another release, and at last by the full bundle."""
    data = random.Random(1).randbytes(50_000)
    for number in (2, 3):
        channel("add", "router", channel.tree(number, {"app": data + bytes([number])}))
        line = router.update(expect="updated").line
        assert ("by a full bundle" if number == 2 else "by a delta bundle") in line
    pread, dead = os.pread, {str(router.target / "firmware-3/app")}

    def rotten(descriptor: int, size: int, position: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{descriptor}") in dead:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(descriptor, size, position)

    monkeypatch.setattr(os, "pread", rotten)
    for number, way in ((4, "by a delta bundle"), (5, "by a full bundle")):
        channel("add", "router", channel.tree(number, {"app": data + bytes([number])}))
        assert way in router.update(expect="updated").line
        assert (router.current(), state.load(router.found).bad) == (f"firmware-{number}", [])
        dead |= {str(router.target / f"firmware-{old}/app") for old in (2, 4)}


def test_a_delta_that_needs_more_memory_than_the_owner_allows_is_not_taken(channel: Channel, router: Router,
                                                                            server: Server) -> None:
    for number, memory in ((2, 8), (3, 9), (4, 9)):
        if number == 4:
            router.set(server.url, memory=9)
        data = random.Random(1).randbytes(50_000) + bytes([number])
        channel("add", "router", channel.tree(number, {"app": data}), "--memory", str(memory))
        line = router.update(expect="updated").line
    assert "updated from 3.0 to firmware-4 (version 4.0) by a delta bundle" in line
    asked = [".from-" in path for path in server.requests if "firmware-3" in path.partition(".from")[0]]
    assert asked == [False]


def test_a_delta_that_turns_out_to_need_more_memory_is_followed_by_the_full_bundle(
        channel: Channel, router: Router, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(1).randbytes(50_000)
    channel("add", "router", channel.tree(2, {"app": data}))
    router.update(expect="updated")
    make = packing.make_delta
    monkeypatch.setattr(packing, "make_delta", lambda *arguments: make(*arguments[:4], 9))
    channel("add", "router", channel.tree(3, {"app": data + b"3"}))
    assert "by a full bundle" in router.update(expect="updated").line
    assert [".from-" in path for path in server.requests if ".firmware-3" in path] == [True, False]


# --- short memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reading", "then"), [
    ("--decrypt", "kill -9 $$"), ("--decrypt", 'GPG "$@" | head -c 300; kill -9 $$'),
    ("--skip-verify", 'GPG "$@" | head -c 300; kill -9 $$'), ("--list-keys", "kill -9 $$")])
def test_a_gpg_that_the_kernel_kills_is_not_held_against_the_bundle(
        channel: Channel, router: Router, server: Server, tmp_path: Path, reading: str, then: str) -> None:
    """As it does where memory is short; what gpg gave until then looks like a damaged bundle."""
    channel("add", "router", channel.tree(2, {"large enough to be read twice": random.Random(1).randbytes(3 << 20)}))
    real = shutil.which("gpg")
    killed = tmp_path / "bin/gpg"
    killed.parent.mkdir()
    killed.write_text(f'#!/bin/sh\ncase "$*" in *{reading}*) {then} ;; esac\nexec GPG "$@"\n'.replace("GPG", str(real)))
    killed.chmod(0o755)
    said = router.run(fails=40, env={"PATH": f"{killed.parent}:{os.environ['PATH']}"})
    assert "gpg was killed, as the kernel does where memory is short; end other programs, and try again" in said
    assert (router.current(), router.record.spoilt, router.record.outcome) == ("", [], "failed")
    fetched = sum(path.startswith("targets/") for path in server.requests)
    router.update(expect="updated")
    assert (router.current(), sum(path.startswith("targets/") for path in server.requests)) == ("firmware-2", fetched)


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(router: Router) -> Iterator[Router]:
    """A router whose target is a file system of its own, of 24 MB."""
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", router.target]).returncode:
        pytest.skip("needs to mount a file system")
    try:
        yield router
    finally:
        subprocess.run(["umount", router.target], check=True)


def test_a_download_gets_the_room_of_the_spare(channel: Channel, router: Router) -> None:
    with small_file_system(router.place, 4000) as disk:
        router.target = disk
        for number in (2, 3, 4):
            files = {f"d{i}/f": f"{i}" for i in range(300)} | {"version": str(number)}
            channel("add", "router", channel.tree(number, files))
            router.update(expect="updated")
        router.run(verb="clean")
        held = json.loads(router.run("--json", verb="status"))["spare"]
        assert held > 300_000
        channel.add(5)
        router.update(check=True, expect="available")
        there = os.statvfs(disk)
        (disk / "ballast").write_bytes(bytes(there.f_bavail * there.f_frsize - (4 << 20) + held // 2))
        router.update(expect="updated")
        assert (router.current(), router.found.spare.exists()) == ("firmware-5", False)


@pytest.mark.parametrize("when", ["metadata/timestamp.json", "metadata/3.router.json", "targets/router"])
def test_the_disk_becomes_full_and_stays_so(channel: Channel, server: Server, small: Router, when: str) -> None:
    """Injected failures are told in tests/crash; this disk has really no room for anything that follows."""
    small.update(expect="updated")
    channel("add", "router", channel.tree(2, {"data": random.Random(2).randbytes(1_000_000)}))

    def fill(path: str, answer: Answer) -> Answer:
        if path.startswith(when):
            with (small.target / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
                while True:
                    ballast.write(bytes(4096))
        return answer

    server.fault = fill
    assert "make room" in small.run(fails=23)
    small.run(fails=23)
    assert small.current() == "firmware-1"
    server.fault = None
    (small.target / "ballast").unlink()
    small.update(expect="updated")
    assert small.current() == "firmware-2"
