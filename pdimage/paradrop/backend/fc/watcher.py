"""Notices containers that the engine has restarted by itself, after their program failed.

Such a container is in a new network namespace, without the interfaces that the router had put into the old one. A
restart update of its chute, which leaves alone what runs, puts them there again.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

from paradrop.backend.fc.chutestorage import ChuteStorage
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import containers, dockerapi
from paradrop.lib.utils.dockerclient import LABEL, connect, translated

log = logging.getLogger(__name__)

PAUSE = 5
"""Seconds between attempts to hear from an engine that does not answer."""


class Watcher:
    """Follows the engine's events in a thread of its own, once a chute has interfaces.

    ``ask`` puts an update into the queue.
    """

    def __init__(self, storage: ChuteStorage, ask: Callable[..., None]) -> None:
        self.storage = storage
        self._ask = ask
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._events: Any = None

    def ensure(self) -> None:
        """Begin, unless it has begun or no chute has an interface."""
        if self._thread is None and any(map(dockerapi.wires, self.storage.getChuteList())):
            self._thread = threading.Thread(target=self._follow, name="watcher", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        if self._events is not None:
            self._events.close()

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                with translated("cannot follow the engine's events"):
                    self._events = connect().events(decode=True, filters={"event": "start", "label": LABEL})
                    for event in self._events:
                        self._started(event["Actor"]["ID"], event["Actor"]["Attributes"][LABEL])
            except ParadropError as error:
                log.info("%s", error.message)
            self._stopping.wait(PAUSE)

    def _started(self, container: str, name: str) -> None:
        chute = self.storage.getChute(name)
        if chute is None or chute.state != "running" or container not in containers.recorded(chute).values():
            return
        found = containers.inspect(container)
        if found is not None and found.get("RestartCount") and dockerapi.wires(chute):
            log.warning("the engine has restarted the container of %s; its interfaces are made anew", name)
            self._ask(updateClass="CHUTE", updateType="restart", name=name, boot=True)
