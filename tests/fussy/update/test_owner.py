"""What the router's owner sets: when updates are installed, from where, and what is said about it."""

import doctest
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from fussy import windows
from fussy.errors import FussyError, SystemSetup
from fussy.updating import choose, clock, history, record, settings, update
from fussy.updating.record import Owner, Record
from tests.fussy.conftest import Keys

from .router import Router
from .simulator import Repository
from .web import Server


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "channel")
    made.offer("1.0")
    return made


@pytest.fixture
def router(tmp_path: Path, keys: Keys, repository: Repository, server: Server) -> Router:
    """A router that would install version 1.0; it can't, because no bundle of the simulator is one."""
    return Router(tmp_path, keys, repository.metadata / "1.root.json", server.url)


def test_examples() -> None:
    for module in (windows, clock, choose):
        assert doctest.testmod(module).failed == 0


# --- when -------------------------------------------------------------------------------------------------------------


def test_a_hold_has_no_end_but_the_owners(router: Router, server: Server) -> None:
    assert router.run("--reason", "the show is on", verb="hold") == "updates are held\n"
    waiting = "firmware-1.0 (version 1.0) waits: the owner holds updates (the show is on)"
    assert waiting in router.run("--check", fails=11)
    assert router.run(fails=11) == "", "cron need not tell who knows it"
    assert not any(path.startswith("targets") for path in server.requests)
    assert (router.record.outcome, router.record.waiting and router.record.waiting.version) == ("held", "1.0")
    assert router.run("--release", verb="hold") == "updates go on\n"
    router.update(check=True, expect="available")


def test_a_hold_until_a_day_and_a_postponement_end_by_themselves(router: Router) -> None:
    record.save_owner(router.found, Owner(held=True, held_until=int(time.time())))
    router.update(check=True, expect="available")
    said = router.run("--until", "2000-01-01", verb="hold", fails=1)
    assert "cannot hold until 2000-01-01: by this router's clock that is over; it shows 20" in said
    assert "--release ends a hold" in router.run("--release", "--until", "2999-12-24", verb="hold", fails=2)
    router.run("--until", "2999-12-24T18:00", verb="hold")
    assert "until 2999-12-24 18:00" in router.update(check=True, expect="held").line
    assert "cannot hold until 'tomorrow'" in router.run("--until", "tomorrow", verb="hold", fails=1)
    assert "updates are postponed until" in router.run("2.5", verb="postpone")
    waits = router.update(check=True, expect="postponed")
    assert abs(waits.next_window - (time.time() + 2.5 * 86400)) < 60
    record.save_owner(router.found, Owner(postponed=int(time.time())))
    router.update(check=True, expect="available")
    for days in ("0", "31"):
        assert "at most 30" in router.run(days, verb="postpone", fails=1)


def test_a_window(router: Router, server: Server) -> None:
    later = datetime.now() + timedelta(hours=3)
    router.set(server.url, window=f"{later:%H:%M}-{later + timedelta(minutes=5):%H:%M}")
    waits = router.update(expect="outside-window")
    assert waits.exit_code == 11 and f"opens {later:%Y-%m-%d %H:%M}" in waits.line
    assert datetime.fromtimestamp(waits.next_window).strftime("%H:%M") == f"{later:%H:%M}"
    router.set(server.url, window=f"{later - timedelta(hours=4):%H:%M}-{later:%H:%M}")
    router.update(check=True, expect="available")


def test_the_window_is_written_into_the_settings_and_nothing_else_changes(tmp_path: Path) -> None:
    release = tmp_path / "release.toml"
    release.write_text("# ours\nproduct = 'router'\nsources = ['/a']  # a stick\nwindow='01:00-02:00'\n"
                       "[on_demand]\nserver = ''\n")
    release.chmod(0o644)
    toml = tmp_path / "update.toml"
    toml.symlink_to(release)
    settings.set_window(toml, "Sat,Sun 22:00-04:00")
    assert toml.read_text() == ("# ours\nproduct = 'router'\nsources = ['/a']  # a stick\n"
                                'window = "Sat,Sun 22:00-04:00"\n[on_demand]\nserver = \'\'\n')
    assert (toml.is_symlink(), toml.stat().st_mode & 0o777) == (False, 0o644)
    assert "01:00" in release.read_text(), "a release stays what was signed"
    settings.set_window(toml, "")
    assert settings.load(toml).window == ""
    toml.write_text("# >>> from the server\nproduct = 'router'\nsources = ['/a']\n# <<<\n")
    settings.set_window(toml, "02:00-05:00")
    assert toml.read_text().startswith('window = "02:00-05:00"\n# >>> from the server\n'), "not between its marks"
    with pytest.raises(FussyError, match="cannot set the window: 'at night' is no window"):
        settings.set_window(toml, "at night")
    toml.write_text("product = 'router'\nsources = [\n['x'][0]\n]\n")
    with pytest.raises(SystemSetup, match="cannot read"):
        settings.set_window(toml, "02:00-05:00")
    with pytest.raises(SystemSetup, match="there is no"):
        settings.set_window(tmp_path / "nothing", "02:00-05:00")


@pytest.mark.parametrize("security", [False, True])
def test_a_security_fault_does_not_wait_for_the_publishers_window(repository: Repository, router: Router,
                                                                  security: bool) -> None:
    later = datetime.now() + timedelta(hours=3)
    repository.offer("2.0", window=f"{later:%H:%M}-{later + timedelta(minutes=5):%H:%M}", security=security)
    router.update(check=True, expect="available" if security else "outside-window")


