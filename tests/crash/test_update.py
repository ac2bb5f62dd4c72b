"""Whatever is killed in an update, at whichever write, and wherever the disk is full: a complete release is in use.

And the next run of the updater ends as if nothing had happened.
"""

import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fussy import state
from fussy.errors import OnlyRefused
from tests.crash.killing import CHANGING, Done, Point, copy, fail_at, kill_at, points, run_short
from tests.fussy.channels import Channel
from tests.fussy.conftest import Keys
from tests.fussy.update.router import Router
from tests.fussy.update.web import Answer, Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")]

# What lies there is never read again: a release being unpacked is thrown away, the pid in a lock is for people.
IDLE = re.compile(r"/\.fussy/staging/tree[/\"]|/lock>, \"|ftruncate\([^ ]*/lock>")
FAILS = "#!/bin/sh\n[ \"$2\" = True ]\n"


@dataclass
class Place:
    """A channel, its server, and a router that follows it."""

    channel: Channel
    server: Server
    router: Router

    def add(self, number: int, **files: str | bytes) -> None:
        tree = self.channel.tree(number, {"version": str(number), "app": "app" * 700, **files})
        self.channel("add", "router", tree)

    def command(self) -> list[str]:
        return self.router.command("--no-delay")[3:]


@dataclass(frozen=True)
class Scene:
    """What is there before; the release in use then and in the END; the exit CODE of an undisturbed run; what the calls
    that are disturbed look like; whether only those since the SWAP are."""

    prepare: Callable[[Place], object]
    before: str
    end: str
    code: int = 0
    calls: str = ""
    swap: bool = False


def has_first(place: Place) -> None:
    place.add(1)
    place.router.update(expect="updated")


def has_first_of_two(place: Place) -> None:
    has_first(place)
    place.add(2)


def half_is_fetched(place: Place) -> None:
    has_first_of_two(place)
    place.server.fault = lambda path, answer: answer if path.startswith("metadata") else Answer(
        answer.status, answer.body, answer.headers, cut=300) if not place.server.ranges else Answer(500)
    place.router.update(expect="unreachable")
    place.server.fault = None
    assert next((place.router.private / "downloads").glob("*.part")).stat().st_size == 300


def second_fails(place: Place) -> None:
    has_first(place)
    place.add(2, **{".post-install": FAILS})


OWN = r"/\.fussy/update/"
SCENES = {
    "first": Scene(lambda place: place.add(1), "", "firmware-1", calls=OWN),
    "delta": Scene(has_first_of_two, "firmware-1", "firmware-2"),
    "resumed": Scene(half_is_fetched, "firmware-1", "firmware-2", calls=OWN),
    "fallback": Scene(second_fails, "firmware-1", "firmware-1", code=3, swap=True),
    "nothing new": Scene(lambda place: (has_first(place), place.router.update(expect="nothing-new")), "firmware-1",
                         "firmware-1"),
}


@pytest.fixture
def place(tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr("fussy.updating.downloads._PAUSE", 0.0)
    channel = Channel(tmp_path, keys)
    channel.init()
    with serving(channel.where.channel) as server:
        yield Place(channel, server, Router(tmp_path, keys, channel.where.metadata / "1.root.json", server.url))


def disturbed(scene: Scene, place: Place, calls: str = "", traced: str = CHANGING) -> Iterator[Point]:
    """Yield each point of a scene, with all as it was before, and look at what is left when it was disturbed there."""
    router = place.router
    scene.prepare(place)
    template = router.place / "template"
    copy(router.target, template)
    router.update()  # imports what is needed, so that the calls of all runs are the same
    copy(template, router.target)
    found = points(place.command(), router.target, router.place / "strace", (scene.code,), traced)
    if scene.swap:
        found = found[next(i for i, point in enumerate(found) if "/current~" in point.text):]
    for point in found:
        if IDLE.search(point.text) or not re.search(scene.calls, point.text) or not re.match(calls, point.text):
            continue
        copy(template, router.target)
        yield point
        assert router.current() in {scene.before, scene.end, "firmware-2" if scene.swap else scene.end}, point
        done = router.update()
        assert router.current() == scene.end, (point, done.line)
        assert done.exit_code in ((3, OnlyRefused.exit_code) if scene.swap else (0,)), (point, done.line)
        kept = state.load(router.found)
        assert kept.transaction is None, point
        assert [bad.release for bad in kept.bad if bad.refused] == (["firmware-2"] if scene.swap else []), point
        assert os.listdir(router.private / "downloads") == [], point
        assert not [*router.private.glob("*~"), *(router.private / "metadata").glob("tmp*")], point


@pytest.mark.parametrize("name", SCENES)
def test_killed_at_every_write(name: str, place: Place) -> None:
    killed = [kill_at(place.command(), point) for point in disturbed(SCENES[name], place)]
    # a download may come in fewer pieces than it did when the points were found
    assert len(killed) > 3 and sum(killed) >= 0.9 * len(killed)


@pytest.mark.parametrize(("name", "error"), [
    ("first", "EDQUOT"), ("fallback", "ENOSPC"), ("fallback", "EIO"), ("delta", "EROFS")])
def test_a_disk_that_fails_at_every_write(name: str, error: str, place: Place) -> None:
    """And what that has stopped is not held against the release."""
    scene = SCENES[name]
    for point in disturbed(replace(scene, calls=""), place, "openat|p?write|mkdir|rename|symlink|link\\("):
        fails_well(fail_at(place.command(), point, error), point)


def test_a_quota_that_shows_at_every_sync(place: Place) -> None:
    """As where the file system lies on a server, or decides late where to put what was written."""
    found = [fails_well(fail_at(place.command(), point, "EDQUOT"), point)
             for point in disturbed(SCENES["delta"], place, traced="fsync,syncfs")]
    assert found.count(23) > 10 and found.count(3) == 2


def fails_well(done: Done, point: Point) -> int:
    """Check that a run on a failing disk ended in an outcome for people; return its exit code."""
    assert done.code in (0, 3, 4, 23, 40), (point, done)
    assert "fussy update: " in done.said and "Errno" not in done.said, (point, done)
    return done.code


def test_memory_that_is_short(place: Place) -> None:
    """It ends in one line, wherever that is, and nothing is held against the release or its bundle."""
    router, data = place.router, random.Random(1).randbytes(2_000_000)
    place.add(1, app=data)
    router.update(expect="updated")
    place.add(2, app=data[:1_000_000] + b"2" + data[1_000_000:])
    template = router.place / "template"
    copy(router.target, template)
    router.update(expect="updated")  # imports what is needed
    ended = []
    for room in (*range(0, 1 << 20, 1 << 17), 32 << 20):
        copy(template, router.target)
        done = run_short(place.command(), room)
        ended.append(done.code)
        assert router.current() == ("firmware-2" if done.code == 0 else "firmware-1")
        assert router.record.spoilt == [] and state.load(router.found).bad == []
        if done.code:
            assert done.said == "fussy update: cannot go on: this machine has not enough memory; end other programs, " \
                "or allow this one more, and try again\n"
        router.update(expect="updated" if done.code else "nothing-new")
    assert (ended[0], ended[-1]) == (40, 0)
