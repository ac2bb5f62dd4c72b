"""The signing key changes over, as keys/README.rst describes it: in firmware, on devices, with bundles and gpg's keys.

The old key signs 1 and 2; the keyring of 2 names both keys; the new key signs 3, whose keyring names it alone.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fussy import install, keys
from fussy.errors import Untrusted
from fussy.rollback import rollback
from pdimage.check import check
from pdimage.pack import pack
from tests.pdimage.workshop import Workshop

OLD, NEW = "Old <old@example.org>", "New <new@example.org>"


@dataclass
class Maker:
    """Who makes the firmware: a key directory with both signing keys, and the keyrings of devices."""

    place: Path
    workshop: Workshop

    def __post_init__(self) -> None:
        self.home = self.place / "home"
        self.old = keys.make_signing_key(self.home, OLD)
        self.new = keys.make_signing_key(self.home, NEW)
        public = keys.device_keyring(self.ring("old"), [keys.export(self.home, self.old.fingerprint)], "router")
        self.device = keys.import_device(self.home, public)

    def ring(self, name: str) -> Path:
        return self.place / f"ring-{name}"

    def make_ring(self, name: str, signers: list[keys.SigningKey], revoked: keys.SigningKey | None = None) -> Path:
        """Make the next keyring of the same device: its own key stays, who may sign changes."""
        ring = self.ring(name)
        shutil.copytree(self.ring("old"), ring, ignore=shutil.ignore_patterns("S.*"))
        for one in signers:
            self.gpg(ring, "--import", text=keys.export(self.home, one.fingerprint))
        if revoked:
            self.gpg(ring, "--import", text=revoked.revocation.read_text().replace(":-----BEGIN", "-----BEGIN"))
        lines = "".join(f"{one.fingerprint}\n" for one in signers)
        (ring / "signers").write_text(lines)
        return ring

    def gpg(self, home: Path, *arguments: str, text: str) -> None:
        subprocess.run(["gpg", "--homedir", home, "--batch", "--quiet", *arguments], input=text, text=True, check=True,
                       timeout=60, capture_output=True)

    def firmware(self, version: str, ring: Path, signer: keys.SigningKey) -> Path:
        """Build and pack a version that carries a keyring, for both devices; return the directory of the bundles."""
        description = self.workshop.describe({
            "name": f"router-{version}", "version": version, "system": "{{ system }}", "keys": str(ring),
            "platform": {"paradrop": False, "fussy": False}}, f"router-{version}.yaml")
        for device in ("kept", "skipped"):
            image = check(description, variables={"system": f"{self.workshop.place}/{device}/system"})
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("GNUPGHOME", str(self.home))
                pack(image, self.place / "bundles" / device, cache=self.place / "cache",
                     sign_with=signer.fingerprint, encrypt_for=[self.device])
        return self.place / "bundles"

    def close(self) -> None:
        for home in self.place.iterdir():
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False, timeout=60)
        shutil.rmtree(self.place, ignore_errors=True)


class Device:
    """A device whose ``/etc/fussy/keys`` is what its firmware links there."""

    def __init__(self, workshop: Workshop, name: str, ring: Path) -> None:
        self.name, self.place = name, workshop.place / name
        self.keyring = self.place / "system/etc/fussy/keys"
        shutil.copytree(ring, self.place / "factory", ignore=shutil.ignore_patterns("S.*"))
        (self.place / "system/etc").mkdir(parents=True)

    def take(self, bundles: Path, version: str) -> str:
        """Install a version with the keyring that the device has now; return the version in use."""
        ring = self.keyring if self.keyring.exists() else self.place / "factory"
        bundle = bundles / self.name / f"router-{version}.tar.zst.gpg"
        return install.install_release(bundle, ring, self.place / "opt").name

    def trusts(self) -> set[str]:
        return {entry.key.fingerprint for entry in keys.list_keyring(self.keyring) if entry.may_sign}


@pytest.fixture
def maker(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Maker]:
    if shutil.which("gpg") is None:
        pytest.skip("gpg is missing: apt-get install gnupg")
    # sockets of gpg-agent need short paths
    place = Path(tempfile.mkdtemp(prefix="rotation-"))
    monkeypatch.setattr("fussy.hooks.SEARCH_PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    made = Maker(place, workshop)
    yield made
    made.close()


def test_the_signing_key_changes_over_in_the_field(maker: Maker, workshop: Workshop) -> None:
    both = maker.make_ring("both", [maker.old, maker.new])
    new = maker.make_ring("new", [maker.new])
    first = maker.firmware("1", maker.ring("old"), maker.old)
    maker.firmware("2", both, maker.old)
    maker.firmware("3", new, maker.new)
    maker.firmware("4", new, maker.new)
    maker.firmware("forged", new, maker.old)
    kept, skipped = (Device(workshop, name, maker.ring("old")) for name in ("kept", "skipped"))

    for device in (kept, skipped):
        assert device.take(first, "1") == "router-1"
        assert device.trusts() == {maker.old.fingerprint}
        with pytest.raises(Untrusted):
            device.take(first, "3")
        assert device.trusts() == {maker.old.fingerprint}

    assert kept.take(first, "2") == "router-2"
    assert kept.trusts() == {maker.old.fingerprint, maker.new.fingerprint}
    assert kept.take(first, "3") == "router-3"
    assert kept.trusts() == {maker.new.fingerprint}
    with pytest.raises(Untrusted):
        kept.take(first, "forged")
    assert kept.take(first, "4") == "router-4"

    # it was off when 2 came out; 2 is still there, signed by the key it knows, and leads on to the newest
    with pytest.raises(Untrusted):
        skipped.take(first, "4")
    assert skipped.take(first, "2") == "router-2"
    assert skipped.take(first, "4") == "router-4"
    assert skipped.trusts() == {maker.new.fingerprint}


def test_a_stolen_key_is_revoked_by_firmware_that_the_second_key_signs(maker: Maker, workshop: Workshop) -> None:
    both = maker.make_ring("both", [maker.old, maker.new])
    revoked = maker.make_ring("revoked", [maker.old, maker.new], revoked=maker.old)
    first = maker.firmware("1", both, maker.old)
    maker.firmware("2", revoked, maker.new)
    maker.firmware("stolen", both, maker.old)
    device = Device(workshop, "kept", both)
    assert device.take(first, "1") == "router-1"
    assert device.take(first, "2") == "router-2"
    with pytest.raises(Untrusted, match="revoked"):
        device.take(first, "stolen")


def test_a_keyring_that_could_sign_is_not_shipped(maker: Maker, workshop: Workshop) -> None:
    (maker.home / "signers").write_text(maker.old.fingerprint)
    assert workshop.mistakes({"name": "r", "version": "1", "keys": str(maker.home)}) == [
        f"{maker.home}: holds the secret half of {maker.old.fingerprint}, which may sign bundles; make a device's "
        "keyring with `fussy keys keyring`"]


def test_going_back_brings_the_old_keyring_back(maker: Maker, workshop: Workshop) -> None:
    both = maker.make_ring("both", [maker.old, maker.new])
    first = maker.firmware("1", maker.ring("old"), maker.old)
    maker.firmware("2", both, maker.old)
    device = Device(workshop, "kept", maker.ring("old"))
    device.take(first, "1")
    device.take(first, "2")
    with install.ready(device.place / "opt") as held:
        rollback(held, "", below_floor=False)
    assert device.trusts() == {maker.old.fingerprint}
