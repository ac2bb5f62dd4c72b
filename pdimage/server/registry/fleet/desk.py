"""What the addresses of the fleet work with, and the thread that moves roll-outs on while a server serves."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from pdimage.server.artifacts import Artifacts
from pdimage.server.registry.desk import Registry
from pdimage.server.registry.fleet.actions import Actions
from pdimage.server.registry.fleet.groups import Groups
from pdimage.server.registry.fleet.releases import Releases
from pdimage.server.registry.fleet.rollouts import Rollouts

log = logging.getLogger(__name__)

# How often roll-outs are looked after. What devices say moves them on at once; this is for time and for newcomers.
SECONDS = 2.0


@dataclass(frozen=True)
class Fleet:
    """Everything behind the addresses of the fleet."""

    registry: Registry
    groups: Groups
    releases: Releases
    rollouts: Rollouts
    actions: Actions

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Move roll-outs on as long as the block lasts."""
        stop = threading.Event()
        thread = threading.Thread(target=self._move, args=(stop,), name="roll-outs", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _move(self, stop: threading.Event) -> None:
        while not stop.wait(SECONDS):
            try:
                self.actions.write_seen()
                self.rollouts.move_all()
            except (sa.exc.OperationalError, sa.exc.TimeoutError, sa.exc.InterfaceError) as error:
                log.warning("cannot move roll-outs on: %s", error)
            except Exception:
                log.exception("cannot move roll-outs on")


def make_fleet(registry: Registry, store: Artifacts, wake: Callable[[list[str]], object] = lambda _: None) -> Fleet:
    """Return the fleet that lies in a registry's database. WAKE is told which routers have something to fetch."""
    engine, audit = registry.engine, registry.audit
    return Fleet(registry, Groups(engine, audit), Releases(registry.settings, engine, store),
                 Rollouts(engine, audit, wake), Actions(engine, audit, wake))
