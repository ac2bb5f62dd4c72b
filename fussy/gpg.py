"""OpenPGP messages in and out: read bundles with the keys of a device, write them with the keys of a build machine.

Reading never writes into the device's key directory, which lies inside a release and may be read-only: gpg works on a
throw-away copy. What gpg may be believed is decided in :mod:`fussy.trust`.
"""

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from fussy.errors import FussyError, SystemSetup, Untrusted
from fussy.gpgprocess import UNATTENDED, Gpg, Plaintext, list_keys, stop_agent
from fussy.trust import Key, Signer, choose_key, judge, parse_signers, parse_status, vouching

__all__ = ["Keyring", "Signer", "open_keyring", "seal"]

RING_FILES = ("pubring.kbx", "pubring.gpg", "trustdb.gpg")
SECRET_KEYS = "private-keys-v1.d"
SIGNERS = "signers"

SMALL_PLAINTEXT = 64 << 20
LARGEST_RATIO = 20
"""A bundle is compressed before it is signed: OpenPGP compression of more than this is no bundle but a bomb."""


class Keyring:
    """The keys of a device, ready for gpg: HOME is the throw-away copy, ALLOWED the fingerprints that may sign."""

    def __init__(self, home: Path, allowed: frozenset[str], clock: Sequence[str]) -> None:
        self.home = home
        self.allowed = allowed
        self.clock = clock

    def verify(self, bundle: BinaryIO, consume: Callable[[bytes], object], *, silence: float = 60.0) -> Signer:
        """Hand the plaintext of a bundle to CONSUME as it comes, and judge its signature when it has ended.

        Until this returns, nothing that CONSUME got may be believed. What it raises ends gpg and is passed on.

        :param bundle: an open regular file; it is read from its beginning
        :param silence: seconds that gpg may take for its next piece of output
        :raises Untrusted: no allowed signer vouches for the whole message
        """
        with self.reading(bundle, silence) as plaintext:
            while block := plaintext.read(1 << 20):
                consume(block)
            lines, returncode = plaintext.gpg.finish(silence)
        return judge(lines, returncode, self.allowed, named(bundle))

    @contextlib.contextmanager
    def decrypt(self, bundle: BinaryIO, *, silence: float = 60.0) -> Iterator[BinaryIO]:
        """Give the plaintext of a bundle a second time, without looking at the signature again.

        Only for a bundle that :meth:`verify` has judged, and only for bytes that are compared with those it delivered:
        the file may have been changed since. gpg is killed when the block is left early.

        :raises Untrusted: the message can't be decrypted to its end
        """
        with self.reading(bundle, silence, "--skip-verify") as plaintext:
            yield plaintext  # type: ignore[misc]
            if not plaintext.read(1):
                _, returncode = plaintext.gpg.finish(silence)
                if returncode != 0:
                    raise Untrusted(f"cannot read {named(bundle)} again: {plaintext.gpg.last_words}; "
                                    "it was changed meanwhile, fetch it again")

    @contextlib.contextmanager
    def reading(self, bundle: BinaryIO, silence: float, *options: str) -> Iterator[Plaintext]:
        """Run gpg on a bundle from its beginning."""
        os.lseek(bundle.fileno(), 0, os.SEEK_SET)
        limit = max(SMALL_PLAINTEXT, LARGEST_RATIO * os.fstat(bundle.fileno()).st_size)
        with Gpg([*UNATTENDED, *self.clock, *options, "--decrypt"], home=self.home, stdin=bundle.fileno(),
                 stdout=subprocess.PIPE) as gpg:
            yield Plaintext(gpg, silence, limit)


def named(bundle: BinaryIO) -> str:
    """What to call an open bundle in messages."""
    name = getattr(bundle, "name", None)
    return name if isinstance(name, str) else "the bundle"


@contextlib.contextmanager
def open_keyring(keyring: Path) -> Iterator[Keyring]:
    """Copy a device's keys to a private directory for as long as the block lasts.

    Who may sign is said by the file ``signers`` beside the keys, one primary fingerprint a line; where there is none,
    by the keys marked as ultimately trusted, save those whose secret half is in the ring as well.

    :raises SystemSetup: the directory can't be read or allows nobody to sign, or gpg is missing
    """
    with private_home() as home:
        newest = copy_ring(keyring, home)
        keys = list_keys(home)
        if (keyring / SIGNERS).exists():
            allowed = parse_signers((keyring / SIGNERS).read_text(), str(keyring / SIGNERS))
        else:
            secret = {path.stem for path in (home / SECRET_KEYS).glob("*.key")}
            allowed = vouching(keys, secret)
            if not allowed:
                raise SystemSetup(f"cannot trust anybody by {keyring}: no foreign key in it is marked as ultimately "
                                  f"trusted; mark it, or write its fingerprint into {keyring / SIGNERS}")
        yield Keyring(home, allowed, clock_options(max([newest, *(key.created for key in keys)])))


def clock_options(known: float) -> list[str]:
    """Tell gpg a time that can't be earlier than KNOWN (Unix seconds).

    A router without a clock battery boots in 1970, when every key is yet to be made. Its keys and the files that hold
    them prove that it is later: with that time, good bundles can be installed by hand, while a key or signature that
    expires after it can't be told to have expired until the clock is set.
    """
    return [] if time.time() >= known else ["--faked-system-time", str(int(known) + 1)]


