"""Who signs a channel: thresholds, keys kept elsewhere, rotation, theft. The judge is python-tuf's own client."""

import copy
import json
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Timestamp

from fussy.keyverbs import keys as keys_command
from fussy.publishing import check, keyfiles, metadata
from fussy.publishing.places import TOP

from .channels import Channel, made
from .conftest import Keys

__all__ = ["made"]


def key(place: Path, name: str, phrase: str = "") -> Path:
    """Make a key as its holder does, on a machine of his own; return the path without ending."""
    directory = place / name
    directory.mkdir()
    options = []
    if phrase:
        (directory / "phrase").write_text(phrase + "\n")
        options = ["--passphrase-file", str(directory / "phrase")]
    done = CliRunner().invoke(keys_command, ["channel", str(directory / "key.pem"), *options])
    assert done.exit_code == 0, done.output
    return directory / "key"


def test_keys_are_files_that_only_their_owner_reads(made: Channel) -> None:
    for path in made.where.keys.glob("*.pem"):
        assert path.stat().st_mode & 0o777 == 0o600
    (made.where.keys / "router-1.pem").chmod(0o644)
    assert "others can read it" in made("renew", "router", fails=40)


def test_a_key_of_openssl_serves_as_well(tmp_path: Path, keys: Keys) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing")
    file = tmp_path / "o.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", file], check=True)
    file.chmod(0o600)
    one = Channel(tmp_path, keys)
    one("init", "-p", "router", "--role-key", f"targets={file}", options=("--key", file))
    one("verify")


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n", b"\xff"):
        (tmp_path / "x.pub").write_bytes(content)
        with pytest.raises(keyfiles.SystemSetup, match="cannot read the key"):
            keyfiles.public_of(tmp_path / "x.pub", lambda _: "")
    with pytest.raises(keyfiles.SystemSetup, match="must end with .pem"):
        keyfiles.make(tmp_path / "x")
    keyfiles.make(tmp_path / "y.pem")
    with pytest.raises(keyfiles.SystemSetup, match="is there already"):
        keyfiles.make(tmp_path / "y.pem")


def test_two_of_three_sign_the_root_each_on_a_machine_of_their_own(tmp_path: Path, keys: Keys) -> None:
    alice, bob, carol = (key(tmp_path, name) for name in ("alice", "bob", "carol"))
    one = Channel(tmp_path, keys)
    told = one.init(*(f"--role-key=root={person}.pub" for person in (alice, bob, carol)), "--threshold", "root=2",
                    fails=60)
    assert "needs 2 more of the keys" in told
    prepared = one.where.prepared / "1.root.json"
    # Alice and Bob get a copy each, and have no channel at all
    for person in (alice, bob):
        shutil.copy(prepared, person.parent / "1.root.json")
        elsewhere = Channel(person.parent, keys)
        shown = elsewhere("sign", person.parent / "1.root.json", options=("--key", person.with_suffix(".pem")))
        assert "root: 2 of 3 must sign" in shown and "signed by" in shown
    assert "needs 1 more of the keys" in one("publish", alice.parent / "1.root.json", fails=60)
    one("publish", bob.parent / "1.root.json")
    assert one.offered() == {}
    assert not list(one.where.prepared.iterdir())
    assert "no key is here that should and has not signed" in elsewhere("sign", bob.parent / "1.root.json", fails=40)


def test_who_signs_elsewhere_sees_what_changes(made: Channel) -> None:
    """By the version before it, which lies beside the file there."""
    bob, old = key(made.place, "bob"), made.key_of("root")
    made("rotate", "root", "--add", bob.with_suffix(".pub"), "--remove", old, fails=60)
    file, before = bob.parent / "2.root.json", made.where.metadata / "1.root.json"
    elsewhere = Channel(bob.parent, made.keys)

    def shown() -> list[str]:
        shutil.copy(made.where.prepared / file.name, file)
        return elsewhere("sign", file, options=("--key", bob.with_suffix(".pem"))).splitlines()[1:]

    alone = shown()
    assert alone[0] == "  all is shown as new: put 1.root.json of the channel's metadata beside it to see what changes"
    assert not [line for line in alone if "- key" in line] and len(alone) > 6
    shutil.copy(before, file.with_name(before.name))
    (new,) = json.loads(file.read_text())["signed"]["roles"]["root"]["keyids"]
    assert [line.partition(old)[0] for line in shown()] == [
        f"  root: + key {new}", "  root: - key ", f"  signed by {new}"]
    made("publish", file)
    assert made.role("root")["version"] == 2


