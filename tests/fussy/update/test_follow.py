"""A router follows a channel made by fussy-publish: what it installs, how it gets it, what it says."""

import hashlib
import shutil
from pathlib import Path

import pytest

from fussy.errors import SystemSetup
from fussy.updating import fetching
from tests.fussy.channels import Channel

from .router import Router
from .web import Server


def test_the_first_release_then_a_delta_then_nothing_new(channel: Channel, server: Server, router: Router) -> None:
    channel.add(1)
    assert "updated to firmware-1 (version 1.0) by a full bundle" in router.update(expect="updated").line
    assert router.current() == "firmware-1"
    channel.add(2)
    assert router.run("--dry-run").startswith(
        "fussy update: would be updated from 1.0 to firmware-2 (version 2.0) by a delta bundle of 0.")
    assert router.current() == "firmware-1"
    assert "updated from 1.0 to firmware-2 (version 2.0) by a delta bundle" in router.update(expect="updated").line
    assert router.current() == "firmware-2"
    assert router.update(expect="nothing-new").exit_code == 0
    server.requests.clear()
    assert router.update(expect="nothing-new").exit_code == 0
    assert server.requests == ["metadata/timestamp.json"]
    assert list((router.private / "downloads").iterdir()) == []


def test_a_source_that_is_behind_hides_no_newer_one(
        channel: Channel, server: Server, router: Router, tmp_path: Path) -> None:
    """Wherever it stands in the list; and it is not said to lie."""
    channel.add(1)
    stick = tmp_path / "stick"
    shutil.copytree(channel.where.channel, stick)
    router.set(stick, server.url)
    router.update(expect="updated")
    router.update(expect="nothing-new")
    channel.add(2)
    for order in ((stick, server.url), (server.url, stick)):
        router.set(*order)
        server.requests.clear()
        done = router.update(expect="updated" if order[0] == stick else "nothing-new")
        assert done.source == server.url and not any("attack" in problem.why for problem in done.problems)
    assert router.current() == "firmware-2"
    server.requests.clear()
    router.update(expect="nothing-new")
    assert server.requests == ["metadata/timestamp.json"]
    router.set(stick)
    assert "rollback attack" in router.update(expect="untrusted").line


def test_while_a_release_is_on_trial_nothing_else_is_installed(channel: Channel, server: Server,
                                                               router: Router) -> None:
    channel.add(1)
    router.update(expect="updated")
    channel.add(2, trial={"confirm": "hand", "seconds": 3600})
    assert router.update(expect="updated").line.endswith("; it is on trial now")
    channel.add(3)
    server.requests.clear()
    waits = router.update(insist=True, expect="on-trial")
    assert (waits.exit_code, server.requests, router.current()) == (12, [], "firmware-2")
    router.run(verb="confirm")
    router.update(expect="updated")
    assert router.current() == "firmware-3"


def test_a_release_taken_back_in_its_trial_is_not_tried_again(channel: Channel, router: Router) -> None:
    channel.add(1)
    router.update(expect="updated")
    channel.add(2, trial={"confirm": "hand", "seconds": 3600})
    router.update(expect="updated")
    assert "firmware-1" in router.run("--reason", "the Wi-Fi is slow", verb="reject")
    assert router.current() == "firmware-1"
    assert router.update(expect="refused").exit_code == 26


def test_files_of_the_channel_for_others(channel: Channel, router: Router) -> None:
    """What self-repair asks for: the parts of a release, each whole and verified."""
    channel.add(1, "--parts")
    offered = fetching.offers(router.found, router.settings, router.keyring)
    part = next(offer for offer in offered if offer.kind == "part")
    half = router.private / "downloads" / f"{'0' * 64}.part"
    half.parent.mkdir()
    half.write_text("an update, half fetched")
    file = fetching.fetch(router.found, router.settings, part, router.keyring)
    assert file.is_relative_to(router.target)
    assert hashlib.file_digest(file.open("rb"), "sha256").hexdigest() == file.name
    assert half.exists()
    channel("withdraw", "router", "firmware-1")
    with pytest.raises(SystemSetup, match="does not offer it any more"):
        fetching.fetch(router.found, router.settings, part, router.keyring)


def test_who_goes_back_by_hand_is_told_that_the_updater_goes_on(channel: Channel, router: Router) -> None:
    for number in (1, 2):
        channel.add(number)
        router.update(expect="updated")
    told = "fussy update may install firmware-2 again; fussy hold keeps it from that\n"
    assert router.run(verb="rollback") == f"{router.target / 'firmware-1'}\n{told}"
    assert router.run("firmware-2", verb="rollback") == f"{router.target / 'firmware-2'}\n", "that is no way back"
    router.run(verb="hold")
    assert router.run(verb="rollback") == f"{router.target / 'firmware-1'}\n"


def test_a_wrong_address_is_told_in_one_line(channel: Channel, server: Server, router: Router, tmp_path: Path) -> None:
    wrong = f"{server.url}/nothing"
    for sources, line in (
        ([wrong], f"{wrong} has no metadata/timestamp.json (HTTP status 404)"),
        ([tmp_path], "no directory that `sources` names holds one now (with metadata/ in it)"),
    ):
        router.set(*sources)
        done = router.update(expect="unreachable")
        assert (done.line, done.exit_code) == (f"cannot reach a source of the channel: {line}", 50)
