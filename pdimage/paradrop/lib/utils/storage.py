"""Data that survives: one JSON file, written at once or not at all.

The file holds ``{"format": 1, "data": …}``. A file that cannot be read, or was written by a later version, is kept
beside as ``<file>.unreadable-<digest>`` and the data begins anew.
"""

import hashlib
import json
import logging
import threading
from asyncio import AbstractEventLoop
from pathlib import Path
from typing import Any

import msgspec

from paradrop.lib.utils import pdosq

log = logging.getLogger(__name__)

FORMAT = 1


class PDStorage:
    """Base of what keeps an attribute on disk.

    A subclass gives getAttr(), setAttr(attr) and attrSaveable(), and may give importAttr() and exportAttr(), which
    turn the attribute into something JSON can hold and back.

    Args:
        filename: the file; None keeps nothing.
        reactor: an asyncio loop that saves every saveTimer seconds, or None.
        saveTimer: that time; 0 saves only when saveToDisk is called.
    """

    def __init__(self, filename: str | None, reactor: AbstractEventLoop | None, saveTimer: float) -> None:
        self.filename = filename
        self.reactor = reactor
        self.saveTimer = saveTimer
        self._saving = threading.Lock()
        if reactor is not None and saveTimer > 0:
            reactor.call_later(saveTimer, self._save_again_and_again)

    def getAttr(self) -> Any:
        """Return the attribute to save."""
        raise NotImplementedError

    def setAttr(self, attr: Any) -> None:
        """Take the attribute that was loaded."""
        raise NotImplementedError

    def attrSaveable(self) -> bool:
        """Return True if the attribute should be saved now."""
        raise NotImplementedError

    def importAttr(self, pyld: Any) -> Any:
        """Return the attribute that a payload of the file stands for. Here: the payload."""
        return pyld

    def exportAttr(self, data: Any) -> Any:
        """Return what the file should hold for an attribute. Here: the attribute."""
        return data

    def loadFromDisk(self) -> bool:
        """Take the attribute from the file. Return False if there is no file or it cannot be used.

        Raises:
            OSError: the file is there but the disk does not give it.
        """
        if not self.filename:
            return False
        try:
            content = Path(self.filename).read_bytes()
        except FileNotFoundError:
            return False
        try:
            self.setAttr(self.importAttr(_payload(content)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self._put_aside(content, error)
            return False
        return True

    def saveToDisk(self) -> None:
        """Write the attribute to the file, durably, if attrSaveable() says so.

        Raises:
            OSError: it cannot be written; the old file is untouched.
            TypeError: the attribute holds what JSON cannot.
        """
        with self._saving:
            if not self.filename or not self.attrSaveable():
                return
            content = msgspec.json.encode({"format": FORMAT, "data": self.exportAttr(self.getAttr())})
            pdosq.makedirs(Path(self.filename).parent)
            pdosq.replaceFile(self.filename, content)

    def _put_aside(self, content: bytes, error: Exception) -> None:
        aside = f"{self.filename}.unreadable-{hashlib.sha256(content).hexdigest()[:8]}"
        log.error("cannot use %s: %s; it is kept as %s", self.filename, error, aside)
        pdosq.replaceFile(aside, content)

    def _save_again_and_again(self) -> None:
        assert self.reactor is not None
        try:
            self.saveToDisk()
        except OSError as error:
            log.error("cannot save %s: %s; it will be tried again", self.filename, error)
        self.reactor.call_later(self.saveTimer, self._save_again_and_again)


def _payload(content: bytes) -> Any:
    """Return the data that the file holds; ValueError if it is not ours."""
    document = json.loads(content)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"it does not hold data of format {FORMAT}")
    return document["data"]
