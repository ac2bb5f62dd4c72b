"""Who this router is: the name and keys that provisioning gave it.

::

    CONFIG_HOME_DIR/keys/      mode 0700
        identity.json          pdid, key and certificate; and where its server is (paradrop.backend.link.provisioning)
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paradrop.lib import settings
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import pdosq
from paradrop.lib.utils.storage import PDStorage

_PART = "[A-Za-z0-9]{3,32}"
ROUTER_ID = re.compile(rf"pd\.{_PART}\.{_PART}")


@dataclass(frozen=True)
class Identity:
    """The router's name, ``pd.<user>.<router>``, its private key, and the certificate of the server (PEM).

    The rest is empty for a router that was given its name at ``/internal``, as documented, and has no server.
    """

    pdid: str
    key: str
    cert: str
    """Of the authority by which the server proves what it has given."""
    certificate: str = ""
    """The router's own, given by that authority."""
    server: str = ""
    """Where its server is: https://host[:port]."""
    pinned: str = ""
    """The only certificate by which the server is believed; empty: any that an authority vouches for."""
    asked: str = ""
    """SHA-256 of the one-time secret that it was given all this for."""
    signers: tuple[str, ...] = ()
    """Fingerprints of the keys that may sign bundles for it since."""


class IdentityFile(PDStorage):
    """The one file that holds the identity."""

    def __init__(self) -> None:
        super().__init__(str(directory() / "identity.json"), None, 0)
        self.identity: Identity | None = None
        self.loadFromDisk()

    def getAttr(self) -> Identity | None:
        """Return the identity, None before provisioning."""
        return self.identity

    def setAttr(self, attr: Identity) -> None:
        """Take the identity."""
        self.identity = attr

    def attrSaveable(self) -> bool:
        """Return True once there is an identity."""
        return self.identity is not None

    def exportAttr(self, data: Identity) -> dict[str, Any]:
        """Return the identity as JSON has it."""
        return asdict(data)

    def importAttr(self, pyld: dict[str, Any]) -> Identity:
        """Return the identity of a file's content."""
        return Identity(**{**pyld, "signers": tuple(pyld.get("signers", ()))})


def directory() -> Path:
    """Return the directory of the router's keys, which only its owner can enter."""
    place = Path(settings.CONFIG_HOME_DIR) / "keys"
    pdosq.makedirs(place)
    place.chmod(0o700)
    return place


def given_file() -> Path:
    """Return the file that is there while what a server has given is put into place."""
    return directory() / "given.json"


def provision(pdid: str, key: str, cert: str) -> None:
    """Give this router its identity, durably.

    Raises:
        ParadropError: it has one, or the name is no name of a router.
    """
    file = IdentityFile()
    if file.identity is not None:
        raise ParadropError(f"cannot provision: this router is {file.identity.pdid} already")
    check_name(pdid)
    file.setAttr(Identity(pdid, key, cert))
    file.saveToDisk()


def check_name(pdid: str) -> None:
    """Raise a ParadropError unless this is a name of a router."""
    if not ROUTER_ID.fullmatch(pdid):
        raise ParadropError(f"cannot provision: {pdid!r} is not pd.<user>.<router>, "
                            "parts of 3 to 32 letters and digits")
