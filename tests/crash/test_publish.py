"""Whatever is killed, at whichever write: devices can follow the channel, and the next command finishes the work.

And whoever reads while it is written sees a whole channel, over plain HTTP too.
"""

import contextlib
import functools
import http.server
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.ngclient import Updater

from fussy.publishing import check, cli, metadata
from tests.crash.killing import Point, copy, fail_at, kill_at, points
from tests.fussy.channels import Channel
from tests.fussy.conftest import Keys

pytestmark = [pytest.mark.slow]

# What lies there is never read again: a release being unpacked is thrown away, the pid in a lock is for people.
IDLE = re.compile(r"/\.fussy/staging/tree[/\"]|/lock>, \"|ftruncate\([^ ]*/lock>")
# What a device finds: release, kind and percent of each offer.
Seen = frozenset[tuple[str, str, float]]


@dataclass(frozen=True)
class Scene:
    """What is there before, and what is run; AGAIN is the exit code to expect when it is run once more after all."""

    prepare: Callable[[Channel], object]
    command: Callable[[Channel], list[str]]
    again: Sequence[int] = (0,)


def begun(one: Channel) -> None:
    one.init("--keep", "1")
    one.add(1)


SCENES = {
    "init": Scene(lambda one: None, lambda one: ["init", "-p", "router", "--keyring", str(one.keys.keyring)],
                  again=(0, 40)),
    "add": Scene(begun, lambda one: ["add", "router", str(one.firmware.pack_tree(one.tree(2)))], again=(0, 40)),
    "withdraw": Scene(begun, lambda one: ["withdraw", "router", "firmware-1"], again=(0, 40)),
    "rotate targets": Scene(begun, lambda one: ["rotate", "targets"]),
    "rotate router": Scene(begun, lambda one: ["rotate", "router"]),
    "refresh": Scene(begun, lambda one: ["refresh", "--force"]),
    "gc": Scene(lambda one: (begun(one), one("withdraw", "router", "firmware-1")),
                lambda one: ["gc", "--grace", "0"]),
}


def seen(one: Channel, name: str = "") -> Seen | None:
    """Follow the channel as a device does, fetch and check all; None where there is no channel yet."""
    if metadata.load(one.where) is None:
        return None
    return frozenset((offer.release, offer.kind, offer.percent) for offer in one.offered(name=name).values())


