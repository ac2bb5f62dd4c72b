"""Messages made by real gpg, read and written."""

import os
from pathlib import Path

import pytest

from fussy.errors import Untrusted
from fussy.gpg import open_keyring, seal


def test_what_is_sealed_can_be_read(keys, tmp_path: Path) -> None:
    text = os.urandom(3_000_000)
    bundle = tmp_path / "a.gpg"
    with seal(bundle, sign_with=keys.signer, encrypt_for=[keys.device], home=keys.home) as pipe:
        pipe.write(text)
    got = bytearray()
    with open_keyring(keys.keyring) as ring, bundle.open("rb") as file:
        signer = ring.verify(file, got.extend)
        with ring.decrypt(file) as plain:
            again = plain.read()
    assert signer.fingerprint == keys.signer
    assert signer.user_id == "Signer <signer@example.org>"
    assert bytes(got) == text == again


def test_a_foreign_key_is_refused(keys, tmp_path: Path) -> None:
    bundle = tmp_path / "a.gpg"
    with seal(bundle, sign_with=keys.foreign, home=keys.home) as pipe:
        pipe.write(b"text")
    with open_keyring(keys.keyring) as ring, bundle.open("rb") as file, pytest.raises(Untrusted, match="foreign key"):
        ring.verify(file, len)