def test_a_new_root_says_which_old_and_which_new_keys_must_sign_it(tmp_path: Path, keys: Keys) -> None:
    alice, bob = key(tmp_path, "alice"), key(tmp_path, "bob")
    ids = {person: keyfiles.public_of(person.with_suffix(".pub"), str).keyid[:16] for person in (alice, bob)}
    one = Channel(tmp_path, keys)
    first = one.init(f"--role-key=root={alice}.pub", fails=60)
    assert f"1.root.json needs 1 more of the keys {ids[alice]}; have" in first
    one("sign", options=("--key", alice.with_suffix(".pem")))
    one("publish")
    second = one("rotate", "root", "--add", bob.with_suffix(".pub"), "--remove", ids[alice], fails=60)
    assert f"2.root.json needs 1 more of the old keys {ids[alice]} and 1 more of the new keys {ids[bob]}; " in second
    one("sign", options=("--key", bob.with_suffix(".pem")))
    assert f"2.root.json needs 1 more of the keys {ids[alice]}; have" in one("publish", fails=60)
    one("sign", options=("--key", alice.with_suffix(".pem")))
    one("publish")
    assert one.role("root")["version"] == 2


def test_a_release_waits_until_a_second_person_has_signed_it(tmp_path: Path, keys: Keys) -> None:
    bob = key(tmp_path, "bob", phrase="secret")
    one = Channel(tmp_path, keys)
    one.init()
    one("rotate", "router", "--add", bob.with_suffix(".pub"), "--threshold", "2", fails=60)
    with_bob = ("--key", bob.with_suffix(".pem"), "--key-passphrase-file", bob.parent / "phrase")
    one("sign", options=with_bob)
    one("publish")
    assert one.role("router")["threshold"] == 2
    assert "needs 1 more of the keys" in one("add", "router", one.tree(1), fails=60)
    assert one.offered() == {}
    one("refresh", "--force")  # goes on meanwhile
    shown = one("sign", options=with_bob)
    assert "+ firmware-1 (version 1.0, 100 %, 1 files)" in shown
    one("publish")
    assert [offer.release for offer in one.offered().values()] == ["firmware-1"]
    # keys of other roles lie beside these, and were left alone
    assert set(metadata.loaded(one.where).products["router"].signatures) == {
        entry["id"] for entry in one.role("router")["keys"]}


def test_signatures_for_something_else_are_not_taken(tmp_path: Path, keys: Keys) -> None:
    bob = key(tmp_path, "bob")
    one = Channel(tmp_path, keys)
    one.init(f"--role-key=root={bob}.pub", fails=60)
    other = Channel(tmp_path / "bob", keys)
    other.init(f"--role-key=root={bob}.pub", fails=60)
    other("sign", options=("--key", bob.with_suffix(".pem")))
    assert "it is not what is prepared here" in one("publish", other.where.prepared / "1.root.json", fails=40)
    assert "1.root.json" in one("cancel")
    one.init()
    one("verify")


def test_online_keys_on_another_machine(made: Channel) -> None:
    for name in ("online-1.pem", "online-1.pub"):
        (made.where.keys / name).rename(made.place / name)
    assert "the online keys of snapshot and timestamp are not here" in made("add", "router", made.tree(1), fails=60)
    assert made.offered() == {}
    made("publish", options=("--key", made.place / "online-1.pem"))
    assert len(made.offered()) == 1


