"""Keys made by our verbs, and by plain gpg as the documents say, make bundles that devices accept."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from fussy import keys as verbs
from fussy.errors import SystemSetup, Untrusted
from fussy.gpg import open_keyring, seal
from fussy.gpghome import list_keys

if TYPE_CHECKING:
    from tests.fussy.conftest import Keys


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path, for sockets of gpg-agent."""
    path = Path(tempfile.mkdtemp(prefix="fussy-keys-"))
    yield path
    for home in path.iterdir():
        if home.is_dir():
            subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)
    shutil.rmtree(path, ignore_errors=True)  # agents remove their sockets at the same time
    assert not path.exists()


def fussy_keys(*arguments: str | Path) -> str:
    """Run ``fussy keys``; return what it prints, or fail with its message."""
    done = CliRunner().invoke(verbs.get_options(), [str(word) for word in arguments], prog_name="fussy keys")
    if done.exit_code != 0:
        raise AssertionError(done.output)
    return done.stdout


def seal_and_verify(place: Path, build: Path, keyring: Path, recipient: str, text: bytes = b"text") -> str:
    """Pack for a device and read it there; return who signed it."""
    bundle = place / "a.gpg"
    with seal(bundle, home=build, encrypt_for=[recipient]) as pipe:
        pipe.write(text)
    got = bytearray()
    with open_keyring(keyring) as ring, bundle.open("rb") as file:
        signer = ring.verify(file, got.extend)
    assert bytes(got) == text
    return signer.fingerprint


def running_agents(place: Path) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "stat,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "gpg-agent" in line and str(place) in line]


def test_three_commands_make_a_device_that_accepts_our_bundles(place: Path) -> None:
    build, keyring = place / "build", place / "keys"
    signer = fussy_keys("signing", "J\u00fcrg Releases <r@example.org>", "--home", build).split()[-1]
    device = fussy_keys("keyring", keyring, "--signer", "r@example.org", "--name", "router 7", "--home", build).strip()
    assert seal_and_verify(place, build, keyring, device) == signer
    assert stat.S_IMODE(keyring.stat().st_mode) == 0o700
    assert sorted(os.listdir(keyring)) == ["private-keys-v1.d", "pubring.kbx", "signers", "trustdb.gpg"]
    assert f"{signer}  # J\u00fcrg Releases <r@example.org>" in (keyring / "signers").read_text()
    listed = json.loads(fussy_keys("list", keyring, "--json"))
    assert [(one["fingerprint"], one["may_sign"], one["secret"]) for one in listed] == [
        (signer, True, False), (device, False, True)]
    assert listed[0]["expires"] is not None
    words = fussy_keys("list", keyring)
    assert f"{signer}  may sign, until 20" in words
    assert f"{device}  device's own  router 7 <router-7@device.invalid>" in words
    (keyring / "signers").unlink()
    assert seal_and_verify(place, build, keyring, device) == signer, "trusted ultimately as well"
    subprocess.run(["gpgconf", "--homedir", str(build), "--kill", "all"], check=True)
    assert running_agents(place) == []


def test_the_revocation_certificate_works(place: Path) -> None:
    build, keyring = place / "build", place / "keys"
    made = verbs.make_signing_key(build, "Signer <s@example.org>")
    assert made.revocation.exists()
    device = verbs.import_device(build, verbs.device_keyring(keyring, [verbs.export(build, "s@example.org")], "d"))
    seal_and_verify(place, build, keyring, device)
    certificate = made.revocation.read_text().replace(":-----BEGIN", "-----BEGIN")
    subprocess.run(["gpg", "--homedir", str(keyring), "--batch", "--quiet", "--import"], input=certificate, text=True,
                   check=True)
    with pytest.raises(Untrusted, match="has been revoked"):
        seal_and_verify(place, build, keyring, device)
    assert "may sign, but has been revoked" in fussy_keys("list", keyring)


def test_the_users_own_ring_is_made_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNUPGHOME", str(place / "new"))
    signer = fussy_keys("signing", "Signer <s@example.org>").strip()
    device = fussy_keys("keyring", place / "keys", "-s", signer).strip()
    bundle = place / "a.gpg"
    with seal(bundle, encrypt_for=[device]) as pipe:
        pipe.write(b"text")
    with open_keyring(place / "keys") as ring, bundle.open("rb") as file:
        assert ring.verify(file, len).fingerprint == signer


def test_a_secret_key_is_not_imported_by_mistake(keys: Keys, place: Path) -> None:
    secret = keys.gpg("--export-secret-keys", "--armor", keys.signer).stdout.decode()
    with pytest.raises(SystemSetup, match="this is its secret half"):
        verbs.import_device(place / "b", secret)
    assert list_keys(place / "b") == []


