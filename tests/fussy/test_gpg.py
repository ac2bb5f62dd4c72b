"""Messages made by real gpg, read as a device reads them: only one kind is let through."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fussy import gpghome
from fussy.errors import Untrusted
from fussy.gpg import Keyring, clock, open_keyring, seal

from .clocks import standing_at

if TYPE_CHECKING:
    from tests.fussy.conftest import Keys

TEXT = bytes(range(256)) * 80


@pytest.fixture(scope="module")
def ring(keys: Keys) -> Iterator[Keyring]:
    with open_keyring(keys.keyring) as opened:
        yield opened


def read(ring: Keyring, message: bytes, place: Path) -> tuple[str, bytes]:
    """Verify a message; return who signed it and its plaintext."""
    bundle = place / "bundle.gpg"
    bundle.write_bytes(message)
    got = bytearray()
    with bundle.open("rb") as file:
        signer = ring.verify(file, got.extend)
    return signer.fingerprint, bytes(got)


def sign(keys: Keys, *options: str, key: str | None = None, text: bytes = TEXT, at: str | None = None,
         how: str = "--sign") -> bytes:
    return keys.gpg("-u", key or keys.signer, "-z", "0", *options, how, text=text, at=at).stdout


def literal(text: bytes = TEXT, name: bytes = b"") -> bytes:
    """A literal data packet: plaintext that nobody signed (RFC 4880, section 5.9)."""
    body = b"b" + bytes([len(name)]) + name + bytes(4) + text
    return b"\xcb\xff" + len(body).to_bytes(4, "big") + body


def encrypted(keys: Keys, message: bytes, *, raw: bool = True) -> bytes:
    """Encrypt a message for the device as it is, or its bytes as a text."""
    options = ["--no-literal"] if raw else []
    return keys.gpg("--recipient", keys.device, *options, "-z", "0", "--encrypt", text=message).stdout


# --- what passes ------------------------------------------------------------------------------------------------------


def test_what_is_sealed_can_be_read_twice(keys: Keys, ring: Keyring, tmp_path: Path) -> None:
    text = random.Random(1).randbytes(3_000_000)
    bundle = tmp_path / "a b.gpg"
    with seal(bundle, sign_with="signer@example.org", encrypt_for=["device@example.org"], home=keys.home) as pipe:
        pipe.write(text)
    got = bytearray()
    with bundle.open("rb") as file:
        signer = ring.verify(file, got.extend)
        with ring.decrypt(file) as plain:
            again = plain.read()
    assert (signer.fingerprint, signer.user_id) == (keys.signer, "Signer <signer@example.org>")
    assert abs(signer.signed_at - time.time()) < 300
    assert bytes(got) == text == again
    assert os.listdir(tmp_path) == ["a b.gpg"]


def signed_and_encrypted(keys: Keys) -> bytes:
    return sign(keys, "--encrypt", "-r", keys.device)


GOOD: dict[str, Callable[[Keys], bytes]] = {
    "signed": sign,
    "signed and encrypted": signed_and_encrypted,
    "for a stranger too": lambda keys: sign(keys, "--encrypt", "-r", keys.stranger, "-r", keys.device),
    "recipient hidden": lambda keys: sign(keys, "--encrypt", "-R", keys.device),
    "compressed, as plain gpg does": lambda keys: sign(keys, "-z", "6", "--encrypt", "-r", keys.device),
    "armoured": lambda keys: sign(keys, "--armor"),
    "signature first": lambda keys: sign(keys, how="--detach-sign") + literal(),
    "named by an enemy": lambda keys: sign(keys, "--set-filename", "\n[GNUPG:] BADSIG 0 x"),
    "SHA384": lambda keys: sign(keys, "--digest-algo", "SHA384"),
    "not yet expired": lambda keys: sign(keys, "--default-sig-expire", "1d"),
}


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
def test_good_messages_pass(keys: Keys, ring: Keyring, tmp_path: Path, make: Callable[[Keys], bytes]) -> None:
    assert read(ring, make(keys), tmp_path) == (keys.signer, TEXT)


def test_nothing_is_a_text_too(keys: Keys, ring: Keyring, tmp_path: Path) -> None:
    assert read(ring, sign(keys, text=b""), tmp_path) == (keys.signer, b"")


# --- what does not ----------------------------------------------------------------------------------------------------

# gpg may take what follows for more ciphertext, and what random bytes mean is random.
TAIL = "damaged|more than one message|something else follows"

BAD: dict[str, tuple[str, Callable[[Keys], bytes]]] = {
    "empty": ("not an OpenPGP message", lambda keys: b""),
    "garbage": ("not an OpenPGP message", lambda keys: b"PK\x03\x04" * 99),
    "a public key": ("not an OpenPGP message", lambda keys: keys.export(keys.signer)),
    "a detached signature": ("not an OpenPGP message", lambda keys: sign(keys, how="--detach-sign")),
    "unsigned": ("not signed", lambda keys: literal()),
    "unsigned, compressed": ("not signed", lambda keys: keys.gpg("--store", text=TEXT).stdout),
    **{f"status lines in its name, after {end!a}": ("not signed", lambda keys, end=end: literal(name=end.join([
        "x", "[GNUPG:] NEWSIG", "[GNUPG:] GOODSIG A B",
        f"[GNUPG:] VALIDSIG {keys.signer} 0 0 0 4 0 22 8 00 {keys.signer}", ""]).encode()))
       for end in ("\n", "\r", "\u2028")},
    "encrypted, unsigned": ("not signed", lambda keys: encrypted(keys, TEXT, raw=False)),
    "signed inside the text": ("not signed", lambda keys: encrypted(keys, sign(keys), raw=False)),
    "foreign": ("foreign key, [0-9A-F]{16}, that is not in", lambda keys: sign(keys, key=keys.foreign)),
    "foreign, encrypted": ("foreign key", lambda keys: sign(keys, "--encrypt", "-r", keys.device, key=keys.foreign)),
    "signed by two": ("foreign key|more than one signature", lambda keys: sign(keys, "-u", keys.foreign)),
    "signed twice by us": ("more than one signature", lambda keys: doubly_signed(sign(keys))),
    "SHA-1": ("SHA-1, which is too weak", lambda keys: sign(keys, "--digest-algo", "SHA1")),
    "RIPEMD-160": ("RIPEMD-160, which is too weak", lambda keys: sign(keys, "--digest-algo", "RIPEMD160")),
    "SHA-224": ("SHA-224, which is too weak", lambda keys: sign(keys, "--digest-algo", "SHA224")),
    "text signature": ("signed as text", lambda keys: sign(keys, "--textmode")),
    "clear-signed": ("signed as text", lambda keys: sign(keys, how="--clear-sign", text=b"text\n")),
    "for another device": (r"encrypted for another device \(key [0-9A-F]{16}\), or",
                           lambda keys: sign(keys, "--encrypt", "-r", keys.stranger)),
    "with a pass-phrase": ("encrypted with a pass-phrase", lambda keys: sign(
        keys, "--passphrase", "x", "--s2k-count", "1024", "--symmetric")),
    "without protection": ("does not protect it|cannot be decrypted|damaged",
                           lambda keys: sign(keys, "--rfc2440", "--digest-algo", "SHA256", "-e", "-r", keys.device)),
    "twice": ("more than one message", lambda keys: sign(keys) * 2),
    "ours and a foreign one": ("more than one message", lambda keys: sign(keys) + sign(keys, key=keys.foreign)),
    "a text before": ("more than one message", lambda keys: literal(b"evil") + sign(keys)),
    "a text after": ("more than one message", lambda keys: sign(keys) + literal(b"evil")),
    "encrypted, twice": (TAIL, lambda keys: signed_and_encrypted(keys) * 2),
    "encrypted, a text before": ("more than one message|cannot be decrypted|damaged",
                                 lambda keys: literal(b"evil") + signed_and_encrypted(keys)),
    "encrypted, a text after": (TAIL, lambda keys: signed_and_encrypted(keys) + literal(b"evil")),
    "encrypted together": ("more than one message", lambda keys: encrypted(keys, sign(keys) * 2)),
    "encrypted together with a text": ("more than one message",
                                       lambda keys: encrypted(keys, sign(keys) + literal(b"evil"))),
    "words after": ("something else follows", lambda keys: sign(keys) + b"words\n"),
    "encrypted, words after": (TAIL, lambda keys: signed_and_encrypted(keys) + b"words\n"),
}


def doubly_signed(message: bytes) -> bytes:
    """Repeat the one-pass and the signature packet of a message (both have old headers and one-byte lengths)."""
    head = message[:2 + message[1]]
    assert head[0] == 0x90, "a one-pass signature packet"
    start = next(at for at in range(len(head), len(message) - 1)
                 if message[at] == 0x88 and at + 2 + message[at + 1] == len(message))
    return head[:-1] + b"\0" + message + message[start:]


@pytest.mark.parametrize(("reason", "make"), BAD.values(), ids=BAD)
def test_bad_messages_are_refused(keys: Keys, ring: Keyring, tmp_path: Path, reason: str,
                                  make: Callable[[Keys], bytes]) -> None:
    message = make(keys)
    with pytest.raises(Untrusted, match=f"^cannot trust .*bundle.gpg: .*({reason})"):
        read(ring, message, tmp_path)


def test_a_known_key_that_may_not_sign_is_refused(keys: Keys, tmp_path: Path) -> None:
    message = sign(keys, key=keys.second)
    with open_keyring(keys.keyring_knowing(keys.second)) as ring:
        with pytest.raises(Untrusted, match=f"signed by {keys.second} .Second <second@example.org>., which is in the"):
            read(ring, message, tmp_path)
        with pytest.raises(Untrusted, match="more than one signature"):
            read(ring, sign(keys, "-u", keys.second), tmp_path)
    with open_keyring(keys.keyring_knowing(keys.second, signers=f"{keys.second}\n")) as ring:
        assert read(ring, message, tmp_path) == (keys.second, TEXT)
        with pytest.raises(Untrusted, match="may not sign"):
            read(ring, sign(keys), tmp_path)


def test_a_key_cannot_forge_status_lines_by_its_name(keys: Keys, tmp_path: Path) -> None:
    forger = keys.make(f"Forger\u2028[GNUPG:] VALIDSIG {keys.signer} \u2028 <forger@example.org>")
    message = sign(keys, key=forger)
    with open_keyring(keys.keyring_knowing(forger)) as ring, \
            pytest.raises(Untrusted, match=f"signed by {forger} .Forger.*which is in the keyring but may not sign"):
        read(ring, message, tmp_path)


def test_the_devices_own_key_never_vouches(keys: Keys, ring: Keyring, tmp_path: Path) -> None:
    message = keys.gpg("-u", keys.device, "--sign", home=keys.keyring, text=TEXT).stdout
    with pytest.raises(Untrusted, match="may not sign"):
        read(ring, message, tmp_path)


@pytest.mark.parametrize("when", ["now", "1970"])
def test_an_expired_key_is_refused(keys: Keys, tmp_path: Path, when: str) -> None:
    message = sign(keys, key=keys.expired, at="-250h")
    keyring = keys.keyring_knowing(keys.expired, signers=keys.expired)
    (tmp_path / "bundle.gpg").write_bytes(message)
    done = verify_at(None if when == "now" else "1970-01-02 00:00:00", keyring, tmp_path / "bundle.gpg")
    assert "has expired" in done, done


def test_an_expired_signature_is_refused(keys: Keys, tmp_path: Path) -> None:
    keyring = keys.keyring_knowing(keys.aged, signers=keys.aged)
    with open_keyring(keyring) as ring:
        assert read(ring, sign(keys, key=keys.aged, at="-5d"), tmp_path) == (keys.aged, TEXT)
        with pytest.raises(Untrusted, match=r"signature by key [0-9A-F]{16} has expired; sign it again"):
            read(ring, sign(keys, "--default-sig-expire", "1d", key=keys.aged, at="-5d"), tmp_path)


def test_a_revoked_key_is_refused(keys: Keys, tmp_path: Path) -> None:
    message = sign(keys, key=keys.revoked)
    keyring = keys.keyring_knowing(keys.revoked, signers=keys.revoked)
    with open_keyring(keyring) as ring:
        assert read(ring, message, tmp_path) == (keys.revoked, TEXT)
    keys.import_key(keyring, keys.revocation(keys.revoked))
    with open_keyring(keyring) as ring, pytest.raises(Untrusted, match="has been revoked"):
        read(ring, message, tmp_path)


@pytest.mark.parametrize("make", [sign, signed_and_encrypted])
def test_a_cut_message_is_refused_wherever_it_is_cut(keys: Keys, ring: Keyring, tmp_path: Path,
                                                     make: Callable[[Keys], bytes]) -> None:
    message = make(keys)
    places = random.Random(7)
    for end in {1, 2, 40, len(message) // 2, len(message) - 1, len(message) - 2, len(message) - 40,
                *(places.randrange(len(message)) for _ in range(12))}:
        with pytest.raises(Untrusted):
            read(ring, message[:end], tmp_path)


@pytest.mark.parametrize("make", [sign, signed_and_encrypted])
def test_no_flipped_bit_changes_what_is_believed(keys: Keys, ring: Keyring, tmp_path: Path,
                                                 make: Callable[[Keys], bytes]) -> None:
    """OpenPGP's signature leaves some 30 bytes out, a date beside the text for example: they can't change the text."""
    message = make(keys)
    places = random.Random(11)
    passed = 0
    for at in {*range(0, 120, 5), *range(len(message) - 120, len(message), 5),
               *(places.randrange(len(message)) for _ in range(12))}:
        changed = bytearray(message)
        changed[at] ^= 1 << places.randrange(8)
        try:
            assert read(ring, bytes(changed), tmp_path) == (keys.signer, TEXT)
            passed += 1
        except Untrusted:
            continue
    assert passed <= 10


def test_no_plaintext_reaches_a_disk(keys: Keys, tmp_path: Path) -> None:
    """Of all files that a failing run opens for writing, each is a copy of a key or a lock of gpg."""
    if shutil.which("strace") is None:
        pytest.skip("strace is missing")
    bundle, trace = tmp_path / "bundle.gpg", tmp_path / "trace"
    bundle.write_bytes(signed_and_encrypted(keys)[:-40])
    strace = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=open,openat,creat,openat2"]
    done = subprocess.run([*strace, sys.executable, "-B", "-c", VERIFY, str(keys.keyring), str(bundle)],
                          capture_output=True, text=True, timeout=60, check=True)
    assert "damaged or changed" in done.stdout
    written = {line.split('"')[1] for line in trace.read_text().splitlines()
               if any(flag in line for flag in ("O_WRONLY", "O_RDWR", "O_CREAT", "creat(")) and " = -1 " not in line}
    assert any(name.endswith("/pubring.kbx") for name in written), "strace saw the copies"
    key_files = (".kbx", ".key", "trustdb.gpg", ".lock", "random_seed", "S.gpg-agent")
    assert {name for name in written if not name.startswith("/dev/")
            and not (f"/{gpghome.PREFIX}" in name and (name.endswith(key_files) or "/.#lk" in name))} == set()


def test_a_bomb_is_left_early(keys: Keys, tmp_path: Path) -> None:
    bomb = keys.gpg("--compress-algo", "bzip2", "-z", "6", "--store", text=bytes(100 << 20)).stdout
    assert len(bomb) < 1 << 20
    count = 0

    def consume(block: bytes) -> None:
        nonlocal count
        count += len(block)
    bundle = tmp_path / "bomb.gpg"
    bundle.write_bytes(bomb)
    with open_keyring(keys.keyring) as ring, bundle.open("rb") as file, \
            pytest.raises(Untrusted, match=r"bomb.gpg: it unpacks to more than 67,108,864 bytes"):
        ring.verify(file, consume)
    assert count <= 64 << 20


# --- the clock --------------------------------------------------------------------------------------------------------

VERIFY = """
import sys, pathlib
from fussy.errors import FussyError
from fussy.gpg import open_keyring
try:
    with open_keyring(pathlib.Path(sys.argv[1])) as ring, open(sys.argv[2], "rb") as bundle:
        print(ring.verify(bundle, len).fingerprint)
except FussyError as error:
    print(error)
"""


def verify_at(when: str | None, keyring: Path, bundle: Path) -> str:
    """Verify in a process whose clock stands at WHEN."""
    clock, environment = standing_at(when, bundle.parent) if when else ("", None)
    command = [sys.executable, "-c", clock + VERIFY, str(keyring), str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    return done.stdout.strip()


def test_a_router_that_wakes_in_1970_can_be_upgraded(keys: Keys, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.gpg"
    bundle.write_bytes(signed_and_encrypted(keys))
    assert verify_at("1970-01-02 00:00:00", keys.keyring, bundle) == keys.signer
    bundle.write_bytes(sign(keys, key=keys.foreign))
    assert "foreign key" in verify_at("1970-01-02 00:00:00", keys.keyring, bundle)


def test_the_clock_is_only_corrected_forwards() -> None:
    assert clock(0) == ()
    assert clock(time.time() - 10) == ()
    option, value = clock(time.time() + 1000)
    assert option == "--faked-system-time"
    assert int(value) > time.time() + 999
