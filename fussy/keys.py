"""Make and move keys: the signing key of a build machine, the keyring and key of a device. Nothing here asks anything.

The documented way with plain gpg (fussy documents, section 4.1) leads to the same directories; this one needs no
dialogue, names who may sign in a file, and builds a device's keyring in one step or not at all.
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fussy.errors import SystemSetup
from fussy.gpg import SIGNERS, open_keyring
from fussy.gpghome import RINGS, key_of, key_tool, list_keys, private_home, readable, secret_keygrips, stop_agent
from fussy.trust import Key, choose_key, key_query

if TYPE_CHECKING:
    import click

ALGORITHMS = {
    "ed25519": "Key-Type: EDDSA\nKey-Curve: ed25519\nKey-Usage: sign\n",
    "rsa4096": "Key-Type: RSA\nKey-Length: 4096\nKey-Usage: sign\n",
}
ENCRYPTION_SUBKEY = "Subkey-Type: ECDH\nSubkey-Curve: cv25519\nSubkey-Usage: encrypt\n"
FOREVER = "0"


@dataclass(frozen=True)
class SigningKey:
    """A new signing key; REVOCATION is the file that, once imported, declares it void."""

    fingerprint: str
    revocation: Path


@dataclass(frozen=True)
class Entry:
    """A key of a device's keyring: may it vouch for bundles, and has the device its secret half?"""

    key: Key
    may_sign: bool
    secret: bool


def make_signing_key(home: Path | None, user_id: str, *, expire: str = "2y", algorithm: str = "ed25519",
                     passphrase_file: Path | None = None) -> SigningKey:
    """Make the key that signs releases, in the GNUPGHOME of a build machine (made if it isn't there).

    :param user_id: ``Name <address>``
    :param expire: gpg's notation: ``2y``, ``18m``, ``2030-12-31``, or ``0`` for never
    :param algorithm: ``ed25519``, or ``rsa4096`` for devices whose gpg is older than 2.1
    :param passphrase_file: its first line protects the key; without it the key is not protected
    :raises SystemSetup: gpg could not make it, or the address has a key already
    """
    with own_home(home) as directory:
        fingerprint = generate(home, ALGORITHMS[algorithm], user_id, expire, passphrase_file)
        return SigningKey(fingerprint, directory / "openpgp-revocs.d" / f"{fingerprint}.rev")


def make_device_key(keyring: Path, name: str) -> str:
    """Make the key for which bundles are encrypted, in a device's keyring; return its fingerprint.

    It has no pass-phrase, as nobody is there to type it, and does not expire, as nobody could prolong it.

    :param name: a user id, or a plain name: ``router-7`` becomes ``router-7 <router-7@device.invalid>``
    """
    user_id = name if "@" in name else f"{name} <{re.sub('[^A-Za-z0-9._-]+', '-', name)}@device.invalid>"
    with own_home(keyring):
        return generate(keyring, ALGORITHMS["ed25519"] + ENCRYPTION_SUBKEY, user_id, FOREVER, None)


def export(home: Path | None, key: str) -> str:
    """Return the public half of a key, named by id, fingerprint or e-mail address, in ASCII armour."""
    found = one_key(home, key)
    text: str = key_tool(home).export_keys(found.fingerprint)
    return checked_export(text, found)


def export_secret(home: Path | None, key: str, *, passphrase_file: Path | None = None) -> str:
    """Return the secret half of a key, in ASCII armour, protected as it is in the ring: the copy to keep offline."""
    with stopping_agent(home):
        found = one_key(home, key, secret=True)
        passphrase = read_passphrase(passphrase_file).decode("latin-1")
        text: str = key_tool(home).export_keys(found.fingerprint, secret=True, passphrase=passphrase)
    return checked_export(text, found)


def device_keyring(directory: Path, signers: Sequence[str], device: str) -> str:
    """Build the complete keyring of a device; return the device's public key, which the build machine imports.

    The directory (mode 0700) appears only when all is in it: the signers' public keys, trusted ultimately and named in
    the file ``signers``, and a key of the device's own.

    :param signers: armoured public keys of those who may sign, one each
    :param device: name of the device or of the kind of device; see :func:`make_device_key`
    :raises SystemSetup: the directory is there already, or a key is not one
    """
    if directory.exists():
        raise SystemSetup(f"cannot make the keyring {directory}: it is there already; name another directory")
    with private_home() as home:
        allowed = [import_one(home, text) for text in signers]
        key_tool(home).trust_keys([key.fingerprint for key in allowed], "TRUST_ULTIMATE")
        public = export(home, make_device_key(home, device))
        stop_agent(home)
        lines = [f"{key.fingerprint}  # {key.user_ids[0] if key.user_ids else ''}\n" for key in allowed]
        (home / SIGNERS).write_text("# Who may sign bundles for this device: one primary fingerprint a line.\n"
                                    + "".join(lines))
        put_in_place(home, directory)
    return public


def import_device(home: Path | None, public: str) -> str:
    """Import a device's public key on the build machine; return its fingerprint, to be given to ``--encrypt-for``.

    :raises SystemSetup: it is not one key for which one can encrypt
    """
    with own_home(home):
        key = import_one(home, public)
        return choose_key([key], key.fingerprint, "E").fingerprint


def list_keyring(keyring: Path) -> list[Entry]:
    """Say for each key of a device's keyring whether it may sign.

    :raises SystemSetup: the keyring can't be used, or nobody in it may sign
    """
    with open_keyring(keyring) as ring:
        secret = secret_keygrips(ring.home)
        return [Entry(key, key.fingerprint in ring.allowed, not secret.isdisjoint(key.keygrips))
                for key in list_keys(ring.home)]


