"""Whatever is killed in an update that a hawkBit server leads: the next run ends it, and the server hears that once."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fussy import state
from fussy.updating import actions
from tests.crash.killing import Point, copy, fail_at, kill_at, points
from tests.fussy.conftest import Keys
from tests.fussy.firmware import Firmware
from tests.fussy.update.ddi import HERE, TOKEN, Hawkbit
from tests.fussy.update.router import Router
from tests.fussy.update.web import running

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")]

FAILS = "#!/bin/sh\n[ \"$2\" = True ]\n"
KEPT = r"/hawkbit\.json"


@dataclass
class Scene:
    """A router with firmware-1 that is to run firmware-2 by the action 8; BUNDLE is that. ``cancel``: it is held, and
    the action is to be stopped."""

    fleet: Hawkbit
    router: Router
    bundle: Path
    cancel: bool

    @property
    def command(self) -> list[str]:
        return self.router.command("--no-delay")[3:]

    def begin(self) -> None:
        """Put all back as it was before."""
        copy(self.router.place / "template", self.router.target)
        self.fleet.told.clear()
        self.fleet.offer(8, self.bundle, version="2")
        self.fleet.cancel = self.cancel

    def points(self, calls: str, code: int) -> Iterator[Point]:
        """Yield each point where CALLS are made, before which all is as it was; CODE is that of an undisturbed run."""
        self.begin()
        self.router.update()  # imports what is needed, so that the calls of all runs are the same
        self.begin()
        for point in points(self.command, self.router.target, self.router.place / "strace", (code,)):
            if re.search(calls, point.text):
                self.begin()
                yield point

    def goes_on(self, point: Point, end: str, finished: str) -> None:
        """Run the updater again, and look at what is left when it was disturbed at POINT."""
        assert self.router.current() in ("firmware-1", "firmware-2"), point
        done = self.router.update()
        assert self.router.current() == end, (point, done.line)
        ends = [one["result"]["finished"] for one in self.fleet.told if one["execution"] == "closed"]
        assert ends == [finished], (point, self.fleet.lines(), done.line)
        kept = actions.load(self.router.private, f"{self.fleet.url}/{HERE}")
        assert (kept.action, kept.unsent) == (None, []), point
        assert state.load(self.router.found).transaction is None, point
        assert not [*self.router.private.glob("*~"), *(self.router.private / "downloads").glob("*.part")], point


@contextmanager
def scene(place: Path, keys: Keys, *, hook: str = "", cancel: bool = False) -> Iterator[Scene]:
    firmware = Firmware(place, keys)
    for number, files in ((1, {}), (2, {".post-install": hook} if hook else {})):
        firmware.pack(f"firmware-{number}", {"version": str(number), **files}, release={"version": str(number)})
    (place / "root").touch()
    with running(Hawkbit(place / "bundles")) as fleet:
        router = Router(place, keys, place / "root", product="", hawkbit={
            "url": fleet.url, "tenant": "joe", "name": "aardvark", "token": TOKEN})
        fleet.offer(1, firmware.bundles["firmware-1"], version="1")
        router.update(expect="updated")
        if cancel:
            fleet.offer(8, firmware.bundles["firmware-2"], version="2")
            router.run(verb="hold")
            router.update(expect="held")
        copy(router.target, router.place / "template")
        yield Scene(fleet, router, firmware.bundles["firmware-2"], cancel)


@pytest.mark.parametrize(("hook", "cancel", "calls", "end", "finished", "code"), [
    ("", False, rf"{KEPT}|/current~|renameat2\(|/downloads/", "firmware-2", "success", 0),
    (FAILS, False, KEPT, "firmware-1", "failure", 3),
    ("", True, KEPT, "firmware-1", "success", 0),
], ids=["update", "fallback", "cancel"])
def test_killed_at_every_write(hook: str, cancel: bool, calls: str, end: str, finished: str, code: int,
                               tmp_path: Path, keys: Keys) -> None:
    with scene(tmp_path, keys, hook=hook, cancel=cancel) as made:
        killed = []
        for point in made.points(calls, code):
            killed.append(kill_at(made.command, point))
            made.goes_on(point, end, finished)
        assert len(killed) > 5 and sum(killed) >= 0.9 * len(killed)


def test_a_full_disk_where_something_is_kept(tmp_path: Path, keys: Keys) -> None:
    """The server hears how it ended even where that could not be written down."""
    with scene(tmp_path, keys) as made:
        for point in made.points(f"^rename.*{KEPT}", 0):
            done = fail_at(made.command, point, "ENOSPC")
            assert done.code in (0, 23) and "fussy update: " in done.said, (point, done)
            made.goes_on(point, "firmware-2", "success")
