"""The catalogue as it is now: the file, and what the updater found out about ImageBuilders."""

import logging
import threading
import time
from collections.abc import Callable

import msgspec
import sqlalchemy as sa
from sqlalchemy import select

from fussy.errors import FussyError
from pdimage.server import catalogue
from pdimage.server.catalogue import Catalogue, Target
from pdimage.server.settings import Settings
from pdimage.server.tables import targets
from pdimage.server.upsert import replace

log = logging.getLogger(__name__)

# How old what is known may be. A changed catalogue counts after this time.
SECONDS = 5.0


class Known:
    """Gives the present catalogue; a file that became wrong is told in the log, and the last good one stays."""

    def __init__(self, engine: sa.Engine, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._file = settings.catalogue_file
        self._clock = clock
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] = (0, 0)
        self._synced: tuple[object, ...] = ()
        self._looked = clock()
        self._complain = True
        self.now = self._read(catalogue.read(self._file))
        self._stamp = self._stat()

    def fresh(self) -> Catalogue:
        """Return the catalogue, after a look whether it changed if the last one was a while ago. May block."""
        if self.is_stale() and self._lock.acquire(blocking=False):
            try:
                self._looked = self._clock()
                self._refresh()
            finally:
                self._lock.release()
        return self.now

    def latest(self) -> Catalogue:
        """Return the catalogue after a look at the file: a build must not have less than was promised. May block."""
        with self._lock:
            self._looked = self._clock()
            self._refresh()
        return self.now

    def is_stale(self) -> bool:
        """Tell whether :meth:`fresh` would look."""
        return self._clock() - self._looked > SECONDS

    def _refresh(self) -> None:
        try:
            if self._stat() != self._stamp:
                self.now = self._read(catalogue.read(self._file))
                self._stamp = self._stat()
                log.info("the catalogue %s has changed", self._file)
            elif any(distro.builder == "imagebuilder" for distro in self.now.distros.values()):
                self.now = self._read(self.now)
            self._complain = True
        except (FussyError, OSError, sa.exc.SQLAlchemyError) as error:
            if self._complain:
                log.warning("the catalogue stays as it was: %s", error)
            self._complain = False

    def _stat(self) -> tuple[int, int]:
        facts = self._file.stat()
        return facts.st_mtime_ns, facts.st_size

    def _read(self, read: Catalogue) -> Catalogue:
        """Return a catalogue with what the database knows of ImageBuilders."""
        if not any(distro.builder == "imagebuilder" for distro in read.distros.values()):
            return read
        with self._engine.connect().execution_options(reading=True) as connection:
            rows = connection.execute(select(targets)).all()
        found = {(row.distro, row.version, row.target): msgspec.json.decode(row.found, type=Target)
                 for row in rows if row.found}
        return msgspec.structs.replace(read, found=found)


def due(engine: sa.Engine, now: Catalogue, seconds: float, clock: Callable[[], float] = time.time) -> list[
        tuple[str, str, str]]:
    """Return the targets of ImageBuilders that were not asked for SECONDS: (distro, version, target), never asked
    first, releases before snapshots, then the longest ago."""
    with engine.connect().execution_options(reading=True) as connection:
        synced = {(row.distro, row.version, row.target): row.synced for row in connection.execute(select(targets))}
    wanted = [(version.snapshot, synced.get((name, title, target), 0.0), (name, title, target))
              for name, distro in now.distros.items() if distro.builder == "imagebuilder"
              for title, version in distro.versions.items() for target in version.targets]
    return [key for _, when, key in sorted(wanted) if when < clock() - seconds]


def note(engine: sa.Engine, key: tuple[str, str, str], found: Target | None, error: str) -> None:
    """Write down what an ImageBuilder has. After an error, what was known stays, and it is asked again in an hour."""
    distro, version, target = key
    with engine.begin() as connection:
        old = connection.scalar(select(targets.c.found).where(
            targets.c.distro == distro, targets.c.version == version, targets.c.target == target))
        replace(connection, targets, {
            "distro": distro, "version": version, "target": target, "synced": time.time(), "error": error[:8000],
            "found": msgspec.json.encode(found).decode() if found else old or ""})