def staged(scene: Scene, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
           ) -> tuple[Channel, Path, list[str], Seen | None]:
    """Return the channel of a scene, a copy of it, the command to run, and what a device finds before."""
    monkeypatch.setenv("GNUPGHOME", str(keys.home))
    one, template = Channel(tmp_path / "place", keys), tmp_path / "template"
    one.place.mkdir()
    scene.prepare(one)
    command = ["publish", str(one.where.channel), *scene.command(one)]
    before = seen(one, "device")
    copy(one.place, template)
    return one, template, command, before


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is missing: it kills at a system call")
@pytest.mark.parametrize("name", SCENES)
def test_a_publish_killed_anywhere_leaves_a_channel_and_the_next_finishes(
        name: str, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    one, template, command, before = staged(SCENES[name], tmp_path, keys, monkeypatch)
    there = [point for point in points(command, one.where.channel, tmp_path / "log") if not IDLE.search(point.text)]
    after = seen(one)
    killed = 0
    for point in there:
        copy(template, one.place)
        killed += kill_at(command, point)
        fresh = seen(one)
        assert fresh in (before, after), point
        assert seen(one, "device") == fresh, point
        if fresh is not None or any(one.where.prepared.glob("*.json")):
            one("publish")
            assert seen(one) in (before, after), point
        done = CliRunner().invoke(cli.publish, command[1:])
        assert done.exit_code in SCENES[name].again, (point, done.output)
        assert seen(one, "device") == after == seen(one), point
        assert not any(one.where.prepared.iterdir()) and not any(one.where.staging.iterdir()), point
    assert killed == len(there) > 3


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is missing: it lets system calls fail")
@pytest.mark.parametrize("name", ["add", "rotate router"])
def test_a_full_disk_at_any_write_is_said_in_a_line_and_leaves_the_channel_as_it_was(
        name: str, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    one, template, command, before = staged(SCENES[name], tmp_path, keys, monkeypatch)
    there = [point for point in points(command, one.where.channel, tmp_path / "log")
             if point.syscall in ("openat", "write", "mkdir", "rename") and "/lock" not in point.text]
    after = seen(one)
    for point in there:
        copy(template, one.place)
        done = fail_at(command, point, "ENOSPC")
        assert done.code and len(done.said.splitlines()) == 1 and "No space left" in done.said, (point, done)
        assert seen(one) in (before, after), point
        one("publish")
        assert seen(one) in (before, after) and not any(one.where.prepared.iterdir()), point
    assert len(there) > 10


# A command; the call at which it is killed, and how many of these it may make before.
COMMANDS = [("add", "router", "{tree}"), ("withdraw", "router", "{last}"), ("rollout", "router", "{last}", "50"),
            ("rotate", "timestamp"), ("rotate", "root"), ("rotate", "targets"), ("rotate", "router"),
            ("renew", "router"), ("refresh", "--force"), ("gc", "--grace", "0"), ("publish",)]
STEPS = st.lists(st.tuples(st.sampled_from(COMMANDS), st.sampled_from(["rename", "write", "unlink", "renameat2"]),
                           st.integers(1, 8)), min_size=2, max_size=6)


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is missing: it kills at a system call")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_is_published_and_killed_a_device_follows(steps: list[tuple[tuple[str, ...], str, int]], keys: Keys,
                                                           tmp_path_factory: pytest.TempPathFactory) -> None:
    one = Channel(tmp_path_factory.mktemp("channel"), keys)
    one.init("--keep", "1")
    number = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNUPGHOME", str(keys.home))
        for command, syscall, count in steps:
            number += command[0] == "add"
            tree = one.tree(number) if command[0] == "add" else ""
            line = [part.format(tree=tree, last=f"firmware-{number}") for part in command]
            kill_at(["publish", str(one.where.channel), *line], Point(syscall, count, ""))
            found = seen(one, "device")
            assert found == seen(one) and found is not None
            assert {release for release, _, _ in found} <= {f"firmware-{i + 1}" for i in range(number)}
        one("publish")
    assert check.check(one.where) == len(seen(one, "device") or ())


@contextlib.contextmanager
def served(directory: Path) -> Iterator[str]:
    """Serve a directory as any plain web server does; give its address."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=directory)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def over_http(one: Channel, address: str, directory: Path) -> Updater:
    for part in ("metadata", "targets"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    return Updater(str(directory / "metadata"), f"{address}/metadata", str(directory / "targets"),
                   f"{address}/targets", bootstrap=(one.where.metadata / "1.root.json").read_bytes())


def follow(one: Channel, address: str, directory: Path) -> int:
    """Fetch all that is offered; return the version of the timestamp."""
    updater = over_http(one, address, directory)
    updater.refresh()
    updater.get_targetinfo("router/")
    for path in metadata.read(directory / "metadata/router.json").signed.targets:
        found = updater.get_targetinfo(path)
        assert found is not None
        updater.download_target(found)
    version: int = metadata.read(directory / "metadata/timestamp.json").signed.version
    return version


def test_whoever_reads_meanwhile_sees_a_whole_channel(tmp_path: Path, keys: Keys) -> None:
    one = Channel(tmp_path, keys)
    one.init()
    over = threading.Event()
    versions: list[int] = []
    failures: list[BaseException] = []

    def poll(address: str, number: int) -> None:
        """Every second time as a device with a cache, otherwise as a new one."""
        while not over.is_set():
            try:
                cached = follow(one, address, tmp_path / f"cached-{number}")
                new = tmp_path / f"new-{number}"
                shutil.rmtree(new, ignore_errors=True)
                versions.extend([cached, follow(one, address, new)])
            except Exception as error:
                failures.append(error)
                return

    commands = [["add", "router", str(one.tree(1))], ["add", "router", str(one.tree(2)), "--parts", "--percent", "10"],
                ["rollout", "router", "firmware-2", "50"], ["rotate", "timestamp"], ["rotate", "targets"],
                ["rotate", "root"], ["refresh", "--force"], ["rotate", "router"], ["withdraw", "router", "firmware-1"],
                ["revoke", one.key_of("timestamp")], ["add", "router", str(one.tree(3))], ["gc"]]
    with served(one.where.channel) as address:
        readers = [threading.Thread(target=poll, args=(address, number)) for number in range(2)]
        for reader in readers:
            reader.start()
        try:
            for command in commands:
                process = one.popen(*command)
                output, _ = process.communicate(timeout=60)
                assert process.returncode == 0, output
        finally:
            over.set()
            for reader in readers:
                reader.join()
    assert not failures, failures
    assert len(set(versions)) > 3
    assert check.check(one.where) == 6
