"""A router led by a hawkBit server: what it installs, what it tells, who else has a say, what is not believed."""

import json
import random
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fussy import state
from fussy.updating import actions, hawkbit
from fussy.updating.ddi import Feedback
from tests.fussy.channels import Channel
from tests.fussy.conftest import Keys
from tests.fussy.firmware import Firmware

from .ddi import HERE, TOKEN, Hawkbit
from .router import Router
from .web import Answer, Server, running

FAILS = "#!/bin/sh\n[ \"$2\" = True ]\n"


@pytest.fixture
def firmware(tmp_path: Path, keys: Keys) -> Firmware:
    return Firmware(tmp_path, keys)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Hawkbit]:
    (tmp_path / "bundles").mkdir()
    with running(Hawkbit(tmp_path / "bundles")) as server:
        yield server


@pytest.fixture
def led(tmp_path: Path, keys: Keys, fleet: Hawkbit) -> Router:
    """A router that has only the hawkBit server to ask."""
    (tmp_path / "none").write_text("")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return Router(tmp_path, keys, tmp_path / "none", product="", hawkbit=table(fleet, tmp_path))


def table(fleet: Hawkbit, place: Path, **more: Any) -> dict[str, Any]:
    return {"url": fleet.url, "tenant": "joe", "name": "aardvark", "token_file": str(place / "token"), **more}


def bundle(firmware: Firmware, number: int, base: Path | None = None, **release: Any) -> Path:
    files = {"etc/version": str(number), "app": b"program" * 1000 + str(number).encode(), **release.pop("files", {})}
    tree = firmware.place / f"trees/firmware-{number}"
    if not tree.exists():
        firmware.tree(f"firmware-{number}", files, {"version": f"{number}.0", **release})
    return firmware.pack_tree(tree, base=base)


def has(router: Router, fleet: Hawkbit, firmware: Firmware, number: int = 1) -> None:
    """Bring a first release onto the ROUTER."""
    fleet.offer(1, bundle(firmware, number), name="firmware", version=f"{number}.0")
    router.update(expect="updated")
    assert (router.current(), fleet.deployment) == (f"firmware-{number}", None)
    fleet.told.clear()
    fleet.requests.clear()


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


def test_a_build_server_is_asked_by_hand_only(tmp_path: Path, fleet: Hawkbit, led: Router) -> None:
    led.set(product="", hawkbit=table(fleet, tmp_path), on_demand={"server": "http://127.0.0.1:9"})
    led.update(expect="nothing-new")
    fleet.requests.clear()
    led.run("--on-demand", fails=40)
    assert fleet.requests == []


# --- the owner, and the server's own window ---------------------------------------------------------------------------


