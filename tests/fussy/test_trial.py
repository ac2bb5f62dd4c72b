"""A release on trial: how it is confirmed, and what takes it back."""

import doctest
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fussy import clean, confirm, enable, install, owner, recover, state, trial, uptime
from fussy import target as targets
from fussy.errors import FussyError, OnTrial, Reverted, SystemSetup
from fussy.manifest import Trial
from fussy.target import Target
from fussy.uptime import Moment

from .conftest import Keys
from .firmware import Firmware

BOOT: Mapping[str, Any] = {"confirm": "boot", "seconds": 600, "boots": 2}
HAND: Mapping[str, Any] = {"confirm": "hand", "seconds": 600, "boots": 2}


class Life:
    """A device whose boots and time are the test's to say; the wall clock goes on as it likes."""

    def __init__(self) -> None:
        self.moment = Moment("boot 0", 1000.0)

    def boot(self, up: float = 20.0) -> None:
        self.moment = Moment(f"{self.moment.boot[:5]}{int(self.moment.boot[5:]) + 1}", up)

    def run(self, seconds: float) -> None:
        self.moment = self.moment._replace(up=self.moment.up + seconds)


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Life:
    made = Life()
    monkeypatch.setattr(uptime, "now", lambda: made.moment)
    return made


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The owner's directory."""
    path = tmp_path / "etc"
    (path / "health.d").mkdir(parents=True)
    monkeypatch.setenv("FUSSY_ETC", str(path))
    return path


@pytest.fixture
def firmware(tmp_path: Path, keys: Keys, etc: Path) -> Firmware:
    """A device on which fw-1 runs."""
    made = Firmware(tmp_path, keys)
    made.install(made.pack("fw-1", {"a": "1"}, version="1"))
    return made


def put(firmware: Firmware, wanted: Mapping[str, Any], name: str = "fw-2", **described: Any) -> Path:
    release = {"trial": dict(wanted), "version": name[-1], **described}
    return firmware.install(firmware.pack(name, {"a": name, "state": "well"}, release=release))


@contextmanager
def settled(firmware: Firmware) -> Iterator[Target]:
    with install.ready(firmware.target) as held:
        yield held


def current(firmware: Firmware) -> str:
    return os.path.basename(os.path.realpath(firmware.target / "current"))


def now(firmware: Firmware) -> state.State:
    return state.load(targets.find(firmware.target))


def test_examples_hold() -> None:
    for module in (trial, uptime, owner):
        assert doctest.testmod(module).failed == 0


def test_checks_alone_confirm_by_default(firmware: Firmware) -> None:
    firmware.install(firmware.pack("fw-2", {"a": "2"}, release={"floor": "1"}))
    assert now(firmware).trial is None
    assert now(firmware).floor == "1"


def test_a_boot_and_the_checks_confirm(firmware: Firmware, life: Life) -> None:
    put(firmware, BOOT, floor="2", version="2")
    told = now(firmware)
    assert told.last and told.last.outcome == "on-trial"
    assert told.floor == ""  # what it is taken back to must not be forbidden
    with settled(firmware) as held:
        assert confirm.examine(held) is not None  # it has not booted yet
    life.boot()
    with settled(firmware) as held:
        assert confirm.examine(held) is None
    told = now(firmware)
    assert told.last and (told.trial, told.last.outcome, told.floor) == (None, "confirmed", "2")
    assert current(firmware) == "fw-2"
    for _ in range(9):
        life.boot()
        with settled(firmware):
            assert current(firmware) == "fw-2"


def test_a_hand_confirms(firmware: Firmware) -> None:
    put(firmware, HAND)
    assert firmware.run("confirm") == f"{firmware.target}/fw-2\n"
    assert "no release is on trial" in firmware.run("confirm", fails=1)
    assert "no release is on trial" in firmware.run("reject", fails=1)
    assert current(firmware) == "fw-2"


def test_a_hand_rejects(firmware: Firmware, tmp_path: Path) -> None:
    log = tmp_path / "hooks"
    firmware.install(firmware.pack("fw-1-2", {".post-install": f"#!/bin/sh\necho $FUSSY_ACTION $2 >> {log}\n"}))
    put(firmware, HAND)
    assert firmware.run("reject", "--reason", "Wi-Fi is slow") == f"{firmware.target}/fw-1-2\n"
    told = now(firmware)
    assert [(bad.release, bad.reason) for bad in told.bad] == [("fw-2", "Wi-Fi is slow")]
    assert told.bad[0].digest and told.last and told.last.outcome == "reverted"
    assert log.read_text() == "install False\nfallback True\n"
    assert told.previous == "fw-1"
    assert (firmware.target / "fw-2").is_dir()