@pytest.mark.parametrize("role", [*TOP, "router"])
def test_a_rotated_key_counts_no_longer_and_old_clients_follow(made: Channel, role: str) -> None:
    made.add(1)
    made.targets(name="old")
    before = made.key_of(role)
    made("rotate", role)
    assert made.key_of(role) != before
    made("rollout", "router", "firmware-1", "50")
    assert [offer.percent for offer in made.offered(name="old").values()] == [50.0]
    assert [offer.percent for offer in made.offered().values()] == [50.0]
    assert metadata.loaded(made.where).faults() == []


def test_a_client_that_slept_through_many_roots_follows(made: Channel) -> None:
    made.targets(name="sleeper")
    for _ in range(5):
        made("rotate", "root")
        made("rotate", "timestamp")
    made.add(1)
    assert metadata.loaded(made.where).root.signed.version == 11
    assert len(made.offered(name="sleeper")) == 1


def forge(made: Channel, directory: Path) -> None:
    """Sign, with the stolen online key, snapshot and timestamp of versions far ahead, in a copy of the channel."""
    shutil.copytree(made.where.channel, directory)
    ring = keyfiles.ring(made.where.keys, (), lambda _: "")
    published = metadata.loaded(made.where)
    snapshot = Metadata(copy.deepcopy(published.snapshot.signed))
    snapshot.signed.version = 90_000
    timestamp = Metadata(Timestamp(90_000, expires=datetime.now(UTC) + timedelta(days=999),
                                   snapshot_meta=MetaFile(90_000)))
    for meta, name in ((snapshot, "90000.snapshot.json"), (timestamp, "timestamp.json")):
        signer = ring.signer(made.key_of("timestamp"))
        assert signer
        meta.sign(signer)
        (directory / "metadata" / name).write_bytes(meta.to_bytes())


def test_a_fast_forward_with_a_stolen_online_key_is_overcome_by_revoking_it(made: Channel) -> None:
    made.add(1)
    made.targets(name="victim")
    thief = Channel(made.place / "thief", made.keys)
    forge(made, thief.where.channel)
    root = (made.where.metadata / "1.root.json").read_bytes()

    def follow(other: Channel) -> None:
        check.client(other.where, made.place / "victim", root).refresh()

    follow(thief)
    made.add(2)
    with pytest.raises(RepositoryError):  # the honest versions look old now
        follow(made)
    printed = made("revoke", made.key_of("timestamp")[:12])
    assert printed.split() == ["snapshot", "timestamp"]
    follow(made)
    assert "firmware-2" in {offer.release for offer in made.offered(name="victim").values()}
    with pytest.raises(RepositoryError):  # and the thief's word counts no longer
        follow(thief)


def test_a_stolen_key_of_a_product_line_signs_nothing_any_more(made: Channel) -> None:
    made.add(1)
    stolen = keyfiles.ring(made.where.keys, (), lambda _: "").signer(made.key_of("router"))
    made("revoke", made.key_of("router"))
    published = metadata.loaded(made.where)
    forged = copy.deepcopy(published.products["router"])
    assert stolen
    forged.sign(stolen)
    assert published.with_role("router", forged).faults() == ["router lacks 1 signature"]
    assert len(made.offered()) == 1


def test_a_key_is_revoked_from_every_role_and_replaced_by_the_one_given(tmp_path: Path, keys: Keys) -> None:
    shared, spare = key(tmp_path, "shared"), key(tmp_path, "spare")
    one = Channel(tmp_path, keys)
    with_keys = ("--key", shared.with_suffix(".pem"), "--key", spare.with_suffix(".pem"))
    one("init", "-p", "router", f"--role-key=targets={shared}.pub", f"--role-key=router={shared}.pub",
        options=with_keys)
    printed = one("revoke", one.key_of("router"), "--replace-with", spare.with_suffix(".pub"), options=with_keys)
    assert printed.split() == ["targets", "router"]
    assert one.key_of("targets") == one.key_of("router") == keyfiles.public_of(spare.with_suffix(".pub"), str).keyid
    one("verify")


