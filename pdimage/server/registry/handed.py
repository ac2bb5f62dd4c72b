"""What a router is given when it is provisioned, beside its certificate: keys that may sign firmware, and its channel.

It comes from files that the settings name, is read when it is first needed, and again when a file was changed.
"""

import re
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from fussy.errors import FussyError
from fussy.gpghome import private_home
from fussy.keys import import_one
from pdimage.server.files import PUBLIC_KEY
from pdimage.server.refusals import Refused
from pdimage.server.settings import Settings

_KEY = re.compile(r"-----BEGIN PGP PUBLIC KEY BLOCK-----.*?-----END PGP PUBLIC KEY BLOCK-----\n?", re.DOTALL)


@dataclass(frozen=True)
class Keyring:
    """Public keys in ASCII armour, and the fingerprints of those that may sign."""

    keys: tuple[str, ...] = ()
    signers: tuple[str, ...] = ()


class Handed:
    """Reads what routers are given."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._read: tuple[float, Keyring] = (0.0, Keyring())

    def keyring(self) -> Keyring:
        """Return the keys; none if the server has none of its own and the settings name none.

        :raises Refused: the file that the settings name can't be used (503)
        """
        settings = self._settings
        file = settings.root / (settings.router_keyring or PUBLIC_KEY)
        if not settings.router_keyring and not file.exists():
            return Keyring()
        with self._lock:
            try:
                changed = file.stat().st_mtime
                if changed != self._read[0]:
                    self._read = (changed, read_keyring(file.read_text(), settings.router_signers))
            except (OSError, ValueError, FussyError) as error:
                raise _unusable("router_keyring", file, error) from error
            return self._read[1]

    def channel(self) -> dict[str, str] | None:
        """Return the address of the channel, its first metadata and the product; None if the settings name none.

        :raises Refused: the file that the settings name can't be read (503)
        """
        settings = self._settings
        if not settings.channel:
            return None
        file = settings.root / settings.channel_root
        try:
            return {"url": settings.channel, "root": file.read_text(), "product": settings.channel_product}
        except (OSError, ValueError) as error:
            raise _unusable("channel_root", file, error) from error

    def server_certificate(self) -> str | None:
        """Return the certificate of HTTPS that clients must know; None if an authority vouches for it, or without it.
        """
        if not self._settings.certificate:
            return None
        text = self._settings.certificate[0].read_text()
        first = x509.load_pem_x509_certificate(text.encode())
        return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(text)) if first.issuer == first.subject else None


def read_keyring(text: str, signers: tuple[str, ...]) -> Keyring:
    """Return the keys of a text, and who of them may sign: SIGNERS, or all.

    :raises FussyError: one is no public key; ValueError: there is none, or a signer is not among them
    """
    keys = tuple(_KEY.findall(text))
    with private_home() as home:
        found = [import_one(home, key).fingerprint for key in keys]
    if missing := set(signers) - set(found) or not found:
        raise ValueError(f"it has no key {missing}" if found else "it has no key in ASCII armour")
    return Keyring(keys, signers or tuple(found))


def _unusable(setting: str, file: Path, error: Exception) -> Refused:
    why = getattr(error, "strerror", None) or error
    return Refused(503, f"the server can't use what its setting {setting} names, {file}: {why}; tell who runs it",
                   {"Retry-After": "60"})