@contextlib.contextmanager
def own_home(home: Path | None) -> Iterator[Path]:
    """Have a GNUPGHOME (made if missing, mode 0700); end its gpg-agent with the block if it is not the user's."""
    directory = home or Path(os.environ.get("GNUPGHOME") or "~/.gnupg").expanduser()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SystemSetup(f"cannot make the key directory {directory}: {error.strerror}") from error
    with stopping_agent(home):
        yield directory


@contextlib.contextmanager
def stopping_agent(home: Path | None) -> Iterator[None]:
    """End the gpg-agent of a GNUPGHOME that is not the user's."""
    try:
        yield
    finally:
        if home is not None:
            stop_agent(home)


def generate(home: Path | None, kind: str, user_id: str, expire: str, passphrase_file: Path | None) -> str:
    """Have gpg make a key of a KIND (lines of its unattended format); return the fingerprint.

    :raises SystemSetup: the user id can't be used or is taken, or gpg failed
    """
    named = re.fullmatch(r"([^<>\x00-\x1f\x7f]+?)\s*<([^<>@\s\x00-\x1f\x7f]+@[^<>@\s\x00-\x1f\x7f]+)>", user_id.strip())
    if not named:
        raise SystemSetup(f"cannot make a key for {user_id!r}: write it as 'Name <address@example.org>'")
    if not re.fullmatch(r"0|\d+[dwmy]?|\d{4}-\d\d-\d\d", expire):
        raise SystemSetup(f"cannot make a key that expires {expire!r}: write for example 2y, 90d, 2030-12-31, or 0")
    if any(not key.fault for key in list_keys(home, key_query(named[2], "S"))):
        raise SystemSetup(f"cannot make a key for {user_id}: {named[2]} has one already, and names must tell keys "
                          "apart; use another address, or revoke the old key first")
    passphrase = read_passphrase(passphrase_file)
    protection = b"Passphrase: " + passphrase if passphrase else b"%no-protection"
    text = f"{kind}Name-Real: {named[1]}\nName-Email: {named[2]}\nExpire-Date: {expire}\n".encode()
    made = key_tool(home).gen_key(text + protection + b"\n%commit\n")
    if not made.fingerprint:
        raise SystemSetup(f"cannot make a key for {user_id}: {last_line(made.stderr)}")
    return str(made.fingerprint)


def read_passphrase(path: Path | None) -> bytes:
    """Read the first line of a pass-phrase file, as gpg's ``--passphrase-file`` does; without a file it is empty."""
    if path is None:
        return b""
    try:
        passphrase = path.read_bytes().partition(b"\n")[0]
    except OSError as error:
        raise SystemSetup(f"cannot read the pass-phrase file {path}: {error.strerror}") from error
    if not passphrase:
        raise SystemSetup(f"cannot use the pass-phrase file {path}: its first line is empty")
    return passphrase


def one_key(home: Path | None, wanted: str, *, secret: bool = False) -> Key:
    """Find the only key that WANTED names, be it good for anything or not."""
    found = list_keys(home, key_query(wanted, "S"), secret=secret)
    if len(found) != 1:
        what = f"{len(found)} keys go by that name; give a fingerprint" if found else "there is no such key in the ring"
        raise SystemSetup(f"cannot export {wanted!r}: {what}")
    return found[0]


def checked_export(text: str, key: Key) -> str:
    """Pass on what gpg exported, if it did."""
    if "-----END PGP" not in text:
        raise SystemSetup(f"cannot export key {key.name}: gpg gave nothing; if it has a pass-phrase, give it in a file")
    return text


def import_one(home: Path | None, public: str) -> Key:
    """Import a text that must hold exactly one public key."""
    tool = key_tool(home)
    scanned: list[dict[str, Any]] = tool.scan_keys_mem(public)
    if len(scanned) != 1:
        raise SystemSetup(f"cannot import: this is not one OpenPGP public key but {len(scanned)}; export one a file")
    fingerprint = scanned[0]["fingerprint"]
    if scanned[0]["type"] == "sec":
        raise SystemSetup(f"cannot import key {fingerprint}: this is its secret half; export the public one")
    done = tool.import_keys(public)
    found = [key for key in map(key_of, tool.list_keys(keys=[fingerprint])) if key.fingerprint == fingerprint]
    if not found:
        raise SystemSetup(f"cannot import key {fingerprint}: {last_line(done.stderr)}")
    return found[0]


def last_line(text: str) -> str:
    """What gpg said last, without its status lines."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("[GNUPG:]")]
    return readable(lines[-1].removeprefix("gpg: ")) if lines else "gpg gave no reason"


def put_in_place(home: Path, directory: Path) -> None:
    """Copy what a device needs of a GNUPGHOME, and name the copy DIRECTORY when it is complete."""
    unfinished = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        unfinished.mkdir(mode=0o700)
        for name in (*RINGS, "trustdb.gpg", SIGNERS):
            if (home / name).exists():
                shutil.copy(home / name, unfinished / name)
        shutil.copytree(home / "private-keys-v1.d", unfinished / "private-keys-v1.d")
        unfinished.rename(directory)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise SystemSetup(f"cannot make the keyring {directory}: {error.strerror}: {error.filename}") from error


def get_options() -> "click.Group":
    """Return the command line of ``fussy keys``."""
    from fussy.keyverbs import keys

    return keys