def test_notify_only_and_off(router: Router, server: Server) -> None:
    router.set(server.url, mode="notify")
    assert "install it with fussy update --now" in router.update(expect="notify-only").line
    router.set(server.url, mode="off")
    server.requests.clear()
    assert router.run() == ""
    assert server.requests == [] and router.record.outcome == "off"


def test_now_goes_before_all_of_it(repository: Repository, router: Router, server: Server) -> None:
    repository.offer("2.0", percent=0.0)
    router.set(server.url, mode="off", window="Mon 03:00-03:01")
    router.run(verb="hold")
    done = router.update(insist=True)
    assert any(path.endswith(".firmware-2.0.gpg") for path in server.requests)
    assert done.exit_code == 20, "what was fetched is no bundle"
    router.run("--now", fails=20)  # the one before it is none either
    for _ in range(2):
        assert "no usable bundle of firmware-2.0" in router.run("--now", fails=26), "who says so is told each time"


def test_a_roll_out_reaches_a_device_for_good(repository: Repository, router: Router, server: Server) -> None:
    names = [f"device {number}" for number in range(40)]
    reached: set[str] = set()
    for number, percent in enumerate((0.0, 30.0, 60.0, 100.0)):
        repository.signed["router"].targets.clear()
        repository.offer("2.0", percent=percent, seed="the same")
        now = set()
        for name in names:
            router.set(server.url, device=name)
            done = router.update(check=True)
            assert done.outcome in ("available", "roll-out")
            now |= {name} if done.outcome == "available" else set()
        assert reached <= now
        assert abs(len(now) - 40 * percent / 100) <= 10, number
        reached = now
    assert reached == set(names)


# --- from where -------------------------------------------------------------------------------------------------------


def test_a_usb_stick_is_asked_where_it_is_plugged_in(repository: Repository, router: Router, server: Server,
                                                     tmp_path: Path) -> None:
    router.set(f"{tmp_path}/media/*/channel", server.url)
    assert router.update(check=True, expect="available").source == server.url
    shutil.copytree(repository.metadata.parent, tmp_path / "media/stick/channel")
    server.requests.clear()
    assert router.update(check=True, expect="available").source == f"{tmp_path}/media/stick/channel"
    assert server.requests == ["metadata/timestamp.json"], "whether there is something newer"
    router.set(f"{tmp_path}/nowhere/*")
    gone = router.update(check=True, expect="unreachable")
    assert gone.exit_code == 50 and "no directory that `sources` names holds one now" in gone.line


def test_a_directory_is_no_settings(tmp_path: Path) -> None:
    with pytest.raises(SystemSetup, match="Is a directory; name another file with --settings$"):
        settings.load(tmp_path)


def test_mistakes_in_the_settings_are_told_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "update.toml"
    path.write_text('sources = ["ftp://x"]\nwindow = "late"\nbandwidht = 5\nbandwidth = 10\npatience = "long"\n'
                    'mode = "manual"\n')
    with pytest.raises(SystemSetup) as caught:
        settings.load(path)
    for part in ("'ftp://x' is neither", "product: name", "'late' is no window", "no setting 'bandwidht'",
                 "must not be below lowest_speed", "patience: Expected `float`",
                 "mode: write one of automatic, notify, off;"):
        assert part in str(caught.value)
    path.write_text('[hawkbit]\nurl = "/x"\ntenant = "joe"\ntoken = "a"\ntoken_file = "/b"\naway_hours = -1\n')
    with pytest.raises(SystemSetup, match="hawkbit: url: '/x' is not .*; hawkbit: name: .*; hawkbit: token: .*; "
                                          "hawkbit: away_hours: must not be below 0$"):
        settings.load(path)
    with pytest.raises(SystemSetup, match="there is no .*nothing; write one"):
        settings.load(tmp_path / "nothing")


def test_a_product_that_the_channel_lacks(router: Router, server: Server) -> None:
    router.set(server.url, product="toaster")
    done = router.update(check=True, expect="failed")
    assert done.exit_code == 40 and "cannot find the product 'toaster'" in done.line


# --- what is said -----------------------------------------------------------------------------------------------------


def test_cron_is_told_once_and_again_after_a_day(router: Router, server: Server) -> None:
    router.set(server.url, mode="notify")
    assert "version 1.0" in router.run(fails=11)
    assert router.run(fails=11) == ""
    old = router.record
    assert old.told and not update.should_tell(old, old)
    assert update.should_tell(old, msgspec.structs.replace(old, at=old.told + update.DAY))


def test_a_network_that_is_down_is_told_after_a_day() -> None:
    down = Record(at=100_000, outcome="unreachable", line="down", exit_code=50, checked=90_000)
    assert not update.should_tell(Record(), down)
    assert update.should_tell(Record(), msgspec.structs.replace(down, checked=10_000))


def test_the_history_survives_a_torn_line_and_stays_small(router: Router) -> None:
    router.update(check=True, expect="available")
    place = router.private
    with (place / "history.jsonl").open("a") as file:
        file.write('{"at": 17')
    router.run(verb="hold")
    router.update(check=True, expect="held")
    assert [event.outcome for event in history.read(place)] == ["available", "held"]
    for number in range(1100):
        history.append(place, history.Event(number, "updated", str(number)))
    assert 500 <= len(history.read(place)) <= 1000 and history.read(place)[-1].line == "1099"
    assert router.run("-n", "2", verb="log").splitlines()[-1].endswith("updated        1099")


def test_what_can_not_be_read_counts_as_absent(router: Router) -> None:
    router.update(check=True, expect="available")
    for name in ("state.json", "owner.json", "trusted.json", "history.jsonl"):
        (router.private / name).write_bytes(b"\xff\xfe{")
    router.update(check=True, expect="available")
    assert router.record.checked > datetime(2026, 1, 1, tzinfo=UTC).timestamp()
