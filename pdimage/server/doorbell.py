"""Rings for workers (huey): something was queued. The queue itself is the database; a ring that is lost is made up for.

Huey delivers a task at most once, and forgets tasks when its storage is lost. So a task says nothing but "look", and
workers also look by themselves now and then (:class:`pdimage.server.worker.Worker`).
"""

import logging
from collections.abc import Callable
from typing import Any

from huey import Huey, RedisHuey, SqliteHuey
from huey.consumer import Consumer

from fussy.errors import SystemSetup
from pdimage.server.settings import Settings

log = logging.getLogger(__name__)


class Doorbell:
    """Rings by huey: SQLite in the server's directory, or Redis (setting ``queue``)."""

    def __init__(self, settings: Settings, answer: Callable[[], object] = lambda: None) -> None:
        self._huey = _huey(settings)

        def look() -> None:
            answer()

        # a task is known by the name of its function, which must be the same for who rings and who answers
        self._task = self._huey.task()(look)

    def ring(self) -> None:
        """Call a worker. Nothing is lost if nobody can be called: workers look by themselves."""
        try:
            self._task()
        except Exception as error:  # the errors of SQLite and of Redis' client, which need not be installed
            log.warning("cannot call a worker: %s", error)

    def consumer(self, workers: int) -> Any:
        """Return huey's consumer, whose threads answer; it has ``start`` and ``stop``."""
        return _Consumer(self._huey, workers=workers, periodic=False, initial_delay=0.02, backoff=1.3, max_delay=0.25)


class _Consumer(Consumer):  # type: ignore[misc]
    """Huey's consumer as a part of our process, which has its own mind about signals."""

    def _set_signal_handlers(self) -> None:
        pass


def _huey(settings: Settings) -> Huey:
    options: dict[str, Any] = {"results": False, "store_none": False}
    if not settings.queue:
        settings.root.mkdir(parents=True, exist_ok=True)
        return SqliteHuey("pdimage", filename=str(settings.root / "queue.db"), fsync=False, **options)
    if not settings.queue.startswith(("redis://", "rediss://", "unix://")):
        raise SystemSetup(f"cannot use the queue {settings.queue!r}: write redis://HOST:PORT/DATABASE, or nothing")
    from redis import ConnectionPool

    pool = ConnectionPool.from_url(settings.queue, socket_timeout=5, socket_connect_timeout=5)
    return RedisHuey("pdimage", connection_pool=pool, **options)
