"""Releases in a channel: what is added is what devices find, install and go on from."""

import json
import random
from pathlib import Path

import pytest

from fussy import cronlock, install, manifest, verify
from fussy.channel import Offer

from .channels import Channel, made
from .conftest import Keys

__all__ = ["made"]


def by_kind(offered: dict[str, Offer], kind: str) -> dict[str, Offer]:
    return {path: offer for path, offer in offered.items() if offer.kind == kind}


def test_a_new_channel_offers_nothing_and_is_sound(made: Channel) -> None:
    assert made.offered() == made.offered("beta") == {}
    assert "good (0 targets, root 1)" in made("verify")


def test_a_tree_is_offered_with_what_its_manifest_says(made: Channel) -> None:
    made.add(7, "--notes", "new", "--window", "02:00-05:00", "--percent", "12.5", "--security",
             compatible=["board-a"], upgrade_from="5.0", floor="6.0", installer="0.1")
    offer, = made.offered().values()
    assert (offer.kind, offer.release, offer.version, offer.compatible) == ("full", "firmware-7", "7.0", ["board-a"])
    assert (offer.upgrade_from, offer.floor, offer.installer, offer.security) == ("5.0", "6.0", "0.1", True)
    assert (offer.percent, offer.notes, offer.window) == (12.5, "new", "02:00-05:00")
    release = made.where.store("router") / "firmware-7"
    assert verify.damage(release) == []
    assert offer.digest == manifest.digest((release / ".fussy/manifest.json").read_bytes())


def test_full_bundle_and_deltas_make_the_same_release_on_a_device(made: Channel) -> None:
    for number in (1, 2, 3):
        made.add(number)
    found = made.targets()
    fetched = made.place / f"client-{made.clients}" / "targets"
    offered = made.offered()
    digests = {offer.release: offer.digest for offer in offered.values()}
    for path in found:
        offer = offered[path]
        target = made.place / "device" / path.replace("/", "-")
        if offer.kind == "delta":
            base = next(path for path, one in by_kind(offered, "full").items() if one.digest == offer.base)
            install.install_release(fetched / base.replace("/", "%2F"), made.keys.keyring, target)
        done = install.install_release(fetched / path.replace("/", "%2F"), made.keys.keyring, target)
        data = (done / ".fussy/manifest.json").read_bytes()
        assert manifest.digest(data) == offer.digest == digests[done.name]
    assert sorted(offer.release for offer in by_kind(offered, "delta").values()) == ["firmware-2", "firmware-3",
                                                                                      "firmware-3"]


def test_no_more_deltas_than_asked_for_and_no_more_releases_in_the_store(tmp_path: Path, keys: Keys) -> None:
    one = Channel(tmp_path, keys)
    one.init("--keep", "2")
    for number in (1, 2, 3, 4):
        one.add(number)
    assert sorted(path.name for path in one.where.store("router").iterdir() if path.name[0] != ".") == ["firmware-3",
                                                                                                      "firmware-4"]
    newest = [offer for offer in one.offered().values() if offer.release == "firmware-4"]
    assert sorted(offer.kind for offer in newest) == ["delta", "delta", "full"]


def test_a_bundle_made_elsewhere_is_verified_before_it_is_offered(made: Channel, keys: Keys) -> None:
    good = made.firmware.pack("firmware-1", {"a": "1"}, release={"version": "1.0"})
    made("add", "router", good)
    stranger = made.firmware.pack("firmware-2", {"a": "2"}, sign_with=keys.foreign)
    assert "cannot trust" in made("add", "router", stranger, fails=20)
    assert [offer.release for offer in made.offered().values()] == ["firmware-1"]
    assert not (made.where.store("router") / "firmware-2").exists()


def test_a_name_belongs_to_one_release(made: Channel) -> None:
    bundle = made.firmware.pack("firmware-1", {"a": "1"})
    made("add", "router", bundle)
    assert "offers it already" in made("add", "router", bundle, fails=40)
    other = Path(made.place / "other" / "firmware-1")
    other.mkdir(parents=True)
    (other / "a").write_text("2")
    assert "cannot add firmware-1: router has another release of this name" in made("add", "router", other, fails=40)


def test_deltas_of_an_encrypted_bundle_are_not_left_open(made: Channel) -> None:
    settings = json.loads((made.where.private / "settings.json").read_text())
    (made.where.private / "settings.json").write_text(json.dumps({**settings, "encrypt_for": []}))
    bundle = made.firmware.pack("firmware-1", {"a": "1"})
    assert "would not be" in made("add", "router", bundle, fails=40)
    made("add", "router", bundle, "--deltas", "0")
    assert len(made.offered()) == 1


