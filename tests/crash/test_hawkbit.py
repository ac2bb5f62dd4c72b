"""Whatever is killed in an update that a hawkBit server leads: the next run ends it, and the server hears that once."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fussy import state
from fussy.updating import actions
from tests.crash.killing import copy, kill_at, points
from tests.fussy.conftest import Keys
from tests.fussy.firmware import Firmware
from tests.fussy.update.ddi import HERE, TOKEN, Hawkbit
from tests.fussy.update.router import Router
from tests.fussy.update.web import running

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")]

FAILS = "#!/bin/sh\n[ \"$2\" = True ]\n"
# What is kept for the server and beside it, and the steps by which a release becomes current.
CALLS = re.compile(r"/hawkbit\.json|/downloads/|/current~|renameat2\(")


def update(fleet: Hawkbit, router: Router, firmware: Firmware) -> None:
    fleet.offer(8, firmware.bundles["firmware-2"], version="2")


def cancel(fleet: Hawkbit, router: Router, firmware: Firmware) -> None:
    update(fleet, router, firmware)
    fleet.cancel = True


# What is wanted, the hook of the second release, how the action ends, the exit code of an undisturbed run.
SCENES: dict[str, tuple[Callable[[Hawkbit, Router, Firmware], None], str, str, int]] = {
    "update": (update, "", "success", 0),
    "fallback": (update, FAILS, "failure", 3),
    "cancel": (cancel, "", "success", 0),
}


@pytest.mark.parametrize("name", SCENES)
def test_killed_at_every_write(name: str, tmp_path: Path, keys: Keys) -> None:
    wanted, hook, finished, code = SCENES[name]
    firmware = Firmware(tmp_path, keys)
    for number, files in ((1, {}), (2, {".post-install": hook} if hook else {})):
        firmware.pack(f"firmware-{number}", {"version": str(number), **files}, release={"version": str(number)})
    (tmp_path / "root").touch()
    with running(Hawkbit(tmp_path / "bundles")) as fleet:
        router = Router(tmp_path, keys, tmp_path / "root", product="", hawkbit={
            "url": fleet.url, "tenant": "joe", "name": "aardvark", "token": TOKEN})
        fleet.offer(1, firmware.bundles["firmware-1"], version="1")
        router.update(expect="updated")
        if name == "cancel":
            update(fleet, router, firmware)
            router.run(verb="hold")
            router.update(expect="held")
        copy(router.target, router.place / "template")
        end = "firmware-2" if name == "update" else "firmware-1"

        def again() -> None:
            copy(router.place / "template", router.target)
            fleet.told.clear()
            wanted(fleet, router, firmware)

        again()
        router.update()  # imports what is needed, so that the calls of all runs are the same
        again()
        found = points(router.command("--no-delay")[3:], router.target, router.place / "strace", (code,))
        killed = []
        for point in found:
            if not CALLS.search(point.text):
                continue
            again()
            killed.append(kill_at(router.command("--no-delay")[3:], point))
            assert router.current() in ("firmware-1", "firmware-2"), point
            done = router.update()
            assert router.current() == end, (point, done.line)
            ends = [one["result"]["finished"] for one in fleet.told if one["execution"] == "closed"]
            assert ends == [finished], (point, fleet.lines(), done.line)
            kept = actions.load(router.private, f"{fleet.url}/{HERE}")
            assert (kept.action, kept.unsent) == (None, []), point
            assert state.load(router.found).transaction is None, point
            assert not [*router.private.glob("*~"), *(router.private / "downloads").glob("*.part")], point
        assert len(killed) > 5 and sum(killed) >= 0.9 * len(killed)