def test_the_owner_goes_before_the_server_which_is_told_why(
        tmp_path: Path, firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    has(led, fleet, firmware)
    fleet.offer(8, bundle(firmware, 2), version="2.0")
    led.run("--reason", "the show is on", verb="hold")
    for _ in range(2):
        waits = led.update(expect="held")
    assert (waits.exit_code, waits.waiting and waits.waiting.version) == (11, "2.0")
    assert fleet.lines() == 2 * [
        "proceeding none: held: firmware (version 2.0) waits: the owner holds updates (the show is on)"]
    led.run("2", verb="postpone")
    led.update(expect="postponed")
    led.run("--release", verb="hold")
    led.set(product="", hawkbit=table(fleet, tmp_path), mode="notify")
    led.update(expect="notify-only")
    assert fleet.lines()[-1] == (
        "proceeding none: notify-only: firmware (version 2.0) is there: install it with fussy update --now")
    led.set(product="", hawkbit=table(fleet, tmp_path), window="Mon 03:00-03:01")
    led.update(expect="outside-window")
    assert "firmware-2.tar.gz.gpg" not in fleet.requests
    led.set(product="", hawkbit=table(fleet, tmp_path), mode="off")
    fleet.requests.clear()
    led.update(expect="off")
    assert fleet.requests == []
    led.update(expect="updated", insist=True)
    assert led.current() == "firmware-2"


def test_the_server_says_when_to_download_and_when_to_install(firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    has(led, fleet, firmware)
    new = bundle(firmware, 2)
    fleet.offer(8, new, version="2.0", download="skip", update="skip")
    assert led.update(expect="outside-window").exit_code == 11
    assert new.name not in fleet.requests
    fleet.offer(8, new, version="2.0", download="attempt", update="skip", maintenanceWindow="unavailable")
    led.update(expect="outside-window")
    waits = "downloaded none: firmware (version 2.0) waits for the maintenance window of the server"
    assert fleet.lines()[-1] == waits
    led.update(expect="outside-window")
    assert fleet.lines()[-2:] == [waits, waits], "it is downloaded once"
    fleet.offer(8, new, version="2.0", download="forced", update="forced", maintenanceWindow="available")
    led.update(expect="updated")
    assert fleet.requests.count(new.name) == 1


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


# --- what is not believed ---------------------------------------------------------------------------------------------


def test_a_bundle_is_verified_whatever_the_server_says(
        keys: Keys, firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    has(led, fleet, firmware, 2)
    fleet.offer(8, bundle(firmware, 1), version="9.0")
    assert led.update(expect="failed").exit_code == 22
    assert fleet.lines()[-1] == ("closed failure: cannot update: the server wants version 1.0 on a router that has "
                                 "2.0; fussy-install or fussy rollback goes back")
    tree = firmware.tree("firmware-3", {"etc/version": "3"}, {"version": "3.0"})
    fleet.offer(9, firmware.pack_tree(tree, sign_with=keys.foreign), version="3.0")
    assert led.update(expect="failed").exit_code == 20
    assert fleet.lines()[-1].startswith("closed failure: cannot ")
    tree = firmware.tree("firmware-4", {"etc/version": "4"}, {"version": "4.0", "compatible": ["toaster"]})
    fleet.offer(10, firmware.pack_tree(tree), version="4.0")
    assert led.update(expect="failed").exit_code == 22
    assert led.current() == "firmware-2" and state.load(led.found).bad == []


def test_links_lead_nowhere_else(firmware: Firmware, fleet: Hawkbit, led: Router, tmp_path: Path) -> None:
    """The token is shown to the server alone, and the API of another host is never asked."""
    new = bundle(firmware, 1)
    with running(Hawkbit(fleet.directory)) as other:
        fleet.hosts[new.name] = other.url.replace("127.0.0.1", "localhost")
        fleet.offer(8, new, version="1.0")
        done = led.update(expect="untrusted")
        assert "another host, or from https any, is followed by https only" in done.line
        assert fleet.lines()[-1].startswith("proceeding none: ")
        # another port of the same host is another origin
        fleet.hosts[new.name] = other.url
        fleet.offer(8, new, version="1.0")
        fleet.fault = lambda path, answer: Answer(
            answer.status, answer.body.replace(f"{fleet.url}/{HERE}".encode(), f"{other.url}/{HERE}".encode()),
            answer.headers | {"Content-Length": ""}, cut=1 << 20) if path == HERE else answer
        led.update(expect="updated")
        assert other.shown == [""] and other.requests == [new.name]


def test_a_pinned_certificate_is_the_only_one_that_counts(tmp_path: Path, fleet: Hawkbit, led: Router) -> None:
    """Whatever name it has, and whatever the clock says; and it pins this server alone."""
    for name in ("own", "other"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                        "-nodes", "-subj", f"/CN={name}", "-keyout", f"{tmp_path}/{name}.key",
                        "-out", f"{tmp_path}/{name}.pem"], check=True, capture_output=True)
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(tmp_path / "own.pem", tmp_path / "own.key")
    fleet.http.socket = secure.wrap_socket(fleet.http.socket, server_side=True)
    fleet.url = fleet.url.replace("http:", "https:")
    for name, outcome in (("own", "nothing-new"), ("other", "unreachable"), ("", "unreachable")):
        led.set(product="", hawkbit=table(fleet, tmp_path, certificate=str(tmp_path / f"{name}.pem") if name else ""))
        done = led.update(expect=outcome)
        assert name == "own" or "can't prove who it is" in done.line, done.line
    assert len(fleet.shown) == 2, "look, and what the router is; the others never saw the token"


GOOD = json.dumps({"_links": {"deploymentBase": {"href": f"http://x/{HERE}/deploymentBase/8"}}}).encode()
HOSTILE = {
    "endless": (HERE, Answer(200, b"{", {"Content-Length": ""}, endless=True), "more than 1048576 bytes", 50),
    "html": (HERE, Answer(200, b"<html>log in</html>"), "a captive portal?", 50),
    "redirect": (HERE, Answer(302, b"", {"Location": "http://127.0.0.1:9/"}), "HTTP status 302", 50),
    "no json": (HERE, Answer(200, b"{]"), "does not answer as a hawkBit server does", 51),
    "deep": (HERE, Answer(200, b"[" * 100_000), "does not answer as a hawkBit server does", 51),
    "bytes": (HERE, Answer(200, b'{"_links": {"\xff": 1}}'), "does not answer as a hawkBit server does", 51),
    "wrong type": (HERE, Answer(200, b'{"_links": {"deploymentBase": "x"}}'), "does not answer as a hawkBit", 51),
    "odd link": (HERE, Answer(200, GOOD.replace(b"/8", b"/../..\\nx")), "is no link to deploymentBase", 51),
    "token refused": (HERE, Answer(401), "does not know this router by this token", 40),
    "unknown": (HERE, Answer(404), "does not know this router by this token", 40),
    "broken": (HERE, Answer(500), "HTTP status 500", 50),
    "other action": (f"{HERE}/deploymentBase/8", Answer(200, b'{"id": 9, "deployment": {"chunks": []}}'),
                     "asked for the action 8, it answers with the action 9", 51),
    "no chunks": (f"{HERE}/deploymentBase/8", Answer(200, b'{"id": 8, "deployment": {"chunks": []}}'),
                  "names no bundle that this router can use", 21),
    "odd handling": (f"{HERE}/deploymentBase/8", Answer(200, b'{"id": 8, "deployment": {"download": 1}}'),
                     "does not answer as a hawkBit server does", 51),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_answers_that_are_none_are_one_line(what: str, fleet: Hawkbit, led: Router) -> None:
    path, answer, said, code = HOSTILE[what]
    fleet.deployment = {"id": "8", "deployment": {"chunks": []}}
    fleet.wants_data = False
    fleet.fault = lambda asked, right: answer if asked == path else right
    out = led.run("-v", fails=code)
    line = out.splitlines()[-1]
    assert said in line and "Traceback" not in out, out


def test_a_download_that_is_something_else_is_tried_again(firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    fleet.offer(8, bundle(firmware, 1), version="1.0")
    fleet.fault = lambda path, answer: Answer(200, answer.body[:-1] + b"x") if path.endswith(".gpg") else answer
    assert "wrong hash" in led.update(expect="untrusted").line
    fleet.fault = lambda path, answer: Answer(
        answer.status, answer.body, answer.headers, cut=300) if path.endswith(".gpg") and not fleet.ranges else answer
    led.update(expect="updated")
    assert fleet.ranges == ["bytes=300-"]
    assert fleet.lines()[-1] == "closed success: firmware (version 1.0) is in use"


def test_a_token_that_is_none(tmp_path: Path, fleet: Hawkbit, led: Router) -> None:
    for text, said in (("", "token is empty"), ("a\nb", "token is empty or has letters"), (None, "cannot read")):
        (tmp_path / "token").unlink()
        if text is not None:
            (tmp_path / "token").write_text(text)
        assert said in led.update(expect="failed").line
        (tmp_path / "token").touch()
    led.set(product="", hawkbit=table(fleet, tmp_path, certificate=str(tmp_path / "token")))
    (tmp_path / "token").write_text(TOKEN)
    assert "is no certificate" in led.update(expect="failed").line


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
