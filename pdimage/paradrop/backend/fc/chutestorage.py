"""The chutes of this router, in memory and on disk."""

import logging
import threading
from asyncio import AbstractEventLoop
from pathlib import Path
from typing import Any

from paradrop.lib import settings
from paradrop.lib.chute import Chute
from paradrop.lib.utils.storage import PDStorage

log = logging.getLogger(__name__)

# Of a chute's cache, what must be known after a reboot: its addresses and names, the sections of the UCI files that
# belong to it, and its image and container. The rest is worked out anew by each update.
STORED_CACHE = (
    "networkInterfaces", "networkReservations", "osNetworkConfig", "osWirelessConfig", "osFirewallRules",
    "developerFirewallRules", "virtDHCPSettings", "images", "containers", "previous", "previousImages",
)


class ChuteStorage(PDStorage):
    """The list of chutes, shared by all instances, kept in one file that is written whole or not at all."""

    chuteList: dict[str, Chute] = {}
    unreadable = False
    """Whether there was a file that could not be used, so that chutes may exist that the list does not have."""
    _lock = threading.RLock()

    def __init__(self, filename: str | None = None, reactor: AbstractEventLoop | None = None) -> None:
        """Load the list from a file (default: the setting FC_CHUTESTORAGE_SAVE_PATH) if none is in memory yet."""
        super().__init__(filename or settings.FC_CHUTESTORAGE_SAVE_PATH, reactor, settings.FC_CHUTESTORAGE_SAVE_TIMER)
        if not ChuteStorage.chuteList and not self.loadFromDisk():
            ChuteStorage.unreadable = Path(str(self.filename)).exists()

    def setAttr(self, attr: dict[str, Chute]) -> None:
        """Replace the list, for all instances."""
        with self._lock:
            ChuteStorage.chuteList = attr

    def getAttr(self) -> dict[str, Chute]:
        """Return the list, by name."""
        return ChuteStorage.chuteList

    def attrSaveable(self) -> bool:
        """Return True if there is a list to save."""
        return isinstance(ChuteStorage.chuteList, dict)

    def exportAttr(self, data: dict[str, Chute]) -> dict[str, Any]:
        """Return the dump of each chute by name, with only what of the cache must last."""
        return {name: lasting(chute) for name, chute in data.items()}

    def importAttr(self, pyld: dict[str, Any]) -> dict[str, Chute]:
        """Return the chutes of a file's content."""
        return {name: Chute.fromDump(dump) for name, dump in pyld.items()}

    def getChuteList(self) -> list[Chute]:
        """Return the chutes we know of."""
        with self._lock:
            return list(ChuteStorage.chuteList.values())

    def getChute(self, name: str | None) -> Chute | None:
        """Return a chute by its name, or None."""
        return ChuteStorage.chuteList.get(name) if name else None

    def saveChute(self, ch: Chute) -> None:
        """Take a chute in, in place of the one of its name if there is one, and save the list.

        Raises:
            ValueError: the chute has no name.
            OSError: the file cannot be written; the list is then as before, in memory too.
        """
        if not ch.name:
            raise ValueError("cannot store a chute without a name")
        with self._lock:
            self._change({**ChuteStorage.chuteList, ch.name: ch})

    def deleteChute(self, ch: Chute | str) -> None:
        """Take out a chute, or the one of a name, and save the list.

        Raises:
            KeyError: there is none of that name.
            OSError: the file cannot be written; the list is then as before, in memory too.
        """
        name = ch if isinstance(ch, str) else str(ch.name)
        with self._lock:
            if name not in ChuteStorage.chuteList:
                raise KeyError(name)
            self._change({other: chute for other, chute in ChuteStorage.chuteList.items() if other != name})

    def clearChuteStorage(self) -> None:
        """Forget all chutes and remove the file."""
        with self._lock:
            ChuteStorage.chuteList = {}
            if self.filename:
                Path(self.filename).unlink(missing_ok=True)

    def _change(self, chutes: dict[str, Chute]) -> None:
        before = ChuteStorage.chuteList
        ChuteStorage.chuteList = chutes
        try:
            self.saveToDisk()
            if self.filename:
                Path(self.filename).chmod(0o600)  # it holds keys of wireless networks
        except BaseException:
            ChuteStorage.chuteList = before
            raise


def lasting(chute: Chute) -> dict[str, Any]:
    """Return the dump of a chute with only what of its cache must last."""
    dump = chute.fullDump()
    dump["cache"] = {key: value for key, value in dump["cache"].items() if key in STORED_CACHE}
    return dump