def test_roll_out_changes_and_keeps_whom_it_reached(made: Channel) -> None:
    made.add(1)
    made.add(2, "--percent", "10")
    before = {path: offer for path, offer in made.offered().items() if offer.release == "firmware-2"}
    made("rollout", "router", "firmware-2", "50")
    after = {path: made.offered()[path] for path in before}
    assert {offer.percent for offer in before.values()} == {10.0} and len(before) == 2
    assert {offer.percent for offer in after.values()} == {50.0}
    assert {offer.seed for offer in before.values()} == {offer.seed for offer in after.values()} != {""}
    assert "percent" in made("rollout", "router", "firmware-2", "101", fails=40)


def test_what_is_said_of_a_release_can_be_changed(made: Channel) -> None:
    made.add(1, "--security")
    made("set", "router", "1.0", "--notes", "mended", "--floor", "0.9", "--no-security", "--window", "01:00-02:00")
    offer, = made.offered().values()
    assert (offer.notes, offer.floor, offer.security, offer.window) == ("mended", "0.9", False, "01:00-02:00")


def test_a_window_that_devices_could_not_read_is_refused(made: Channel) -> None:
    """They would pass over it, and install at any time."""
    assert "cannot offer it with this window: '25:00-26:00' has a time" in made(
        "add", "router", made.tree(1), "--window", "25:00-26:00", fails=40)
    assert made.offered() == {}
    made("add", "router", made.place / "trees/firmware-1")
    assert "is no window: write 02:00-05:00" in made("set", "router", "1.0", "--window", "at night", fails=40)
    assert [offer.window for offer in made.offered().values()] == [""]


def test_a_delta_is_offered_where_it_saves_something(made: Channel) -> None:
    noise = random.Random(1)
    for number in (1, 2):
        made.add(number, files={"app": noise.randbytes(20_000)})
    assert [offer.kind for offer in made.offered().values()] == ["full", "full"]
    made("add", "router", made.tree(3, {"app": noise.randbytes(20_000), "b": noise.randbytes(20_000)}))
    made("add", "router", made.tree(4, {"app": b"other", "b": made.place.joinpath("trees/firmware-3/b").read_bytes()}))
    assert {(offer.release, offer.kind) for offer in made.offered().values() if offer.release == "firmware-4"} == {
        ("firmware-4", "full"), ("firmware-4", "delta")}
    assert "firmware-4               4.0          100 %  " in (listed := made("list"))
    assert ", 1 delta\n" in listed and ", 0 deltas\n" in listed


def test_a_withdrawn_release_is_gone_and_a_base_for_the_next(made: Channel) -> None:
    for number in (1, 2):
        made.add(number)
    made("withdraw", "router", "firmware-2")
    assert {offer.release for offer in made.offered().values()} == {"firmware-1"}
    withdrawn = manifest.digest((made.where.store("router") / "firmware-2/.fussy/manifest.json").read_bytes())
    made.add(3)
    offered = made.offered()
    assert withdrawn not in {offer.digest for offer in offered.values()}
    assert withdrawn in {offer.base for offer in by_kind(offered, "delta").values()}


def test_a_release_goes_from_beta_to_stable_with_deltas_for_stable(made: Channel) -> None:
    made.add(1, product="router")
    made.add(2, product="beta")
    made("promote", "beta", "firmware-2", "router", "--percent", "5")
    offered = made.offered("router")
    promoted = {offer.kind: offer for offer in offered.values() if offer.release == "firmware-2"}
    old = next(offer for offer in offered.values() if offer.release == "firmware-1")
    assert promoted["delta"].base == old.digest and promoted["full"].percent == 5
    beta, = made.offered("beta").values()
    assert beta.digest == promoted["full"].digest


def test_two_publishers_at_once(made: Channel) -> None:
    """The second is told; it may be cron's."""
    made.tree(1)
    with cronlock.Flock(made.where.private / "lock"):
        for verb, *arguments in (("add", "router", made.place / "trees/firmware-1"), ("refresh", "--force"),
                                 ("rotate", "timestamp"), ("gc",), ("publish",)):
            assert "another command works on it (" in made(verb, *arguments, fails=5), verb
    assert made.offered() == {}
    made("add", "router", made.place / "trees/firmware-1")
    assert [offer.release for offer in made.offered().values()] == ["firmware-1"]


def test_what_is_not_there_is_said(made: Channel) -> None:
    assert "cannot find the product line other" in made("list", "other", fails=40)
    assert "cannot find one release x" in made("show", "router", "x", fails=40)
    assert "cannot find one release x" in made("withdraw", "router", "x", fails=40)
    assert "there is one already" in made.init(fails=40)
    other = Channel(made.place / "none", made.keys)
    assert "make it with" in other("list", fails=40)


@pytest.mark.parametrize("name", ["root", "Timestamp", "a/b", "..", "", "a.b"])
def test_names_that_no_product_line_can_have(tmp_path: Path, keys: Keys, name: str) -> None:
    one = Channel(tmp_path, keys)
    assert "cannot call a product line" in one("init", "-p", name, fails=40)
