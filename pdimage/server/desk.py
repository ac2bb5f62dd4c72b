"""What the addresses of the server work with: the stores, the catalogue, the doorbell, and answers given lately.

A finished answer does not change for some seconds, so it is remembered for that long: a fleet that polls, or asks for
the same image, costs the database little.
"""

import threading
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

import sqlalchemy as sa

from fussy import ondemand
from pdimage.server.artifacts import Artifacts
from pdimage.server.asking import Asked
from pdimage.server.catalogue import Catalogue
from pdimage.server.doorbell import Doorbell
from pdimage.server.entries import Entry
from pdimage.server.http import in_thread
from pdimage.server.images import Images
from pdimage.server.known import Known
from pdimage.server.requests import Requests
from pdimage.server.settings import Settings

# How long a finished answer is given without asking the database; a flush counts after that.
SECONDS = 2.0
_MOST = 10_000


@dataclass
class Desk:
    """Everything behind the HTTP interface."""

    settings: Settings
    engine: sa.Engine
    requests: Requests
    images: Images
    known: Known
    store: Artifacts
    doorbell: Doorbell
    _lately: OrderedDict[str, tuple[float, Entry]] = field(default_factory=OrderedDict)
    _hits: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _counted: float = 0.0

    async def catalogue(self) -> Catalogue:
        """Return the catalogue as it is now."""
        return await in_thread(self.known.fresh) if self.known.is_stale() else self.known.now

    async def accept(self, asked: Asked, client: str) -> Entry:
        """Put a request into the queue unless it is there, or done; return it.

        :raises Refused: there are too many requests
        """
        digest = ondemand.digest(asked.request)
        if entry := self.remembered(digest):
            return entry
        return await in_thread(self._accept, asked, digest, client)

    async def find(self, digest: str) -> Entry | None:
        """Return a request by its hash."""
        return self.remembered(digest) or await in_thread(self._find, digest)

    def remembered(self, digest: str) -> Entry | None:
        """Return a request that was finished when it was looked up some moments ago."""
        found = self._lately.get(digest)
        if found is None or found[0] < time.monotonic():
            return None
        self._hits[digest] += found[1].state == "done"
        return found[1]

    def _accept(self, asked: Asked, digest: str, client: str) -> Entry:
        entry = self.requests.find(digest)
        outdated = entry is not None and self._is_outdated(entry)
        if entry is None or outdated:
            entry = self.requests.accept(asked, digest, client, anew=outdated)
            self.doorbell.ring()
        elif entry.state == "done":
            self._hits[digest] += 1
        return self._remember(entry)

    def _is_outdated(self, entry: Entry) -> bool:
        """Tell whether the catalogue has other versions of an image's packages by now. What an ImageBuilder has is
        known from the last time it was asked, so that is no reason."""
        if entry.image is None:
            return False
        wish, now = entry.request, self.known.now
        distro = now.distros.get(wish.distro)
        if distro is None or distro.builder != "images" or wish.version not in distro.versions:
            return False
        known = distro.versions[wish.version].packages
        manifest = self.images.manifest(entry.image.manifest_hash) or {}
        return any(name in known and known[name].version != version for name, version in manifest.items())

    def _find(self, digest: str) -> Entry | None:
        entry = self.requests.find(digest)
        return self._remember(entry) if entry else None

    def _remember(self, entry: Entry) -> Entry:
        now = time.monotonic()
        if entry.state in ("done", "failed"):
            with self._lock:
                self._lately[entry.hash] = (now + SECONDS, entry)
                self._lately.move_to_end(entry.hash)
                while len(self._lately) > _MOST:
                    self._lately.popitem(last=False)
        if self._hits and now - self._counted > SECONDS:
            self._counted = now
            self.count_hits()
        return entry

    def count_hits(self) -> None:
        """Write down how often images were asked for that were there."""
        with self._lock:
            hits, self._hits = self._hits, Counter()
        self.requests.hit(dict(hits))
