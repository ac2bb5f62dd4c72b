"""What fussy status tells: as JSON by its schema, as metrics that Prometheus reads."""

import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

import fussy
from fussy import check, metrics, state, status, uptime
from fussy.errors import Reverted
from fussy.target import Target
from fussy.updating import record

from .conftest import Keys
from .firmware import Firmware

SCHEMA = json.loads(Path(fussy.__file__).with_name("status.schema.json").read_text())
FAILS = "#!/bin/sh\necho the radio is \\\\dead; exit 1\n"


def told(firmware: Firmware) -> dict[str, Any]:
    """Return what is told, which follows the schema, and nothing but it."""
    found: dict[str, Any] = json.loads(firmware.run("status", "--json"))
    jsonschema.validate(found, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert found.keys() == SCHEMA["$defs"]["Status"]["properties"].keys()
    return found


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    return {family.name: [(sample.labels, sample.value) for sample in family.samples]
            for family in text_string_to_metric_families(text)}


def test_the_schema_is_that_of_the_values() -> None:
    assert status.schema() == SCHEMA, "write status.schema() to status.schema.json"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_nothing_is_there(tmp_path: Path, keys: Keys) -> None:
    firmware = Firmware(tmp_path, keys)
    firmware.target.mkdir()
    found = told(firmware)
    assert found["current"] is found["trial"] is found["check"] is found["update"] is None
    assert samples(metrics.text(status.status(Target(firmware.target)), uptime.now())).keys() == {
        "fussy_trial", "fussy_status_uptime_seconds"}


@pytest.fixture
def firmware(tmp_path: Path, keys: Keys) -> Firmware:
    """A device that has seen all there is to tell."""
    firmware = Firmware(tmp_path, keys)
    firmware.install(firmware.pack("fw-1", {"a": "1"}, version="1"))
    firmware.run("failsafe")
    firmware.install(firmware.pack("fw-2", {"a": "2"}, version="2"))
    with pytest.raises(Reverted):
        firmware.install(firmware.pack("fw-3", {"a": "3", ".post-install": FAILS}, version="3"))
    firmware.install(firmware.pack("fw-4", {"a": "4"}, release={"version": "4", "trial": {"confirm": "hand"}}))
    firmware.run("check")
    waiting = record.Waiting("fw-5", "5", "0" * 64, 100)
    record.save(Target(firmware.target), record.Record(at=1_700_000_000, outcome="outside-window", line="it waits",
                                                       checked=1_700_000_000, waiting=waiting,
                                                       next_window=1_700_009_000))
    record.save_owner(Target(firmware.target), record.Owner(held=True, held_until=4_000_000_000, reason="a show"))
    return firmware


def test_everything_is_told(firmware: Firmware) -> None:
    found = told(firmware)
    assert [found[role]["name"] for role in ("current", "previous", "failsafe", "trial")] == [
        "fw-4", "fw-2", "failsafe", "fw-4"]
    assert (found["trial"]["waits_for"], found["trial"]["boots_left"]) == ("hand", 2)
    assert 3500 < found["trial"]["seconds_left"] <= 3600
    assert "the radio is \\dead" in found["bad"][0]["reason"]
    assert (found["last"]["outcome"], found["check"]["broken"]) == ("on-trial", 0)
    assert (found["update"]["waiting"], found["update"]["next_window"]) == ("5", 1_700_009_000)
    lines = firmware.run("status").splitlines()
    assert lines[1:5] == ["current   fw-4 (version 4)", "previous  fw-2 (version 2)", "failsafe  failsafe (version 1)",
                          "trial     fw-4: 60 minutes and 2 boots are left to say fussy confirm or fussy reject"]
    assert "window    5 may be installed from 2023-11-15 00:43:20Z" in lines
    assert "hold      updates are held until 2096-10-02 07:06:40Z (a show); fussy hold --release ends that" in lines
    assert [found["update"][name] for name in ("held", "held_until", "hold_reason")] == [True, 4_000_000_000, "a show"]
    assert any(line.startswith("check     ") and line.endswith("5 releases are whole") for line in lines)
    assert any(line.startswith("bad       ") and " fw-3: " in line for line in lines)


def test_what_is_held_for_the_next_release_is_told(firmware: Firmware) -> None:
    """Files that releases share take nothing."""
    firmware.run("confirm")
    assert told(firmware)["spare"] is None and "spare" not in firmware.run("status")
    spare = firmware.target / ".fussy/spare"
    (spare / "d").mkdir(parents=True)
    (spare / "own").write_bytes(bytes(1_000_000))
    os.link(firmware.target / "fw-4/a", spare / "d/a")
    holds = sum(path.stat().st_blocks * 512 for path in (spare, spare / "d", spare / "own"))
    assert told(firmware)["spare"] == holds >= 1_000_000
    assert f"spare     {holds / 1e6:.1f} MB of an old release, to make the next one of" in firmware.run("status")
    assert samples(metrics.text(status.status(Target(firmware.target)), uptime.now()))["fussy_spare_bytes"] == [
        ({}, holds)]


def test_what_the_owner_asked_for_is_told_as_long_as_it_counts(firmware: Firmware) -> None:
    target, now = Target(firmware.target), int(time.time())
    for owner, held, postponed in ((record.Owner(held=True, held_until=now), False, None),
                                   (record.Owner(postponed=now), False, None),
                                   (record.Owner(held=True), True, None),
                                   (record.Owner(postponed=now + 3600), False, now + 3600)):
        record.save_owner(target, owner)
        update = told(firmware)["update"]
        assert (update["held"], update["postponed"], update["held_until"]) == (held, postponed, None)
        assert ("\nhold " in firmware.run("status"), "\npostponed " in firmware.run("status")) == (
            held, bool(postponed))


def test_metrics_are_read_by_prometheus(firmware: Firmware, tmp_path: Path) -> None:
    file = tmp_path / "collector/fussy.prom"
    assert "cannot write" in firmware.run("status", "--prometheus", file, fails=40)
    file.parent.mkdir()
    file.write_text("old")
    assert firmware.run("status", "--prometheus", file) == ""
    assert [path.name for path in file.parent.iterdir()] == ["fussy.prom"]
    assert file.stat().st_mode & 0o777 == 0o644
    found = samples(file.read_text())
    assert found["fussy_release_info"] == [
        ({"role": role, "release": name, "version": version}, 1.0) for role, name, version in (
            ("current", "fw-4", "4"), ("previous", "fw-2", "2"), ("failsafe", "failsafe", "1"), ("trial", "fw-4", "4"))]
    assert found["fussy_trial"] == [({}, 1.0)]
    assert found["fussy_trial_boots_left"] == [({}, 2.0)]
    assert [labels for labels, _ in found["fussy_bad_release_timestamp_seconds"]] == [
        {"release": "fw-3", "version": "3"}]
    assert found["fussy_update_next_window_timestamp_seconds"] == [({}, 1_700_009_000.0)]
    assert found["fussy_update_held"] == [({}, 1.0)]
    assert found["fussy_check_broken_files"] == [({}, 0.0)]


def test_labels_are_escaped(firmware: Firmware) -> None:
    target = Target(firmware.target)
    odd = 'a "b" \\c\nd'
    state.save(target, state.State(bad=[state.Bad("fw", odd, "", "", 5)]))
    assert samples(metrics.text(status.status(target), uptime.now()))["fussy_bad_release_timestamp_seconds"] == [
        ({"release": "fw", "version": odd}, 5.0)]


def test_the_window_is_told_when_nothing_waits(firmware: Firmware, tmp_path: Path) -> None:
    settings = tmp_path / "update.toml"
    settings.write_text('sources = ["/nowhere"]\nproduct = "router"\nwindow = "02:00-05:00"\n')
    record.save(Target(firmware.target), record.Record())
    opens = json.loads(firmware.run("status", "--json", "-s", settings))["update"]["next_window"]
    assert 0 <= opens - time.time() < 86_400 or datetime.fromtimestamp(opens).hour in (2, 3, 4)
    assert "window    what comes may be installed from " in firmware.run("status", "-s", settings)
    settings.write_text(settings.read_text() + 'mode = "notify"\n')
    assert "may be installed from " not in firmware.run("status", "-s", settings), "nothing is, by itself"


def test_what_can_not_be_read_is_passed_over(firmware: Firmware) -> None:
    target = Target(firmware.target)
    (target.private / "check.json").write_text("?")
    assert check.load(target) is None
    assert told(firmware)["check"] is None
