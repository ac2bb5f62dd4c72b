"""The queue of updates and the thread that carries them out, one at a time."""

import logging
import threading
import time
from asyncio import AbstractEventLoop
from collections import deque
from typing import Any

from paradrop.backend.exc import executionplan
from paradrop.backend.fc import journal, reconcile, updateObject
from paradrop.backend.fc.chutestorage import ChuteStorage
from paradrop.backend.fc.watcher import Watcher
from paradrop.image import applying, chutes
from paradrop.lib import settings
from paradrop.lib.utils import dockerclient, restart
from paradrop.lib.utils.dockerclient import DockerError

log = logging.getLogger(__name__)


class PDConfigurer:
    """Makes the changes that are asked for, in the order they came. All methods may be called from any thread.

    Args:
        storage: the chutes.
        lclReactor: the daemon's asyncio loop, or None; kept for those who need it, updates do not.
    """

    def __init__(self, storage: ChuteStorage, lclReactor: AbstractEventLoop | None = None) -> None:
        self.storage = storage
        self.reactor = lclReactor
        self._queue: deque[dict[str, Any]] = deque()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._watcher = Watcher(storage, self.updateList)

    def updateList(self, **updateObj: Any) -> None:
        """Put an update into the queue; the keys are those of updateObject.UpdateObject and of a descriptor.

        Its ``func`` is called when it is complete, in any case. Returns at once.
        """
        with self._changed:
            if not self._stopping.is_set():
                self._queue.append(updateObj)
                self._changed.notify()
                return
        _refuse(updateObj, "The router is going down; ask again when it is back.")

    def getNextUpdate(self) -> dict[str, Any] | None:
        """Take the next update out of the queue. None if there is none."""
        with self._changed:
            return self._queue.popleft() if self._queue else None

    def clearUpdateList(self) -> None:
        """Forget the updates that wait. Each is complete then, without success."""
        with self._changed:
            waiting, self._queue = self._queue, deque()
        for update in waiting:
            _refuse(update, "The update was taken out of the queue.")

    def performUpdates(self) -> None:
        """Carry out updates until stop(): first what the start of the router needs, then what comes. Runs in a thread.

        An update never ends this loop, whatever it raises.
        """
        try:
            self._start_up()
        except Exception:
            log.critical("cannot bring back the chutes", exc_info=True)
        while not self._stopping.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping.is_set())
            update = None if self._stopping.is_set() else self.getNextUpdate()
            if update is not None:
                perform(update)
                self._watcher.ensure()
        self._watcher.stop()
        self.clearUpdateList()

    def stop(self) -> None:
        """Let performUpdates end after the update at hand. What waits is complete then, without success."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def _start_up(self) -> None:
        """Set right what a crash left; put in front of the queue restarts of what ran, and what the release brings."""
        running = any(chute.state == "running" for chute in self.storage.getChuteList())
        if running or journal.unfinished() or chutes.directory().is_dir():
            self._wait_for_engine()
        reconcile.reconcile(self.storage)
        restarts = [{**update, "boot": True} for update in restart.reloadChutes()]
        updates = applying.Start(self.storage).updates(restarts)
        with self._changed:
            self._queue.extendleft(reversed(updates))

    def _wait_for_engine(self) -> None:
        """Give the Docker engine, which starts at the same time, DOCKER_START_TIMEOUT seconds."""
        end = time.monotonic() + float(settings.DOCKER_START_TIMEOUT)
        while not self._stopping.is_set():
            try:
                dockerclient.checkEngine()
                return
            except DockerError as error:
                if time.monotonic() >= end:
                    log.error("%s", error.message)
                    return
            self._stopping.wait(1)


def perform(obj: dict[str, Any]) -> None:
    """Carry out one update, and see to it that it is complete afterwards, whatever happens."""
    update, message = None, "The router failed to carry out the update; see its log."
    try:
        update = updateObject.parse(obj)
        if settings.FC_BOUNCE_UPDATE:
            update.complete(success=True, message=settings.FC_BOUNCE_UPDATE)
        else:
            update.execute()
    except Exception as error:
        message = executionplan.told(error, "an update failed in a way that nobody thought of")
    if update is None or update.result is None:
        _refuse(obj, message)


def _refuse(obj: dict[str, Any], message: str) -> None:
    try:
        updateObject.UpdateObject({"updateClass": None, **obj}).complete(success=False, message=message)
    except Exception:
        log.critical("cannot tell anybody about an update's end", exc_info=True)