def test_impossible_thresholds_and_unknown_keys_are_said(made: Channel) -> None:
    assert "signed by 2 of 1 keys" in made("rotate", "targets", "--threshold", "2", fails=40)
    assert "no role has a key of that id" in made("revoke", "ffff", fails=40)
    assert "0 of the role's keys" in made("rotate", "root", "--remove", "ffff", fails=40)
    assert "refresh does that" in made("renew", "timestamp", fails=40)
    assert metadata.loaded(made.where).faults() == [] and not list(made.where.prepared.iterdir())


def days_left(made: Channel, role: str) -> float:
    until = datetime.fromisoformat(made.role(role)["expires"])
    return (until - datetime.now(UTC)) / timedelta(days=1)


def test_refresh_signs_when_half_of_the_time_is_over_with_the_online_keys_only(tmp_path: Path, keys: Keys) -> None:
    one = Channel(tmp_path, keys)
    one.init("--days", "timestamp=2", "--days", "snapshot=100")
    for role in ("root", "targets", "router", "beta"):
        (one.where.keys / f"{role}-1.pem").unlink()
    first = one.role("timestamp")["version"]
    one("refresh")
    assert one.role("timestamp")["version"] == first
    settings = one.where.settings()
    one.where.save_settings(msgspec.structs.replace(settings, days=msgspec.structs.replace(settings.days, timestamp=9)))
    assert one("refresh") == ""
    assert one.role("timestamp")["version"] == first + 1 and 8.9 < days_left(one, "timestamp") <= 9
    assert one.role("snapshot")["version"] == 1
    one("refresh", "--force")
    assert one.role("snapshot")["version"] == 2 and one.role("targets")["version"] == 1
    one("verify")


def test_refresh_tells_what_it_cannot_sign(tmp_path: Path, keys: Keys) -> None:
    one = Channel(tmp_path, keys)
    one.init("--days", "targets=20")
    assert "targets expires" in one("refresh")
    (one.where.private / "settings.json").unlink()
    one("renew", "targets")
    assert one("refresh") == "" and 364 < days_left(one, "targets") <= 365
    assert "cannot verify" not in one("verify")


def test_an_expired_channel_is_refused_and_renewed(tmp_path: Path, keys: Keys) -> None:
    one = Channel(tmp_path, keys)
    one.init("--days", "timestamp=0.00001")
    time.sleep(max(0.0, 86400 * days_left(one, "timestamp")) + 0.01)
    assert "expired" in one("verify", fails=61)
    (one.where.private / "settings.json").unlink()
    one("refresh")
    one("verify")


def test_product_lines_come_go_and_come_back(made: Channel) -> None:
    made.targets(name="old")
    made("product", "lab")
    made.add(1, product="lab")
    assert len(made.offered("lab", name="old")) == 1
    made("product", "lab", "--remove")
    assert "cannot find the product line lab" in made("list", "lab", fails=40)
    made.targets(name="old")
    made("product", "lab")
    assert made.offered("lab", name="old") == made.offered("lab") == {}
    assert "there is one of this name" in made("product", "lab", fails=40)


def test_wrong_settings_are_said(made: Channel) -> None:
    (made.where.private / "settings.json").write_text('{"keep": "many"}')
    assert "settings.json: Expected `int`, got `str` - at `$.keep`" in made("renew", "root", fails=40)


def test_what_a_channel_can_not_have_is_refused_before_it_is_made(tmp_path: Path, keys: Keys) -> None:
    one = Channel(tmp_path, keys)
    for options, code, why in (
        (("-e", "nobody@example.org"), 40, "cannot encrypt for 'nobody@example.org': there is no such key in the ring"),
        (("--sign-with", "nobody@example.org"), 40, "cannot sign with 'nobody@example.org': there is no such key"),
        (("--keep", "-3"), 2, "-3 is not in the range 0<=x<=100"),
        (("--days", "root=long"), 2, "write --days as ROLE=NUMBER"),
        (("--threshold", "root=2"), 40, "cannot have root signed by 2 of 1 keys"),
    ):
        assert why in one("init", "-p", "router", *options, fails=code)
        assert not one.where.metadata.exists()
    assert "cannot sign: nothing is prepared in" in one("sign", fails=40)
    assert "there is no directory" in CliRunner().invoke(keys_command, ["channel", str(tmp_path / "no/key.pem")]).output
