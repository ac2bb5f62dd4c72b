"""How a router comes to belong to a server, and how it is forgotten.

::

    CONFIG_HOME_DIR/keys/      mode 0700
        asking.json            the key pair of a request under way, so that it can be repeated
        given.json             what the server has given: from here on the router is provisioned
        update-token           for roll-outs, with the server's certificate if it is pinned (server.pem)
        authority.pem          for the updater: who may vouch for the channel
        identity.json          who it is; written last

    asking.json -> the server's answer -> given.json -> keyring, settings of the updater, identity.json -> neither

A kill before ``given.json`` is there leaves the router as it was. One after that is made good when the daemon starts,
or when it is provisioned again: each step may be done twice.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from fussy import disk, signers
from fussy.errors import FussyError
from paradrop.backend.link import asking, updater
from paradrop.backend.link.machine import machine
from paradrop.backend.pdfcd.identity import Identity, IdentityFile, check_name, directory, given_file
from paradrop.lib import settings
from paradrop.lib.errors import ParadropError

log = logging.getLogger(__name__)

T = TypeVar("T")
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Order:
    """What the owner's command brings: the server, the one-time secret, and, if no authority vouches for the server,
    its certificate (PEM). ``again``: also a router that is provisioned."""

    server: str
    secret: str
    pinned: str = ""
    again: bool = False

    @property
    def digest(self) -> str:
        """The secret as it is kept."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


class Asking(msgspec.Struct, frozen=True):
    """The content of asking.json: for which secret the key pair was made."""

    asked: str
    key: str


class Gift(msgspec.Struct, frozen=True):
    """The content of given.json."""

    given: asking.Given
    key: str
    pinned: str
    asked: str
    signers: tuple[str, ...]


def provision(order: Order) -> tuple[Identity, list[str]]:
    """Make this router the one that the secret is for; return who it is, and what the owner has settled otherwise.

    Done again with the same secret, it goes on where it was killed, or tells who the router is.

    Raises:
        ParadropError: one line that says why not; the router is as it was.
    """
    if not _one_at_a_time.acquire(blocking=False):
        raise ParadropError("cannot provision: it is being done already; wait for it")
    try:
        finish()
        now = IdentityFile().identity
        if now is not None and now.asked == order.digest:
            return now, []
        if now is not None and not order.again:
            raise ParadropError(f"cannot provision: this router is {now.pdid} already; say --again to have it be "
                                "another one from now on")
        return _provision(order)
    finally:
        _one_at_a_time.release()


def finish() -> bool:
    """Put what the server has given into place, if that was interrupted. Return False if there is nothing to do.

    Raises:
        ParadropError: it cannot be written; the next start tries again.
    """
    gift = _load(given_file(), Gift)
    if gift is None:
        return False
    given = gift.given
    try:
        updater.write(given, gift.pinned)
        file = IdentityFile()
        file.setAttr(Identity(given.pdid, gift.key, given.authority, given.certificate, given.server, gift.pinned,
                              gift.asked, gift.signers))
        file.saveToDisk()
        _asking().unlink(missing_ok=True)
        given_file().unlink()
        disk.sync_directory(directory())
    except (OSError, FussyError) as error:
        raise ParadropError(f"cannot keep what the server has given: {_words(error)}; the next start of the daemon, or "
                            "the same command, goes on from here") from error
    log.info("this router is now %s of %s", given.pdid, given.server)
    return True


def forget() -> str | None:
    """Forget who this router is, with what provisioning wrote; return who it was, None if it was nobody.

    Raises:
        ParadropError: something cannot be written; to be done again.
    """
    finish()
    file = IdentityFile()
    if file.identity is None:
        return None
    try:
        updater.remove(file.identity.signers)
        Path(str(file.filename)).unlink()
        _asking().unlink(missing_ok=True)
        disk.sync_directory(directory())
    except (OSError, FussyError) as error:
        raise ParadropError(f"cannot forget who this router is: {_words(error)}") from error
    log.info("this router is no longer %s", file.identity.pdid)
    return file.identity.pdid


def _provision(order: Order) -> tuple[Identity, list[str]]:
    from paradrop.backend.link import keypair

    server = _server(order.server)
    if order.pinned and not keypair.is_certificate(order.pinned):
        raise ParadropError("cannot provision: server_certificate is not a certificate (PEM)")
    kept = _load(_asking(), Asking)
    key = kept.key if kept is not None and kept.asked == order.digest else keypair.make()
    _keep(lambda: disk.replace_file(_asking(), msgspec.json.encode(Asking(order.digest, key))))
    given = asking.ask(server, order.pinned, {
        "secret": order.secret, "csr": keypair.request(key), "machine": machine(), "clock": time.time(),
        **({"again": True} if order.again else {})})
    check_name(given.pdid)
    if not keypair.is_for(given.certificate, key):
        raise ParadropError("cannot provision: the server's answer is not for this router's key")
    if not keypair.is_certificate(given.authority):
        raise ParadropError("cannot provision: the server's authority is not a certificate (PEM)")
    _server(given.server)
    notes = updater.check(given, order.pinned)
    gift = Gift(given, key, order.pinned, order.digest, tuple(_new_signers(given)))
    _keep(lambda: disk.replace_file(given_file(), msgspec.json.encode(gift)))
    finish()
    identity = IdentityFile().identity
    assert identity is not None
    return identity, notes


def _new_signers(given: asking.Given) -> list[str]:
    """Return who may sign from now on and could not before.

    Raises:
        ParadropError: a key is none, or is not one of those that shall sign.
    """
    if not given.keyring or updater.keeps_its_keys():
        return []
    try:
        found = signers.missing(Path(settings.FIRMWARE_KEYRING), given.keyring)
    except FussyError as error:
        raise ParadropError(f"cannot provision: {error}") from error
    if strangers := [one for one in found if one not in given.signers]:
        raise ParadropError(f"cannot provision: the server gives the key {strangers[0]}, which is not to sign")
    return found


def _server(address: str) -> str:
    """Return the address of a server without a path. ParadropError if it is none."""
    try:
        place = urlsplit(address)
        usable = place.scheme in ("http", "https") and bool(place.hostname) and place.port != 0
    except ValueError:
        usable = False
    if not usable or place.path.strip("/") or place.query or place.fragment or place.username:
        raise ParadropError(f"cannot provision: {address!r} is not the address of a server (https://host[:port])")
    return f"{place.scheme}://{place.netloc}"


def _keep(write: Callable[[], T]) -> T:
    try:
        return write()
    except OSError as error:
        raise ParadropError(f"cannot provision: {_words(error)}") from error


def _words(error: Exception) -> str:
    return f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.strerror else str(error)


def _asking() -> Path:
    return directory() / "asking.json"


def _load(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        log.warning("passing over %s: %s", path, error)
        return None
