"""What nobody can need goes, after a time of grace; what anybody may need stays."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import Targets

from fussy.channel import Offer
from fussy.publishing import offers

from .channels import Channel, made

__all__ = ["made"]


def age(made: Channel, days: float) -> None:
    """Let all files of the channel be as old as that."""
    then = time.time() - days * 86400
    for path in made.where.channel.rglob("*"):
        os.utime(path, (then, then))


def files(made: Channel) -> set[str]:
    return {str(path.relative_to(made.where.channel)) for path in made.where.channel.rglob("*") if path.is_file()}


def test_what_a_slow_client_may_still_fetch_stays(made: Channel) -> None:
    made.add(1)
    updater = made.client()
    updater.refresh()
    made("withdraw", "router", "firmware-1")
    assert made("gc") == ""
    one = updater.get_targetinfo("router/firmware-1.tar.zst.gpg")
    assert one is not None
    updater.download_target(one)


def test_after_the_grace_only_what_is_published_is_left(made: Channel) -> None:
    made.add(1)
    made.add(2)
    made("withdraw", "router", "firmware-2")
    made("rotate", "root")
    before = files(made)
    age(made, 15)
    dry = made("gc", "--dry-run")
    assert files(made) == before and "firmware-2.tar.zst.gpg" in dry and "1.router.json" in dry
    made("gc")
    left = files(made)
    assert {name.partition(".")[2] for name in left if name.startswith("targets/")} == {"firmware-1.tar.zst.gpg"}
    assert {name for name in left if name.startswith("metadata/")} == {
        "metadata/1.beta.json", "metadata/1.root.json", "metadata/2.root.json", "metadata/1.targets.json",
        "metadata/4.router.json", "metadata/4.snapshot.json", "metadata/timestamp.json"}
    made("verify")
    assert len(made.offered()) == 1


def test_what_is_prepared_is_not_garbage(made: Channel) -> None:
    key = made.where.keys / "router-1.pem"
    key.rename(made.place / "router.pem")
    (made.where.keys / "router-1.pub").rename(made.place / "router.pub")
    made("add", "router", made.tree(1), fails=60)
    age(made, 15)
    made("gc", "--grace", "0")
    made.add(2, product="beta")
    made("publish", options=("--key", made.place / "router.pem"))
    assert len(made.offered()) == 1


def test_overtaken_releases_are_offered_no_longer_and_their_files_serve_repair_for_a_while(made: Channel) -> None:
    settings = made.where.private / "settings.json"
    settings.write_text(settings.read_text().replace('"keep": 4', '"keep": 2'))
    for number in (1, 2, 3):
        made.add(number, "--parts")
    assert "offered no longer" in made("gc")
    left = {(offer.release, offer.kind) for offer in made.offered().values()}
    assert left == {("firmware-3", "full"), ("firmware-3", "delta"), ("firmware-3", "part"), ("firmware-2", "full"),
                    ("firmware-2", "part")}
    assert made("gc") == ""


def test_nothing_is_overtaken_by_a_release_that_only_some_get(made: Channel) -> None:
    made.add(1)
    made.add(2, "--percent", "99")
    assert made("gc") == ""


OLD = Offer(kind="full", release="a", version="1.0", digest="a" * 64, compatible=["x"], upgrade_from="0.5")


@pytest.mark.parametrize(("newer", "overtaken"), [
    ({}, True), ({"percent": 99.0}, False), ({"version": "1.0"}, False), ({"version": "0.9"}, False),
    ({"compatible": ["y"]}, False), ({"compatible": ["y", "x"]}, True), ({"compatible": []}, True),
    ({"upgrade_from": "0.6"}, False), ({"upgrade_from": ""}, True), ({"installer": "3.0"}, False),
])
def test_when_a_release_is_overtaken(newer: dict[str, object], overtaken: bool) -> None:
    facts = {"kind": "full", "release": "b", "version": "2.0", "digest": "b" * 64, "compatible": ["x"],
             "upgrade_from": "0.5", **newer}
    assert offers.overtakes(Offer(**facts), OLD) is overtaken  # type: ignore[arg-type]


OFFERS = st.lists(st.builds(
    Offer, kind=st.just("full"), release=st.text("ab", min_size=1), version=st.sampled_from(["1", "2", "3", "4"]),
    digest=st.text("0123456789abcdef", min_size=64, max_size=64), percent=st.sampled_from([0.0, 50.0, 100.0]),
    compatible=st.lists(st.sampled_from(["x", "y"]), unique=True), upgrade_from=st.sampled_from(["", "1", "2"])),
    max_size=6, unique_by=lambda offer: offer.digest)


@given(OFFERS, st.sampled_from(["x", "y", ""]), st.sampled_from(["", "0", "1", "2"]))
def test_every_device_still_finds_something_as_new(there: list[Offer], board: str, current: str) -> None:
    """Whatever is pruned, a device finds a release at least as new as before, that it may install."""
    targets = Targets()
    offers.put(targets, (offers.target(f"p/{offer.digest}", 1, "0" * 64, offer) for offer in there))

    def best() -> str:
        takes = [one.full for one in offers.releases(targets) if one.full.percent == 100
                 and (not one.full.compatible or board in one.full.compatible) and one.full.upgrade_from <= current]
        return max((offer.version for offer in takes), default="")

    before = best()
    for path in offers.needless(targets, 0):
        del targets.targets[path]
    assert best() == before
