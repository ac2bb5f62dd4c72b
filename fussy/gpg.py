"""OpenPGP messages in and out: read bundles with the keys of a device, write them with the keys of a build machine.

Reading never writes into the device's key directory, which lies inside a release and may be read-only: gpg works on a
throw-away copy. What gpg may be believed is decided in :mod:`fussy.trust`.
"""

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from fussy.errors import FussyError, SystemSetup, Untrusted
from fussy.gpghome import copy_keyring, has_passphrase, list_keys, private_home, secret_keygrips
from fussy.gpgprocess import UNATTENDED, Gpg, Plaintext, widen
from fussy.trust import Key, Signer, choose_key, judge, judge_seal, key_query, parse_signers, usable_keys, vouching

__all__ = ["Keyring", "Signer", "open_keyring", "seal"]

SIGNERS = "signers"
SIGNING_LIMIT = 600.0
"""Seconds after which a gpg that only has to sign is taken for dead; a smart card may want a touch."""
SMALL_PLAINTEXT = 64 << 20
LARGEST_RATIO = 20
"""A bundle is compressed before it is signed; OpenPGP compression that saves more than this is a bomb."""


@dataclass(frozen=True)
class Keyring:
    """The keys of a device, ready for gpg."""

    home: Path
    """The throw-away GNUPGHOME."""
    allowed: frozenset[str]
    """Primary fingerprints of those who may sign."""
    clock: tuple[str, ...] = ()
    """Options that give gpg the time when the machine doesn't know it."""

    def verify(self, bundle: BinaryIO, consume: Callable[[bytes], object], *, silence: float = 60.0) -> Signer:
        """Hand the plaintext of a bundle to CONSUME as it comes, and judge its signature when it has ended.

        Until this returns, nothing that CONSUME got may be believed. What it raises ends gpg and is passed on.

        :param bundle: an open file; it is read from its beginning
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
        the file may have been changed since. The pipe is a raw one: a read gives what is there. gpg is killed when the
        block is left before the end.

        :raises Untrusted: the message could not be decrypted to its end
        """
        with self.reading(bundle, silence, "--skip-verify") as plaintext:
            yield cast(BinaryIO, plaintext)
            if not plaintext.read(1):
                _, returncode = plaintext.gpg.finish(silence)
                if returncode != 0:
                    raise Untrusted(f"cannot read {named(bundle)} again: {plaintext.gpg.last_words}; "
                                    "it was changed meanwhile, fetch it again")

    @contextlib.contextmanager
    def reading(self, bundle: BinaryIO, silence: float, *options: str) -> Iterator[Plaintext]:
        """Run gpg on a bundle, from its beginning."""
        try:
            os.lseek(bundle.fileno(), 0, os.SEEK_SET)
        except OSError as error:
            raise SystemSetup(f"cannot read {named(bundle)}: {error.strerror}; "
                              "a bundle is read twice, so save it in a file first") from error
        limit = max(SMALL_PLAINTEXT, LARGEST_RATIO * os.fstat(bundle.fileno()).st_size)
        with Gpg([*UNATTENDED, "--pinentry-mode", "error", *self.clock, *options, "--decrypt"], home=self.home,
                 stdin=bundle.fileno(), stdout=subprocess.PIPE,
                 refuse=lambda why: Untrusted(f"cannot trust {named(bundle)}: {why}")) as gpg:
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
        newest = copy_keyring(keyring, home)
        keys = list_keys(home)
        allowed = who_may_sign(keyring, home, keys)
        if not any(key.fingerprint in allowed for key in keys):
            raise SystemSetup(f"cannot trust any bundle with the keyring {keyring}: it holds no key that may sign; "
                              "import one and mark it as ultimately trusted, or write its fingerprint into "
                              f"{keyring / SIGNERS}")
        yield Keyring(home, allowed, clock(max(newest, *(key.created for key in keys))))


def who_may_sign(keyring: Path, home: Path, keys: Sequence[Key]) -> frozenset[str]:
    """Return the primary fingerprints of those who may sign by a keyring, of which HOME has a copy with these KEYS."""
    listed = keyring / SIGNERS
    if listed.exists():
        return parse_signers(listed.read_text(errors="replace"), str(listed))
    return vouching(keys, secret_keygrips(home))


def clock(known: float) -> tuple[str, ...]:
    """Tell gpg a time that is not earlier than KNOWN (Unix seconds) nor than this program's own file.

    A router without a battery for its clock boots in 1970, when every key is yet to be made. The keys and the files
    that hold them prove that it is later. With that time a good bundle can be installed by hand; that a key or a
    signature expired after that time can't be noticed until the clock is set.
    """
    known = max(known, Path(__file__).stat().st_mtime)
    return () if time.time() >= known else ("--faked-system-time", str(int(known) + 1))