@contextlib.contextmanager
def private_home() -> Iterator[Path]:
    """Make a directory for gpg that only this user can enter; in memory if possible, as secret keys go there.

    The path is short, because the socket of gpg-agent in it may have only 107 bytes.
    """
    place = next((place for place in ("/run", tempfile.gettempdir()) if os.access(place, os.W_OK)), None)
    home = Path(tempfile.mkdtemp(prefix="fussy-", dir=place))
    try:
        yield home
    finally:
        if any(home.glob("S.gpg-agent*")):
            stop_agent(home)
        shutil.rmtree(home, ignore_errors=True)


def copy_ring(keyring: Path, home: Path) -> float:
    """Copy what gpg needs of a key directory; return the newest modification time of its files."""
    newest = Path(__file__).stat().st_mtime
    try:
        if not any((keyring / name).exists() for name in RING_FILES[:2]):
            what = "it holds no public keys" if keyring.is_dir() else "no such directory"
            raise SystemSetup(f"cannot use the keyring {keyring}: {what}; make one with `fussy keys keyring`, "
                              "or name another with --keyring")
        secret = sorted((keyring / SECRET_KEYS).glob("*.key"))
        for path in [*(keyring / name for name in RING_FILES), *secret]:
            if path.exists():
                target = home / path.relative_to(keyring)
                target.parent.mkdir(mode=0o700, exist_ok=True)
                shutil.copyfile(path, target)
                newest = max(newest, path.stat().st_mtime)
    except OSError as error:
        raise SystemSetup(f"cannot read the keyring {keyring}: {error.strerror}: {error.filename}; "
                          "run as the user whose keys these are") from error
    return newest


@contextlib.contextmanager
def seal(output: Path, *, sign_with: str | None = None, encrypt_for: Sequence[str] = (), home: Path | None = None,
         passphrase_file: Path | None = None) -> Iterator[BinaryIO]:
    """Give a pipe; what is written to it becomes a signed, binary OpenPGP message at OUTPUT when the block ends.

    OUTPUT appears, complete and on the disk, only after gpg's status lines say that the right key signed it (and that
    it is encrypted, if it was to be). After any failure there is nothing.

    :param sign_with: key id, fingerprint or e-mail address; by default the first secret key that can sign
    :param encrypt_for: recipients, named the same way; gpg's web of trust is not asked about them
    :param home: GNUPGHOME; by default the user's
    :param passphrase_file: where the first line is the pass-phrase of the signing key; otherwise gpg asks for it on
        the terminal when the key has one
    :raises SystemSetup: a key can't be used; said before anything is written
    :raises FussyError: gpg failed
    """
    signer = choose_signer(home, sign_with)
    recipients = [choose_key(list_keys(home), one, "E") for one in encrypt_for]
    asking = ["--pinentry-mode", "loopback"]
    attended = passphrase_file is None and has_terminal()
    if passphrase_file is not None:
        asking += ["--passphrase-file", str(passphrase_file)]
    if not attended:
        asking += UNATTENDED
    arguments = [*asking, "--compress-algo", "none", "--digest-algo", "SHA256", "--cipher-algo", "AES256",
                 "--local-user", signer.fingerprint, "--sign"]
    if recipients:
        arguments += ["--encrypt", *(word for one in recipients for word in ("--recipient", one.fingerprint))]
    descriptor, name = tempfile.mkstemp(prefix=f".{output.name}.", dir=output.parent)
    try:
        with Gpg(arguments, home=home, stdin=subprocess.PIPE, stdout=descriptor, own_group=not attended) as gpg:
            assert gpg.process.stdin is not None
            try:
                yield gpg.process.stdin  # type: ignore[misc]
                gpg.process.stdin.close()
            except OSError:
                if gpg.process.poll() is None:
                    raise
            lines, returncode = gpg.finish(600)
            check_sealed(lines, returncode, {signer.fingerprint, *signer.subkeys}, bool(recipients), gpg.last_words)
        os.fchmod(descriptor, stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)
        os.fsync(descriptor)
        Path(name).replace(output)
    finally:
        os.close(descriptor)
        Path(name).unlink(missing_ok=True)


def choose_signer(home: Path | None, wanted: str | None) -> Key:
    """Find the secret key to sign with; without a name the first that can, as gpg itself would."""
    keys = list_keys(home, secret=True)
    if wanted is not None:
        return choose_key(keys, wanted, "S")
    usable = [key for key in keys if not key.fault and "S" in key.capabilities]
    if not usable:
        raise SystemSetup("cannot sign: there is no usable secret key; make one with `fussy keys signing`")
    return usable[0]


def has_terminal() -> bool:
    """Whether there is a terminal on which gpg can ask for a pass-phrase."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def check_sealed(lines: Sequence[str], returncode: int, signers: set[str], encrypted: bool, words: str) -> None:
    status = parse_status(lines)
    made = [one.arguments for one in status if one.keyword == "SIG_CREATED"]
    good = (returncode == 0 and len(made) == 1 and made[0][5] in signers
            and ("END_ENCRYPTION" in {one.keyword for one in status}) == encrypted)
    if not good:
        raise FussyError(f"cannot sign: gpg says: {words}")