def test_two_signers_may_sign(place: Path) -> None:
    first, second = place / "first", place / "second"
    for home, name in ((first, "First <first@example.org>"), (second, "Second <second@example.org>")):
        verbs.make_signing_key(home, name, expire="0")
    public = place / "second.asc"
    fussy_keys("export", "second@example.org", "--home", second, "-o", public)
    device = fussy_keys("keyring", place / "keys", "-s", "first@example.org", "-s", public, "--home", first).strip()
    verbs.import_device(second, verbs.export(first, device))
    one = seal_and_verify(place, first, place / "keys", device)
    other = seal_and_verify(place, second, place / "keys", device)
    assert one != other


def test_a_device_key_can_be_made_in_a_keyring_that_is_there(place: Path) -> None:
    build, keyring = place / "build", place / "keys"
    signer = verbs.make_signing_key(build, "Signer <s@example.org>", expire="2090-12-31").fingerprint
    (place / "keys").mkdir(mode=0o700)
    subprocess.run(["gpg", "--homedir", str(keyring), "--batch", "--quiet", "--import"],
                   input=verbs.export(build, signer), text=True, check=True)
    (keyring / "signers").write_text(signer)
    device = fussy_keys("device", keyring, "Router <router@example.org>", "--home", build).strip()
    assert seal_and_verify(place, build, keyring, "router@example.org") == signer
    assert [entry.secret for entry in verbs.list_keyring(keyring) if entry.key.fingerprint == device] == [True]


def test_an_old_kind_of_key(place: Path) -> None:
    verbs.make_signing_key(place / "build", "Old <old@example.org>", algorithm="rsa4096")
    device = verbs.device_keyring(place / "keys", [verbs.export(place / "build", "old@example.org")], "d")
    seal_and_verify(place, place / "build", place / "keys", verbs.import_device(place / "build", device))


def test_a_protected_key_and_its_safe_copy(place: Path) -> None:
    phrase = place / "phrase"
    phrase.write_text("geheim, \u00fcberlang\n")
    build, restored = place / "build", place / "restored"
    signer = fussy_keys("signing", "Careful <c@example.org>", "--home", build, "--passphrase-file", phrase).strip()
    safe = place / "secret.asc"
    fussy_keys("export", signer, "--secret", "--home", build, "--passphrase-file", phrase, "-o", safe)
    assert stat.S_IMODE(safe.stat().st_mode) == 0o600
    restored.mkdir(mode=0o700)
    subprocess.run(["gpg", "--homedir", str(restored), "--batch", "--quiet", "--import", str(safe)], check=True)
    with seal(place / "a.gpg", home=restored, passphrase_file=phrase) as pipe:
        pipe.write(b"text")
    (place / "wrong").write_text("wrong\n")
    subprocess.run(["gpgconf", "--homedir", str(build), "--kill", "all"], check=True)
    with pytest.raises(SystemSetup, match="gpg gave nothing; if it has a pass-phrase, give it in a file"):
        verbs.export_secret(build, signer, passphrase_file=place / "wrong")
    with pytest.raises(SystemSetup, match="gpg gave nothing"):
        verbs.export_secret(build, signer)


def test_an_unprotected_secret_key_is_exported(keys: Keys) -> None:
    assert "PRIVATE KEY BLOCK" in verbs.export_secret(keys.home, keys.signer)


@pytest.mark.parametrize("user_id", ["Signer", "s@example.org", "<s@example.org>", "A\nName-Comment: x <s@example.org>",
                                     "A <s@example.org>\n%commit", ""])
def test_a_user_id_is_a_name_and_an_address(place: Path, user_id: str) -> None:
    with pytest.raises(SystemSetup, match="write it as 'Name <address@example.org>'"):
        verbs.make_signing_key(place / "build", user_id)


