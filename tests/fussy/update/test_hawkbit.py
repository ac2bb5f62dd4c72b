"""A router led by a hawkBit server: what it installs, what it tells, who else has a say, what is not believed."""

import random
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fussy import state
from fussy.updating import actions, hawkbit
from fussy.updating.ddi import Feedback
from tests.fussy.channels import Channel
from tests.fussy.firmware import Firmware

from .ddi import HERE, TOKEN, Hawkbit, bundle, has, table
from .router import Router
from .web import Answer, Server

FAILS = "#!/bin/sh\n[ \"$2\" = True ]\n"


# --- what it installs, and what it tells ------------------------------------------------------------------------------


def test_the_first_release_then_a_delta_then_nothing(firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    fleet.offer(7, bundle(firmware, 1), name="platform", version="1.0")
    assert led.update(check=True, expect="available").line.startswith("platform (version 1.0) is there: a full bundle")
    assert led.update(dry_run=True, expect="available").exit_code == 0
    assert (fleet.told, fleet.data) == ([], {}), "who only looks tells nothing"
    assert "updated to firmware-1 (version 1.0) by a full bundle" in led.update(expect="updated").line
    assert fleet.lines() == ["download none: downloading a full bundle of platform (version 1.0)",
                             "proceeding none: installing platform (version 1.0)",
                             "closed success: platform (version 1.0) is in use"]
    assert fleet.data["fussy"] and "version" not in fleet.data, "it was asked before there was one"

    fleet.told.clear()
    fleet.offer(8, bundle(firmware, 2), bundle(firmware, 2, led.target / "firmware-1"), version="2.0")
    line = led.update(expect="updated").line
    assert "updated from 1.0 to firmware-2 (version 2.0) by a delta bundle" in line
    assert fleet.lines()[-1] == "closed success: firmware (version 2.0) is in use"

    fleet.requests.clear()
    assert led.update(expect="nothing-new").exit_code == 0
    assert fleet.requests == [HERE], "one small request"
    assert list((led.private / "downloads").iterdir()) == []
    assert led.record.source == f"{fleet.url}/{HERE}"
    assert f"source    {fleet.url}/{HERE}" in led.run(verb="status")


def test_a_delta_whose_base_is_not_here_is_not_even_fetched(firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    has(led, fleet, firmware)
    old = bundle(firmware, 2, led.target / "firmware-1")
    shutil.rmtree(led.target / "firmware-1")
    (led.target / "current").unlink()
    fleet.offer(8, old, bundle(firmware, 2))
    assert "by a full bundle" in led.update(expect="updated").line
    assert fleet.requests.count(old.name) == 0
    fleet.offer(9, old)
    assert led.update(expect="failed").exit_code == 21
    assert fleet.lines()[-1] == (f"closed failure: cannot update: {fleet.url}/{HERE} names no bundle that this router "
                                 "can use")


def test_success_is_told_when_the_trial_is_confirmed(firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    has(led, fleet, firmware)
    fleet.offer(8, bundle(firmware, 2, trial={"confirm": "hand", "seconds": 3600}), version="2.0")
    assert led.update(expect="updated").line.endswith("; it is on trial now")
    assert fleet.lines()[-1] == "proceeding none: firmware (version 2.0) is on trial"
    told = len(fleet.told)
    led.update(expect="on-trial")
    assert len(fleet.told) == told, "nothing new is to be told"
    led.run(verb="confirm")
    led.update(expect="nothing-new")
    assert fleet.lines(told) == ["closed success: firmware (version 2.0) is in use"]


def test_failure_is_told_with_its_reason_and_the_release_is_never_taken_again(
        firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    has(led, fleet, firmware)
    bad = bundle(firmware, 2, files={".post-install": FAILS})
    fleet.offer(8, bad, version="2.0")
    assert led.update(expect="reverted").exit_code == 3
    assert fleet.lines()[-1].startswith("closed failure: firmware (version 2.0) failed here: cannot finish ")
    assert led.current() == "firmware-1"
    fleet.requests.clear()
    fleet.offer(9, bad, version="2.0")
    assert led.update(expect="refused", insist=True).exit_code == 26
    assert fleet.lines()[-1].startswith("closed failure: cannot update: firmware (version 2.0) failed on this device")
    assert bad.name not in fleet.requests, "it is known by its digest"
    assert led.update(expect="nothing-new").exit_code == 0

    fleet.offer(10, bundle(firmware, 3, trial={"confirm": "hand", "seconds": 3600}), version="3.0")
    led.update(expect="updated")
    led.run("--reason", "the Wi-Fi is slow", verb="reject")
    led.update(expect="nothing-new")
    assert fleet.lines()[-1] == "closed failure: firmware (version 3.0) failed here: the Wi-Fi is slow"


def test_what_is_in_use_already_is_a_success(firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    has(led, fleet, firmware)
    for number in (8, 9):
        fleet.requests.clear()
        fleet.offer(number, firmware.bundles["firmware-1"], version="1.0")
        led.update(expect="nothing-new")
        assert fleet.lines()[-1] == "closed success: firmware (version 1.0) is in use already"
        assert "firmware-1.tar.gz.gpg" not in fleet.requests


# --- the server is away -----------------------------------------------------------------------------------------------


def test_what_could_not_be_told_is_told_when_the_server_is_back(firmware: Firmware, fleet: Hawkbit,
                                                                led: Router) -> None:
    has(led, fleet, firmware)
    fleet.offer(8, bundle(firmware, 2), version="2.0")
    fleet.fault = lambda path, answer: Answer(503) if path.startswith("POST") else answer
    led.update(expect="updated")
    assert led.current() == "firmware-2" and fleet.told == []
    assert [one.finished for one in actions.load(led.private, f"{fleet.url}/{HERE}").unsent] == ["success"]
    led.update(expect="unreachable")
    fleet.fault = None
    led.update(expect="nothing-new")
    assert fleet.lines() == ["closed success: firmware (version 2.0) is in use"]
    assert fleet.told[0]["time"].endswith("Z")
    led.update(expect="nothing-new")
    assert len(fleet.told) == 1


def test_an_action_that_the_server_shows_again_is_not_done_again(firmware: Firmware, fleet: Hawkbit,
                                                                 led: Router) -> None:
    """As it does when its database comes from a backup."""
    has(led, fleet, firmware)
    fleet.offer(8, bundle(firmware, 2, files={".post-install": FAILS}), version="2.0")
    led.update(expect="reverted")
    first = fleet.lines()[-1]
    fleet.offer(8, bundle(firmware, 2), version="2.0")
    fleet.requests.clear()
    led.update(expect="nothing-new")
    assert fleet.lines()[-1] == first and "firmware-2.tar.gz.gpg" not in fleet.requests


def test_the_channel_decides_when_the_server_is_away_for_long(
        tmp_path: Path, channel: Channel, server: Server, router: Router, fleet: Hawkbit) -> None:
    """And an action of the server goes before all that the channel has, as long as it can be asked."""
    (tmp_path / "token").write_text(TOKEN)
    router.set(server.url, hawkbit=table(fleet, tmp_path))
    channel.add(1)
    router.update(expect="nothing-new")
    assert server.requests == [], "the server was asked, it has nothing: so be it"

    fleet.fault = lambda path, answer: Answer(503)
    away = router.update(expect="unreachable")
    assert (away.exit_code, server.requests) == (50, [])
    assert f"{fleet.url}/{HERE} answers with HTTP status 503" in away.line
    later = msgspec.structs.replace(kept := actions.load(router.private, f"{fleet.url}/{HERE}"),
                                    away_since=kept.away_since - 24 * 3600)
    actions.save(router.private, later)
    router.set(server.url, hawkbit=table(fleet, tmp_path, when_away="stay"))
    router.update(expect="unreachable")
    router.set(server.url, hawkbit=table(fleet, tmp_path))
    done = router.update(expect="updated")
    assert "updated to firmware-1 (version 1.0) by a full bundle" in done.line
    assert "; the hawkBit server has been away since " in done.line
    assert done.source == server.url

    fleet.fault = None
    channel.add(2)
    server.requests.clear()
    router.update(expect="nothing-new")
    assert server.requests == [] and not actions.load(router.private, f"{fleet.url}/{HERE}").away_since


def test_what_failed_by_one_is_refused_by_the_other_before_it_is_downloaded(
        tmp_path: Path, channel: Channel, server: Server, router: Router, fleet: Hawkbit) -> None:
    """The server tells the release's digest, or has the channel's own file; of the channel the digest is signed."""
    (tmp_path / "token").write_text(TOKEN)
    router.set(server.url, hawkbit=table(fleet, tmp_path, away_hours=0.0))

    def channel_fails(number: int) -> str:
        channel("add", "router", channel.tree(number, {"a": str(number), ".post-install": FAILS}))
        fleet.fault = lambda path, answer: Answer(503)
        router.update(expect="reverted")
        fleet.fault = None
        return state.load(router.found).bad[-1].digest

    def refused(number: int, file: Path, **more: Any) -> None:
        fleet.offer(number, file, version="2.0", **more)
        assert router.update(expect="refused").exit_code == 26
        assert fleet.lines()[-1].startswith("closed failure: cannot update: firmware (version 2.0) failed on this ")
        assert file.name not in fleet.requests

    channel.add(1)
    fleet.fault = lambda path, answer: Answer(503)
    router.update(expect="updated")
    digest = channel_fails(2)
    again = channel.firmware.pack_tree(channel.place / "trees/firmware-2")
    refused(8, again, metadata={"digest": digest})
    own = fleet.directory / "firmware-2.tar.zst.gpg"
    shutil.copy(next((channel.where.channel / "targets/router").glob("*.firmware-2.tar.zst.gpg")), own)
    refused(9, own)

    channel("withdraw", "router", "firmware-2")
    bad = channel.firmware.tree("firmware-3", {"a": "3", ".post-install": FAILS}, {"version": "3.0"})
    fleet.offer(10, channel.firmware.pack_tree(bad), version="3.0")
    router.update(expect="reverted")
    channel("add", "router", bad)
    fleet.fault = lambda path, answer: Answer(503)
    server.requests.clear()
    assert router.update(expect="refused").exit_code == 26
    assert not [path for path in server.requests if path.startswith("targets")]


def test_a_build_server_is_asked_by_hand_only(tmp_path: Path, fleet: Hawkbit, led: Router) -> None:
    led.set(product="", hawkbit=table(fleet, tmp_path), on_demand={"server": "http://127.0.0.1:9"})
    led.update(expect="nothing-new")
    fleet.requests.clear()
    led.run("--on-demand", fails=40)
    assert fleet.requests == []


# --- cancelled --------------------------------------------------------------------------------------------------------


def test_an_action_is_stopped_until_it_is_installed(firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    has(led, fleet, firmware)
    fleet.offer(8, bundle(firmware, 2), version="2.0")
    led.run(verb="hold")
    led.update(expect="held")
    fleet.cancel = True
    led.update(expect="nothing-new")
    assert fleet.told[-1]["kind"] == "cancelAction"
    assert fleet.lines()[-1] == "closed success: stopped; nothing was installed"
    led.run("--release", verb="hold")

    def cancelled(path: str, answer: Answer) -> Answer:
        fleet.cancel = fleet.cancel or path.endswith(".gpg")
        return answer

    fleet.offer(9, bundle(firmware, 2), version="2.0")
    fleet.fault = cancelled
    done = led.update(expect="nothing-new")
    assert done.line == "nothing new: the server took firmware (version 2.0) back"
    assert fleet.lines()[-1] == "closed success: stopped; nothing was installed"
    assert led.current() == "firmware-1" and list((led.private / "downloads").iterdir()) == []


def test_what_is_installed_is_not_stopped(firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    has(led, fleet, firmware)
    fleet.offer(8, bundle(firmware, 2, trial={"confirm": "hand", "seconds": 3600}), version="2.0")
    led.update(expect="updated")
    fleet.cancel = True
    led.update(expect="on-trial")
    assert fleet.lines()[-1] == "rejected none: firmware (version 2.0) is installed and on trial"
    led.run(verb="confirm")
    led.update(expect="nothing-new")
    assert fleet.lines()[-1] == "closed success: firmware (version 2.0) is in use"


def test_what_is_being_downloaded_is_stopped_too(firmware: Firmware, fleet: Hawkbit, led: Router,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hawkbit, "_ASK_SECONDS", 0.0)
    has(led, fleet, firmware)
    big = firmware.pack("firmware-3", {"app": random.Random(1).randbytes(300_000)})
    fleet.offer(8, big, version="3.0")

    def cancelled(path: str, answer: Answer) -> Answer:
        fleet.cancel = fleet.cancel or path.endswith(".gpg")
        return answer

    fleet.fault = cancelled
    led.update(expect="nothing-new")
    assert fleet.lines()[-1] == "closed success: stopped; nothing was installed"


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_of_what_is_to_be_told_the_last_and_the_ends_are_kept() -> None:
    kept = actions.begun(actions.Kept(), "8", "it")
    for line in ("one", "two"):
        kept = actions.told(kept, Feedback("8", 1, "proceeding", line))
    assert [one.line for one in kept.unsent] == ["two"]
    kept = actions.told(kept, Feedback("8", 2, "closed", "done", "success"))
    assert ([one.line for one in kept.unsent], kept.action) == (["done"], None)
    kept = actions.told(actions.begun(kept, "9", "more"), Feedback("9", 3, "closed", "sad", "failure"))
    assert [one.line for one in kept.unsent] == ["done", "sad"]
    end = actions.end_of(kept, "8")
    assert end and end.line == "done" and not actions.end_of(kept, "10")
    assert [one.line for one in actions.sent(kept, end).unsent] == ["sad"]


def test_another_server_has_nothing_to_do_with_it(led: Router, fleet: Hawkbit) -> None:
    led.update(expect="nothing-new")
    actions.save(led.private, actions.Kept("here", away_since=5))
    assert actions.load(led.private, "here").away_since == 5
    assert actions.load(led.private, "there") == actions.Kept("there")
    (led.private / "hawkbit.json").write_bytes(b"\xff")
    assert actions.load(led.private, "here") == actions.Kept("here")