@pytest.mark.parametrize("wanted", [BOOT, HAND], ids=["boot", "hand"])
def test_three_wrong_boots_in_a_row(firmware: Firmware, life: Life, wanted: Mapping[str, Any]) -> None:
    """The device goes down before the checks are through, each time."""
    put(firmware, wanted)
    for _ in range(2):
        life.boot()
        for _ in range(3):  # more runs in one boot are no more boots
            with settled(firmware):
                assert current(firmware) == "fw-2"
    life.boot()
    with settled(firmware):
        assert current(firmware) == "fw-1"
    assert now(firmware).bad[0].reason == "booted 3 times without being confirmed"


def test_boots_are_counted_early_and_once(firmware: Firmware, life: Life) -> None:
    put(firmware, BOOT)
    for boots in (1, 2):
        life.boot()
        firmware_recovers_early(firmware)
        with settled(firmware) as held:
            on = state.load(held).trial
            assert on and on.boots == boots
    life.boot()
    firmware_recovers_early(firmware)
    assert current(firmware) == "fw-1"  # before anything of fw-2 could start
    told = now(firmware)
    assert told.transaction and told.transaction.reason  # the hooks of fw-1 are still to come
    with settled(firmware):
        pass
    told = now(firmware)
    assert told.transaction is None and told.last and told.last.outcome == "reverted"


def firmware_recovers_early(firmware: Firmware) -> None:
    with targets.hold(firmware.target) as held:
        recover.count_boot(held)


def test_interrupted_installs_are_counted_early_and_once(firmware: Firmware, life: Life, tmp_path: Path) -> None:
    """Power goes whenever the hook of fw-2 runs: after the swap, before the trial."""
    firmware.pack("fw-2", {"a": "2"})
    with settled(firmware) as held:
        (held.root / "fw-2").mkdir()
        going = state.Transaction("fw-2", "fw-1", "install", "enabling")
        state.save(held, state.State(transaction=going))
        install.swap_link(held.root / "fw-2", held.current)
    for _ in range(2):
        life.boot()
        firmware_recovers_early(firmware)
        assert current(firmware) == "fw-2"
    life.boot()
    firmware_recovers_early(firmware)
    assert current(firmware) == "fw-1"
    with settled(firmware):
        assert now(firmware).bad[0].reason == "interrupted 3 times after the swap"
        assert now(firmware).transaction is None


def test_time_is_up(firmware: Firmware, life: Life) -> None:
    put(firmware, HAND)
    life.run(599)
    with settled(firmware):
        assert current(firmware) == "fw-2"
    life.boot(up=0.5)
    with settled(firmware):
        assert current(firmware) == "fw-2"
    life.run(1)
    assert "fw-1 is in use again" in run_logged(firmware)
    assert current(firmware) == "fw-1"
    assert now(firmware).bad[0].reason == "not confirmed within 600 s"


def run_logged(firmware: Firmware) -> str:
    """Settle the device as any command does; return what is told of the outcome."""
    with settled(firmware):
        told = now(firmware).last
        assert told
        return f"{current(firmware)} is in use again: {told.reason}"