def test_mistakes_are_said(keys: Keys, place: Path) -> None:
    (place / "empty").write_text("\n")
    public = keys.gpg("--export", "--armor", keys.signer).stdout.decode()
    secret = keys.gpg("--export-secret-keys", "--armor", keys.signer).stdout.decode()
    both = keys.gpg("--export", "--armor", keys.signer, keys.device).stdout.decode()
    taken = place / "taken"
    taken.mkdir()
    for act, reason in (
        (lambda: verbs.make_signing_key(keys.home, "New <signer@example.org>"), "signer@example.org has one already"),
        (lambda: verbs.make_signing_key(place / "b", "New <n@example.org>", expire="soon"), "write for example 2y"),
        (lambda: verbs.make_signing_key(place / "b", "New <n@example.org>", expire="2001-01-01"), "cannot make a key"),
        (lambda: verbs.make_signing_key(place / "b", "New <n@example.org>", passphrase_file=place / "no"), "No such"),
        (lambda: verbs.make_signing_key(place / "b", "N <n@example.org>", passphrase_file=place / "empty"), "is empty"),
        (lambda: verbs.make_device_key(place / "b", "router<7>"), "cannot make a key for"),
        (lambda: verbs.export(keys.home, "nobody@example.org"), "there is no such key"),
        (lambda: verbs.export(place / "missing", "signer@example.org"), "there is no such directory"),
        (lambda: verbs.export_secret(place / "missing", "signer@example.org"), "there is no such directory"),
        (lambda: verbs.device_keyring(taken, [public], "d"), "it is there already"),
        (lambda: verbs.device_keyring(place / "k", ["hello"], "d"), "not one OpenPGP public key but 0"),
        (lambda: verbs.device_keyring(place / "k", [both], "d"), "not one OpenPGP public key but 2"),
        (lambda: verbs.device_keyring(place / "k", [secret], "d"), "secret half"),
        (lambda: verbs.import_device(place / "b", public), "is not made to encrypt for"),
        (lambda: verbs.list_keyring(place / "missing"), "there is no such directory"),
    ):
        with pytest.raises(SystemSetup, match=reason):
            act()
    assert not (place / "k").exists()
    assert not [name for name in os.listdir(place) if name.startswith(".")]


def test_a_mistake_is_one_line_of_the_command(place: Path) -> None:
    done = CliRunner().invoke(verbs.get_options(), ["list", str(place / "none")], prog_name="fussy keys")
    assert done.exit_code == SystemSetup.exit_code
    assert done.stderr.startswith("fussy keys list: cannot use the keyring ")
    assert done.stderr.count("\n") == 1


def test_a_name_cannot_allow_somebody_else(keys: Keys, place: Path) -> None:
    """The names in the file of signers were chosen by whoever made the keys."""
    home = place / "enemy"
    home.mkdir(mode=0o700)
    made = keys.make(f"Enemy\u2028{keys.foreign} <enemy@example.org>", home=home)
    verbs.device_keyring(place / "keys", [keys.gpg("--export", "--armor", made, home=home).stdout.decode()], "d")
    with open_keyring(place / "keys") as ring:
        assert ring.allowed == {made}


# --- the documents, section 4.1 ---------------------------------------------------------------------------------------


def gpg(home: Path, *arguments: str, text: str = "") -> str:
    """Run gpg with GNUPGHOME, as the documents do."""
    done = subprocess.run(["gpg", *arguments], env={**os.environ, "GNUPGHOME": str(home), "LC_ALL": "C"}, input=text,
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


UNATTENDED = ("--batch", "--pinentry-mode", "loopback", "--passphrase", "")


def documented_key(home: Path, name: str) -> str:
    """``gpg --gen-key``, with the answers in a file; return the key id that ``gpg -K`` shows."""
    gpg(home, *UNATTENDED, "--gen-key", text=f"Key-Type: RSA\nKey-Length: 2048\nKey-Usage: sign\nSubkey-Type: RSA\n"
        f"Subkey-Length: 2048\nSubkey-Usage: encrypt\nName-Real: {name}\nName-Email: {name.lower()}@example.org\n"
        "Expire-Date: 0\n%commit\n")
    listing = gpg(home, "-K", "--keyid-format", "short")
    return next(line.split("/")[1].split()[0] for line in listing.splitlines() if line.startswith("sec"))


@pytest.mark.parametrize("trust", ["edit-key", "import-ownertrust"])
def test_the_documented_way_works(place: Path, trust: str) -> None:
    build, keyring = place / "home", place / "keys"
    build.mkdir(mode=0o700)
    signer = documented_key(build, "Builder")
    assert "PRIVATE KEY" in gpg(build, *UNATTENDED, "--export-secret-key", "-a")
    keyring.mkdir(mode=0o700)
    gpg(keyring, "--batch", "--import", text=gpg(build, "--export", "-a", signer))
    fingerprint = list_keys(build, signer)[0].fingerprint
    with pytest.raises(SystemSetup, match="it holds no key that may sign"), open_keyring(keyring):
        pass
    if trust == "edit-key":
        gpg(keyring, "--no-tty", "--command-fd", "0", "--edit-key", signer, "trust", "quit", text="5\ny\n")
    else:
        gpg(keyring, "--import-ownertrust", text=f"{fingerprint}:6:\n")
    device = documented_key(keyring, "Device")
    assert len(device) == 8
    gpg(build, "--batch", "--import", text=gpg(keyring, "--export", "-a", device))
    assert seal_and_verify(place, build, keyring, device) == fingerprint
    with open_keyring(keyring) as ring:
        assert ring.allowed == {fingerprint}, "the device's own key, which gpg trusts too, does not count"
