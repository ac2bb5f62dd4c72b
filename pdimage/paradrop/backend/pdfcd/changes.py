"""Changes: what was asked of the update queue, how it goes, and how it ended.

::

    queued --first progress, or start()--> running --finish()--> done

A change is also the sink that an update writes its progress to: ``pkg.request.write(text)``.
"""

import itertools
import logging
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paradrop.lib.api.feed import Feed

log = logging.getLogger(__name__)

KEPT = 100
"""How many changes that are done are remembered."""


@dataclass
class Change:
    """One request to the update queue. Times are Unix seconds."""

    id: str
    kind: str
    """What is done: create, update, delete, start, stop, restart, …"""
    name: str
    """The chute it is done to."""
    user: str | None
    created: float = field(default_factory=time.time)
    state: str = "queued"
    ended: float | None = None
    result: dict[str, Any] | None = None
    """``success`` and ``message``, once it is done."""
    feed: Feed = field(default_factory=lambda: Feed(256 << 10))

    @property
    def request(self) -> "Change":
        """The documented way from an update's ``pkg`` to what it writes to."""
        return self

    def start(self) -> None:
        """The queue has come to it."""
        if self.state == "queued":
            self.state = "running"

    def write(self, text: str | bytes) -> None:
        """Take a piece of progress."""
        self.start()
        self.feed.write(text if isinstance(text, str) else text.decode(errors="replace"))

    def finish(self, result: Mapping[str, Any] | None) -> None:
        """It is done. Only the first result counts."""
        if self.result is None:
            self.result = dict(result or {"success": False, "message": "the update ended without a result"})
            self.ended = time.time()
            self.state = "done"
            log.info("change %s: %s %s: %s", self.id, self.kind, self.name, self.result.get("message"))
        self.feed.close()


class Changes:
    """All changes of this run of the daemon, those long done excepted."""

    def __init__(self) -> None:
        self._run = secrets.token_hex(3)  # so that a client that outlives the daemon cannot take one for another
        self._count = itertools.count(1)
        self._changes: dict[str, Change] = {}
        self._lock = threading.Lock()

    def add(self, kind: str, name: str, user: str | None = None) -> Change:
        """Make a change and remember it."""
        with self._lock:
            change = Change(f"{self._run}-{next(self._count)}", kind, name, user)
            self._changes[change.id] = change
            done = [known.id for known in self._changes.values() if known.state == "done"]
            for old in done[:-KEPT]:
                del self._changes[old]
        return change

    def get(self, number: str) -> Change | None:
        """Return a change by its id."""
        with self._lock:
            return self._changes.get(number)

    def all(self) -> list[Change]:
        """Return every change, the oldest first."""
        with self._lock:
            return list(self._changes.values())

    def finish_all(self, message: str) -> None:
        """End every change that is not done, so that nobody waits for it."""
        for change in self.all():
            change.finish(change.result or {"success": False, "message": message})
