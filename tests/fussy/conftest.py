"""Keys for tests: real ones, made by gpg itself, once a run."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pytest

from .machine import small_file_system


class Keys:
    """A build machine's ring and a device's keyring, made as the documents say.

    ``home`` (build side GNUPGHOME: the signing key and the device's public key), ``signer`` and ``device``
    (fingerprints), ``keyring`` (device side directory). The other keys live in ``home`` too, each made when first
    asked for. ``keyring_knowing(key)`` copies the device's keyring and adds a key.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.home = self.directory("build")
        self.signer = self.make("Signer <signer@example.org>")
        self.keyring = self.directory("keys")
        self.device = self.make("Device <device@example.org>", home=self.keyring, encrypts=True)
        self.import_key(self.home, self.export(self.device, self.keyring))
        self.import_key(self.keyring, self.export(self.signer))
        self.gpg("--import-ownertrust", home=self.keyring, text=f"{self.signer}:6:\n".encode())

    def directory(self, name: str) -> Path:
        path = self.place / name
        path.mkdir(mode=0o700)
        return path

    def gpg(self, *arguments: str, home: Path | None = None, text: bytes = b"", check: bool = True,
            at: str | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run gpg without questions; AT is a time for it, as faketime reads it."""
        command = ["gpg", "--homedir", str(home or self.home), "--batch", "--yes", "--quiet", "--no-greeting",
                   "--pinentry-mode", "loopback", "--passphrase", "", "--trust-model", "always", *arguments]
        if at is not None:
            command = ["faketime", "-f", at, *command]
        done = subprocess.run(command, input=text, capture_output=True, timeout=60, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: {done.stderr.decode()}")
        return done

    def make(self, user_id: str, *, home: Path | None = None, expires: str = "0", encrypts: bool = False,
             at: str | None = None) -> str:
        """Make a key that signs (and encrypts); return its fingerprint."""
        self.gpg("--quick-generate-key", user_id, "ed25519", "sign", expires, home=home, at=at)
        address = user_id.partition("<")[2].rstrip(">")
        listing = self.gpg("--list-keys", "--with-colons", address, home=home, check=False).stdout.decode()
        fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
        if encrypts:
            self.gpg("--quick-add-key", fingerprint, "cv25519", "encr", expires, home=home, at=at)
        return fingerprint

    def export(self, key: str, home: Path | None = None) -> bytes:
        return self.gpg("--export", key, home=home).stdout

    def import_key(self, home: Path, key: bytes) -> None:
        self.gpg("--import", home=home, text=key)

    def keyring_knowing(self, *keys: str, signers: str | None = None, name: str = "other") -> Path:
        """Copy the device's keyring, with KEYS imported and, if given, the file ``signers``."""
        path = Path(tempfile.mkdtemp(prefix=name, dir=self.place))
        for file in ("pubring.kbx", "trustdb.gpg"):
            shutil.copyfile(self.keyring / file, path / file)
        shutil.copytree(self.keyring / "private-keys-v1.d", path / "private-keys-v1.d")
        for key in keys:
            self.import_key(path, self.export(key))
        if signers is not None:
            (path / "signers").write_text(signers)
        return path

    @cached_property
    def foreign(self) -> str:
        """A key that the device does not know."""
        return self.make("Foreign <foreign@example.org>")

    @cached_property
    def second(self) -> str:
        """A key for a ring that does not trust it; see :meth:`keyring_knowing`."""
        return self.make("Second <second@example.org>")

    @cached_property
    def stranger(self) -> str:
        """A key for which one can encrypt, but not the device's."""
        return self.make("Stranger <stranger@example.org>", encrypts=True)

    @cached_property
    def expired(self) -> str:
        """A key that expired after a day, ten days ago."""
        return self.make("Expired <expired@example.org>", expires="1d", at="-11d")

    @cached_property
    def aged(self) -> str:
        """A key made ten days ago, so that it can sign in the past."""
        return self.make("Aged <aged@example.org>", at="-10d")

    @cached_property
    def revoked(self) -> str:
        """A key that has been revoked; sign with it before you import it where it is to be checked."""
        return self.make("Revoked <revoked@example.org>")

    def revocation(self, key: str) -> bytes:
        """The certificate that revokes a key."""
        text = (self.home / "openpgp-revocs.d" / f"{key}.rev").read_text()
        return text.replace(":-----BEGIN", "-----BEGIN").encode()

    def close(self) -> None:
        for home in self.place.iterdir():
            subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], timeout=60, check=False)
        shutil.rmtree(self.place)


@pytest.fixture(scope="session")
def keys() -> Iterator[Keys]:
    """Real keys; see :class:`Keys`."""
    if shutil.which("gpg") is None:
        pytest.skip("gpg is missing: install gnupg")
    # Sockets of gpg-agent need short paths, which pytest's own directories don't have.
    made = Keys(Path(tempfile.mkdtemp(prefix="fussy-keys-", dir=os.environ.get("TMPDIR", "/tmp"))))
    yield made
    made.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB with 400 inodes."""
    with small_file_system(tmp_path, 400) as mount:
        yield mount