@pytest.mark.parametrize("when", [0, 4_102_444_800], ids=["1970", "2100"])
def test_the_clock_takes_no_part(
    firmware: Firmware, life: Life, when: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(firmware, HAND)
    monkeypatch.setattr(state, "now", lambda: when)
    life.run(300)
    with settled(firmware):
        assert current(firmware) == "fw-2"
    life.run(301)
    with settled(firmware):
        assert current(firmware) == "fw-1"


def test_a_check_that_fails_later_takes_it_back(firmware: Firmware, life: Life) -> None:
    well = {"name": "app", "command": ["/bin/cat", "state"], "contains": "well", "seconds": 0.2}
    put(firmware, BOOT, health=[well])
    (firmware.target / "fw-2/state").write_text("ill")
    life.boot()
    with settled(firmware) as held, pytest.raises(Reverted, match="fw-1 is in use again"):
        confirm.examine(held)
    assert current(firmware) == "fw-1"
    assert "health check 'app'" in now(firmware).bad[0].reason


def test_a_check_that_hangs_ends_with_its_time(firmware: Firmware) -> None:
    hangs = {"name": "hangs", "command": ["/bin/sh", "-c", "setsid sleep 30 & sleep 30"], "seconds": 0.3}
    with pytest.raises(Reverted, match=r"'hangs' did not pass within 0.3 s: no answer"):
        put(firmware, BOOT, health=[hangs])
    with pytest.raises(Reverted, match=r"'hangs' did not pass within 0.2 s: no answer"):
        put(firmware, {"seconds": 0.2}, "fw-3", health=[{**hangs, "seconds": 60}])
    assert current(firmware) == "fw-1"


def test_both_are_bad_so_failsafe_comes(firmware: Firmware, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    firmware.run("failsafe")
    fragile = {".post-install": f"#!/bin/sh\n[ ! -e {broken} ]\n"}
    firmware.install(firmware.pack("fw-2", fragile))
    firmware.install(firmware.pack("fw-3", {**fragile, "a": "3"}, release={"trial": dict(HAND)}))
    broken.touch()
    assert firmware.run("reject").splitlines()[-1] == f"{firmware.target}/failsafe"
    told = now(firmware)
    assert told.last and told.last.outcome == "failsafe"


def test_what_goes_down_on_the_way_back_gives_way_to_failsafe(firmware: Firmware, life: Life) -> None:
    """The hooks of the previous release take the device down: three times is enough."""
    firmware.run("failsafe")
    put(firmware, HAND)
    with settled(firmware) as held:
        on = now(firmware).trial
        assert on
        enable.mark(held, held.release("fw-1"), failed=held.release("fw-2"), reason="bad")
        told = now(firmware)
        assert told.transaction
    for _ in range(2):  # the hooks begin, and the device goes down
        with targets.hold(firmware.target) as held:
            going = now(firmware).transaction
            assert going
            state.save(held, state.State(transaction=state.Transaction(
                going.release, going.previous, "install", "enabling", attempts=going.attempts + 1, reason="bad")))
    with settled(firmware):
        assert current(firmware) == "failsafe"


def test_nothing_else_happens_during_a_trial(firmware: Firmware) -> None:
    firmware.install(firmware.pack("fw-2", {"a": "2"}))
    put(firmware, HAND, "fw-3")
    other = firmware.pack("fw-4", {"a": "4"})
    with pytest.raises(OnTrial, match=r"fw-3 is on trial; keep it with fussy confirm or take it back with"):
        firmware.install(other)
    for verb in ("rollback", "failsafe"):
        assert "is on trial" in firmware.run(verb, fails=12)
    with settled(firmware) as held:
        assert clean.clean(held) == []
    firmware.run("reject")
    assert current(firmware) == "fw-2"
    assert now(firmware).previous == "fw-1" and (firmware.target / "fw-1").is_dir(), "there is a way back again"


def test_there_is_no_trial_when_there_is_no_way_back(tmp_path: Path, keys: Keys, etc: Path) -> None:
    firmware = Firmware(tmp_path, keys)
    put(firmware, HAND)
    assert now(firmware).trial is None


def test_current_was_changed_by_hand(firmware: Firmware) -> None:
    put(firmware, HAND)
    install.swap_link(firmware.target / "fw-1", firmware.target / "current")
    with settled(firmware):
        assert now(firmware).trial is None
    assert current(firmware) == "fw-1"


def test_states_of_old_and_of_newer_fussys_load(firmware: Firmware) -> None:
    file = firmware.target / ".fussy/state.json"
    old = {"format": 1, "previous": "fw-0", "floor": "", "transaction": None, "bad": [],
           "last": {"outcome": "installed", "release": "fw-1", "reason": "", "at": 1}}
    file.write_text(json.dumps(old))
    assert (now(firmware).previous, now(firmware).trial) == ("fw-0", None)
    file.write_text(json.dumps({**old, "last": {**old["last"], "outcome": "applauded"}, "praise": 1}))
    assert now(firmware).previous == "fw-0"
    interrupted = {"release": "fw-1", "previous": "", "action": "install", "stage": "enabling", "digest": "",
                   "attempts": 0}
    file.write_text(json.dumps({**old, "transaction": interrupted}))
    with settled(firmware):
        assert now(firmware).transaction is None


# --- what the owner demands ------------------------------------------------------------------------------------------


def test_the_owner_demands_more(firmware: Firmware, etc: Path) -> None:
    (etc / "trial.toml").write_text('confirm = "hand"\nseconds = 60\n')
    firmware.install(firmware.pack("fw-2", {"a": "2"}))
    on = now(firmware).trial
    assert on and (on.confirm, on.seconds) == ("hand", 60)


def test_the_owner_cannot_demand_less(firmware: Firmware, etc: Path) -> None:
    (etc / "trial.toml").write_text('confirm = "checks"\nseconds = 9999\n')
    put(firmware, BOOT)
    on = now(firmware).trial
    assert on and (on.confirm, on.seconds) == ("boot", 600)
    assert owner.stricter(Trial("hand", 60), Trial("hand", 90, 9)) == Trial("hand", 60, 2)


def test_the_owners_checks_are_asked(firmware: Firmware, etc: Path) -> None:
    (etc / "health.d/wan").write_text("#!/bin/sh\necho no answer from the provider; exit 1\n")
    (etc / "health.d/wan").chmod(0o755)
    (etc / "health.d/.hidden").touch()
    (etc / "health.d/old~").touch()
    (etc / "trial.toml").write_text("seconds = 0.5\n")
    with pytest.raises(Reverted, match=r"'health.d/wan' did not pass.*no answer from the provider"):
        put(firmware, {})
    assert current(firmware) == "fw-1"
    (etc / "health.d/wan").unlink()
    (etc / "health.d/a.toml").write_text('command = ["cat", "a"]\ncontains = "fw-3"\n')
    (etc / "health.d/b.json").write_text('{"command": ["cat", "state"], "contains": "well"}')
    put(firmware, {}, "fw-3")
    assert current(firmware) == "fw-3"


def test_what_the_owner_wrote_wrong_is_told_before_anything_happens(firmware: Firmware, etc: Path) -> None:
    (etc / "health.d/a.toml").write_text("comand = []\n")
    (etc / "health.d/b.json").write_text("{}")
    (etc / "health.d/c.toml").write_text("seconds =\n")
    (etc / "health.d/d").write_text("#!/bin/sh\n")
    with pytest.raises(SystemSetup) as error:
        put(firmware, {})
    for words in ("a.toml: Object contains unknown field `comand`", "b.json: health check 'health.d/b.json' needs one",
                  "c.toml: ", "d: neither a program"):
        assert words in str(error.value)
    for file in (etc / "health.d").iterdir():
        file.unlink()
    (etc / "trial.toml").write_text('confirm = "maybe"\n')
    with pytest.raises(SystemSetup, match=r"trial\.toml: Invalid enum value 'maybe'"):
        put(firmware, {}, "fw-3")
    assert current(firmware) == "fw-1"
    assert now(firmware).transaction is None
    (etc / "trial.toml").unlink()
    put(firmware, {}, "fw-4")


def test_what_the_owner_writes_wrong_later_does_not_stop_the_boot(
    firmware: Firmware, etc: Path, life: Life
) -> None:
    put(firmware, HAND)
    (etc / "trial.toml").write_text("confirm = \n")
    (etc / "health.d/a.toml").write_text("?")
    with settled(firmware) as held, pytest.raises(SystemSetup):
        confirm.examine(held)
    assert current(firmware) == "fw-2"
    for _ in range(3):
        life.boot()
        firmware_recovers_early(firmware)
    with settled(firmware):
        assert current(firmware) == "fw-1"
    assert now(firmware).transaction is None


# --- what worked before ----------------------------------------------------------------------------------------------


def test_only_what_worked_before_is_demanded(firmware: Firmware, etc: Path, tmp_path: Path) -> None:
    works, never = tmp_path / "works", tmp_path / "never"
    works.touch()
    for name, file in (("works", works), ("never", never)):
        (etc / f"health.d/{name}.toml").write_text(f'command = ["test", "-e", "{file}"]\nkept = true\nseconds = 0.1\n')
    put(firmware, {})
    assert current(firmware) == "fw-2"
    breaks = {"a": "3", ".post-install": f"#!/bin/sh\nrm {works}\n"}
    with pytest.raises(Reverted, match=r"'health.d/works.toml' did not pass"):
        firmware.install(firmware.pack("fw-3", breaks))
    assert current(firmware) == "fw-2"


def test_lines_that_were_there_must_be_there(firmware: Firmware, etc: Path, tmp_path: Path, life: Life) -> None:
    chutes = tmp_path / "chutes"
    chutes.write_text("one\ntwo\n")
    running = {"name": "chutes", "lines": ["/bin/cat", str(chutes)], "seconds": 0.1}
    more = {".post-install": f"#!/bin/sh\necho three >> {chutes}\n"}
    firmware.install(firmware.pack("fw-2", more, release={"health": [running]}))
    fewer = {".post-install": f"#!/bin/sh\necho two > {chutes}\n"}
    with pytest.raises(Reverted, match=r"there before and now missing: one, three"):
        firmware.install(firmware.pack("fw-3", fewer, release={"health": [running]}))
    chutes.write_text("one\n")
    put(firmware, BOOT, "fw-4", health=[running])
    chutes.write_text("")
    life.boot()
    with settled(firmware) as held, pytest.raises(Reverted, match="now missing: one"):
        confirm.examine(held)  # what worked before is remembered over the boot


def test_a_check_needs_one_question(firmware: Firmware) -> None:
    with pytest.raises(FussyError, match=r"'a' needs one of command, .*; health check 'b' needs one of"):
        firmware.pack("fw-2", {}, release={"health": [{"name": "a"}, {"name": "b", "unit": "x", "tcp": "y:1"}]})
