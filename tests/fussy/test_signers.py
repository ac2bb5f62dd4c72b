"""Who may vouch for bundles is changed on a device whose keyring is in use."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fussy import keys, signers
from fussy.errors import SystemSetup, Untrusted
from fussy.gpg import open_keyring, seal
from fussy.gpghome import stop_agent
from tests.crash.killing import kill_at, points


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A build machine's ring with the keys of two signers."""
    home = tmp_path_factory.mktemp("build") / "ring"
    for name in ("maker", "server"):
        keys.make_signing_key(home, f"{name} <{name}@example.org>")
    yield home
    stop_agent(home)


def opens(build: Path, keyring: Path, who: str) -> bool:
    """Tell whether a bundle that somebody signed is believed by a keyring."""
    bundle = keyring.parent / f"{who}.gpg"
    with seal(bundle, sign_with=f"{who}@example.org", home=build) as pipe:
        pipe.write(b"text")
    with open_keyring(keyring) as ring, bundle.open("rb") as file:
        try:
            ring.verify(file, len)
        except Untrusted:
            return False
    return True


def public(build: Path, who: str) -> str:
    return keys.export(build, f"{who}@example.org")


@pytest.mark.parametrize("listed", [True, False], ids=["by the list", "by trust alone"])
def test_another_signer_comes_and_goes(build: Path, tmp_path: Path, listed: bool) -> None:
    keyring = tmp_path / "keys"
    keys.device_keyring(keyring, [public(build, "maker")], "router")
    if not listed:
        (keyring / "signers").unlink()
    assert not opens(build, keyring, "server")
    (new,) = signers.missing(keyring, [public(build, "server"), public(build, "maker")])
    assert signers.allow(keyring, [public(build, "server")], {"root.json": b"{}"}) == [new]
    assert (opens(build, keyring, "server"), opens(build, keyring, "maker")) == (True, True)
    assert (keyring / "root.json").read_bytes() == b"{}"
    assert signers.allow(keyring, [public(build, "server")]) == [] == signers.missing(keyring, [public(build, "maker")])
    signers.disallow(keyring, [new])
    assert (opens(build, keyring, "server"), opens(build, keyring, "maker")) == (False, True)


def test_a_keyring_is_made_and_may_end_with_nobody(build: Path, tmp_path: Path) -> None:
    keyring = tmp_path / "etc/keys"
    added = signers.allow(keyring, [public(build, "server")])
    assert opens(build, keyring, "server")
    assert keyring.stat().st_mode & 0o777 == 0o700
    signers.disallow(keyring, added)
    with pytest.raises(SystemSetup, match="allows nobody to sign"):
        opens(build, keyring, "server")
    assert signers.allow(keyring, [public(build, "server")]) == added
    assert opens(build, keyring, "server")


def test_what_is_no_key_or_no_directory(build: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemSetup, match="not one OpenPGP public key"):
        signers.allow(tmp_path / "keys", ["no key"])
    assert not (tmp_path / "keys").exists()
    (tmp_path / "file").touch()
    with pytest.raises(SystemSetup, match="cannot change the keyring .*: Not a directory"):
        signers.allow(tmp_path / "file/keys", [public(build, "server")])


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_killed_at_each_write_the_first_signer_still_counts(build: Path, tmp_path: Path) -> None:
    keyring, template, new = tmp_path / "keys", tmp_path / "template", public(build, "server")
    keys.device_keyring(template, [public(build, "maker")], "router")
    shutil.copytree(template, keyring)
    found = points(lambda: signers.allow(keyring, [new]), keyring, tmp_path / "trace")
    assert len(found) >= 4
    believed = []
    for point in found:
        shutil.rmtree(keyring)
        shutil.copytree(template, keyring)
        assert kill_at(lambda: signers.allow(keyring, [new]), point), point.text
        assert opens(build, keyring, "maker"), point.text
        believed.append(opens(build, keyring, "server"))
        signers.allow(keyring, [new])
        assert opens(build, keyring, "server"), point.text
    assert not any(believed[:-1]), "it counts when all is in place, not before"