@contextlib.contextmanager
def seal(output: Path, *, sign_with: str | None = None, encrypt_for: Sequence[str] = (), home: Path | None = None,
         passphrase_file: Path | None = None) -> Iterator[BinaryIO]:
    """Give a pipe; what is written to it becomes a signed, binary OpenPGP message at OUTPUT when the block ends.

    OUTPUT appears, complete and on the disk, only after gpg's status lines say that the right key signed it, and that
    it is encrypted if it was to be. After any failure there is nothing.

    :param sign_with: key id, fingerprint or e-mail address; by default the first secret key that can sign
    :param encrypt_for: recipients, named the same way; gpg's web of trust is not asked about them
    :param home: GNUPGHOME; by default the user's
    :param passphrase_file: its first line is the pass-phrase of the signing key; otherwise gpg asks for it on the
        terminal, when the key has one, before anything is written
    :raises SystemSetup: a key or its pass-phrase can't be used; said before anything is written
    :raises FussyError: gpg failed later
    """
    signer = choose_signer(home, sign_with)
    recipients = [choose_key(list_keys(home, key_query(one, "E")), one, "E") for one in encrypt_for]
    arguments = [*asking(passphrase_file), "--local-user", signer.fingerprint, "--compress-algo", "none",
                 "--digest-algo", "SHA256", "--cipher-algo", "AES256", "--sign"]
    if has_passphrase(home, signer):
        try_to_sign(arguments, home, signer)
    for one in recipients:
        arguments += ["--recipient", one.fingerprint]
    if recipients:
        arguments.append("--encrypt")
    with appearing(output) as descriptor, Gpg(
            arguments, home=home, stdin=subprocess.PIPE, stdout=descriptor,
            refuse=lambda why: FussyError(f"cannot write {output}: {why}")) as gpg:
        pipe = cast(BinaryIO, gpg.process.stdin)
        widen(pipe.fileno())
        failure = None
        try:
            yield pipe
            pipe.close()
        except Exception as error:
            # gpg does not end before its input does unless it fails, and then a broken pipe is only the consequence.
            if not gpg.has_ended(2 if isinstance(error, BrokenPipeError) else 0.1):
                raise
            failure = error
        complaint = judge_seal(*gpg.finish(SIGNING_LIMIT), signer, bool(recipients))
        if complaint:
            raise gpg.refuse(f"{complaint} (gpg says: {gpg.last_words})") from failure
        if failure:
            raise failure


def choose_signer(home: Path | None, wanted: str | None) -> Key:
    """Find the secret key to sign with; without a name the first that can, as gpg itself would."""
    if wanted is not None:
        return choose_key(list_keys(home, key_query(wanted, "S"), secret=True), wanted, "S")
    usable = usable_keys(list_keys(home, secret=True), "S")
    if not usable:
        raise SystemSetup("cannot sign: there is no secret key that can; make one with `fussy keys signing`, "
                          "or set GNUPGHOME to where it is")
    return usable[0]


def asking(passphrase_file: Path | None) -> list[str]:
    """Options by which gpg gets a pass-phrase: from a file, from the terminal by itself, or not at all."""
    if passphrase_file is not None:
        try:
            passphrase_file.open("rb").close()
        except OSError as error:
            raise SystemSetup(f"cannot read the pass-phrase file {passphrase_file}: {error.strerror}") from error
        return ["--pinentry-mode", "loopback", "--passphrase-file", str(passphrase_file), *UNATTENDED]
    return ["--pinentry-mode", "loopback", *([] if has_terminal() else UNATTENDED)]


def has_terminal() -> bool:
    """Whether there is a terminal on which gpg can ask for a pass-phrase."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def try_to_sign(arguments: Sequence[str], home: Path | None, signer: Key) -> None:
    """Sign nothing, so that a pass-phrase is asked for now (gpg-agent remembers it) and not after a long packing."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        with Gpg(arguments, home=home, stdin=null, stdout=null,
                 refuse=lambda why: SystemSetup(f"cannot sign with key {signer.name}: {why}")) as gpg:
            complaint = judge_seal(*gpg.finish(SIGNING_LIMIT if gpg.own_group else None), signer, False)
            if complaint:
                raise gpg.refuse(f"{complaint} (gpg says: {gpg.last_words})")
    finally:
        os.close(null)


@contextlib.contextmanager
def appearing(output: Path) -> Iterator[int]:
    """Give a file descriptor whose file is named OUTPUT when the block ends well, and is gone when it doesn't."""
    unfinished = output.with_name(f".{output.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise SystemSetup(f"cannot write {output}: {error.strerror}") from error
    try:
        yield descriptor
        os.fsync(descriptor)
        unfinished.replace(output)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
