"""A worker: takes requests from the database as long as there are any, keeps house, and looks after ImageBuilders.

Workers may be many, on many machines; whichever of them does something first has done it. A ring of the doorbell wakes
a thread of huey's; the keeper's thread looks by itself, so that nothing waits for a ring that was lost.
"""

import contextlib
import logging
import os
import socket
import threading
import time
from pathlib import Path

import sqlalchemy as sa

from pdimage import scratch
from pdimage.server import collect, job, known
from pdimage.server.artifacts import Artifacts
from pdimage.server.builders import Task
from pdimage.server.doorbell import Doorbell
from pdimage.server.known import Known
from pdimage.server.requests import Requests
from pdimage.server.settings import Settings
from pdimage.server.signing import Signer

log = logging.getLogger(__name__)

_TICK = 1.0


class Worker:
    """Builds what is queued, ``workers`` (a setting) at a time, until it is closed."""

    def __init__(self, settings: Settings, engine: sa.Engine, store: Artifacts) -> None:
        self.settings = settings
        self.requests = Requests(engine, settings)
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._engine = engine
        self._store = store
        self._known = Known(engine, settings)
        self._signer = Signer(settings)
        self._stop = threading.Event()
        self._places = threading.Semaphore(settings.workers)
        self._doorbell = Doorbell(settings, self._answer)
        self._consumer = self._doorbell.consumer(settings.workers)
        self._threads = [threading.Thread(target=work, name=name, daemon=True) for name, work in (
            ("keeper", self._keep_house), ("surveyor", self._survey))]

    def start(self) -> None:
        """Begin to work."""
        self._consumer.start()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop; what is being built goes back to the queue."""
        self._stop.set()
        self._consumer.stop(graceful=True)
        for thread in self._threads:
            thread.join()
        for _ in range(self.settings.workers):  # builds that the keeper began are over as well
            self._places.acquire()
        self._signer.close()

    def is_well(self) -> bool:
        """Tell whether the threads that keep house live."""
        return all(thread.is_alive() for thread in self._threads)

    def _answer(self) -> None:
        """Build until the queue is empty, unless as many builds as may be are under way."""
        if not self._places.acquire(blocking=False):
            return
        try:
            while not self._stop.is_set() and self._build_next():
                pass
        finally:
            self._places.release()

    def _build_next(self) -> bool:
        """Build the next request, if there is one."""
        claimed = None
        try:
            claimed = self.requests.claim(self.name)
            if claimed is None:
                return False
            log.info("building %s, attempt %d", claimed.hash, claimed.attempt)
            job.carry_out(claimed, self._known.latest(), self.settings, self.requests, self._store, self._signer,
                          self._stop)
        except job.LeaseLost:
            log.warning("the lease was lost; the build is left to whoever has it")
        except job.Stopped:
            if claimed:
                self.requests.release(claimed)
        except sa.exc.SQLAlchemyError as error:
            log.warning("the database does not answer: %s", error)
            return False
        return True

    def _keep_house(self) -> None:
        """Take up what lost workers left, ring for what waits, and delete what is too old."""
        collected = 0.0
        complain = True
        while not self._stop.wait(_TICK):
            try:
                self.requests.reap()
                if self.requests.waiting():
                    self._wake()
                if time.monotonic() - collected > self.settings.collect_seconds or not collected:
                    collect.collect(self._engine, self.settings, self._store)
                    collected = time.monotonic()
                complain = True
            except (sa.exc.SQLAlchemyError, OSError) as error:
                if complain:
                    log.warning("cannot keep house: %s", error)
                complain = False

    def _wake(self) -> None:
        """Build what waits although nobody rang: the doorbell may be broken."""
        if self._places.acquire(blocking=False):
            self._places.release()
            threading.Thread(target=self._answer, name="unrung", daemon=True).start()

    def _survey(self) -> None:
        """Ask ImageBuilders what they have, those that were not asked for the longest time first."""
        while not self._stop.wait(_TICK):
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                for key in known.due(self._engine, self._known.fresh(), self.settings.update_seconds):
                    if self._stop.is_set():
                        return
                    self._ask(key)

    def _ask(self, key: tuple[str, str, str]) -> None:
        from fussy.ondemand import Request

        distro, version, target = key
        now = self._known.fresh()
        self.settings.work.mkdir(parents=True, exist_ok=True)
        with scratch.directory(self.settings.work, "survey") as place:
            task = Task("", Request(distro, version, target, ""), "", now.distros[distro], None, now.root, str(place),
                        str(self.settings.cache), self.settings.engine, survey=True)
            try:
                outcome = job.run_task(task, self.settings, lost=threading.Event(), stop=self._stop)
            except job.Stopped:
                return
            if outcome.error:
                log.warning("cannot survey %s %s %s: %s", *key, outcome.error)
            known.note(self._engine, key, outcome.target, outcome.error + _end_of(place / job.LOG, outcome.error))


def _end_of(file: Path, error: str) -> str:
    """Return the end of a log to go with an error."""
    with contextlib.suppress(OSError):
        return f"\n{file.read_text(errors='replace')[-2000:]}" if error else ""
    return ""
