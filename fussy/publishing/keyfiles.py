"""Keys of a channel: Ed25519 in PEM files, PKCS #8 for the secret half (``NAME.pem``, 0600), SPKI for the public half
(``NAME.pub``). ``openssl genpkey -algorithm ed25519`` makes them as well.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, SSlibKey

from fussy import disk
from fussy.errors import SystemSetup

# Asks for the pass-phrase of a file.
Ask = Callable[[Path], str]


def make(path: Path, passphrase: str = "") -> SSlibKey:
    """Make a key: its secret half at PATH (``….pem``), its public half beside it.

    :raises SystemSetup: there is a file of that name
    """
    if path.suffix != ".pem":
        raise SystemSetup(f"cannot make the key {path}: its name must end with .pem")
    key = Ed25519PrivateKey.generate()
    protection = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else \
        serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    public = key.public_key().public_bytes(serialization.Encoding.PEM,
                                           serialization.PublicFormat.SubjectPublicKeyInfo)
    for file, data, mode in ((path, secret, 0o600), (path.with_suffix(".pub"), public, 0o644)):
        try:
            disk.create_file(file, data, mode)
        except FileExistsError as error:
            raise SystemSetup(f"cannot make the key {path}: {file} is there already; choose another name") from error
        except FileNotFoundError as error:
            raise SystemSetup(f"cannot make the key {path}: there is no directory {path.parent}") from error
    return SSlibKey.from_crypto(key.public_key())


def free_name(directory: Path, role: str) -> Path:
    """Return the first of ROLE-1.pem, ROLE-2.pem, … that is free in DIRECTORY."""
    number = 1
    while any((directory / f"{role}-{number}{suffix}").exists() for suffix in (".pem", ".pub")):
        number += 1
    return directory / f"{role}-{number}.pem"


def public_of(path: Path, ask: Ask) -> SSlibKey:
    """Return the public half of the key in a file: public, or secret, with its public half beside it or not.

    :raises SystemSetup: it can't be read, or is no Ed25519 key
    """
    beside = path.with_suffix(".pub")
    if path.suffix == ".pem" and beside.is_file():
        path = beside
    data = _read(path)
    try:
        key = secret_of(path, ask).public_key() if b"PRIVATE KEY" in data else serialization.load_pem_public_key(data)
    except ValueError as error:
        raise SystemSetup(f"cannot read the key {path}: it is no PEM file with a key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SystemSetup(f"cannot use the key {path}: it is no Ed25519 key; make one with fussy keys channel")
    return SSlibKey.from_crypto(key)


def secret_of(path: Path, ask: Ask) -> Ed25519PrivateKey:
    """Return the secret half, after asking for its pass-phrase if it has one.

    :raises SystemSetup: it can't be read, others can read it, or the pass-phrase is wrong
    """
    data = _read(path)
    if path.stat().st_mode & 0o077:
        raise SystemSetup(f"cannot use the key {path}: others can read it; chmod 600 {path}, and rotate it if they may "
                          "have done so")
    try:
        phrase = ask(path).encode() if b" ENCRYPTED PRIVATE KEY" in data else None
        key = serialization.load_pem_private_key(data, phrase)
    except (ValueError, TypeError) as error:
        raise SystemSetup(f"cannot read the key {path}: the pass-phrase is wrong, or it is no PEM file") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SystemSetup(f"cannot use the key {path}: it is no Ed25519 key; make one with fussy keys channel")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SystemSetup(f"cannot read the key {path}: {error.strerror}") from error


@dataclass(frozen=True)
class Ring:
    """The keys that may sign here: by key id, where each lies. A secret half is read when it has to sign."""

    files: Mapping[str, Path]
    ask: Ask

    def signer(self, keyid: str) -> CryptoSigner | None:
        """Return what signs with a key, or None if the key is not here."""
        path = self.files.get(keyid)
        return CryptoSigner(secret_of(path, self.ask)) if path else None

    def also(self, path: Path) -> "Ring":
        """Return a ring with one key more."""
        return Ring({**self.files, public_of(path, self.ask).keyid: path}, self.ask)


def ring(directory: Path, extra: Iterable[Path], ask: Ask) -> Ring:
    """Return the keys of a directory, and those in the files EXTRA.

    :raises SystemSetup: one can't be read
    """
    files = [*(sorted(directory.glob("*.pem")) if directory.is_dir() else ()), *extra]
    return Ring({public_of(path, ask).keyid: path for path in files}, ask)
