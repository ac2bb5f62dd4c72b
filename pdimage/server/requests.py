"""The store of requests: accept, place, claim, beat, finish, fail, reap. States and tables: :mod:`.tables`.

All of it is safe against others that do the same at the same time, in this process or elsewhere: each change of state
is one UPDATE that says which state it comes from.
"""

import logging
import secrets
import time
from collections.abc import Callable

import msgspec
import sqlalchemy as sa
from sqlalchemy import func, select

from fussy.ondemand import Request
from pdimage.server import images, refusals
from pdimage.server.asking import Asked
from pdimage.server.entries import Entry, Failure, Image, Job
from pdimage.server.settings import Settings
from pdimage.server.tables import logs, requests
from pdimage.server.upsert import insert_new

log = logging.getLogger(__name__)

# Of a log that is longer, the beginning is kept and the rest is not.
LOG_LIMIT = 256 << 10
# Clients that all asked for the same at the same moment take turns; more tries than this mean something else is wrong.
_TRIES = 20


class Requests:
    """The requests in one database. CLOCK gives Unix seconds."""

    def __init__(self, engine: sa.Engine, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.engine = engine
        self.settings = settings
        self.clock = clock

    def find(self, digest: str) -> Entry | None:
        """Return a request, with its place in the queue or its image; None if it is not known, or failed too long ago.
        """
        with self.engine.connect().execution_options(reading=True) as connection:
            return self._find(connection, digest)

    def accept(self, asked: Asked, digest: str, client: str, *, anew: bool = False) -> Entry:
        """Put a request into the queue, or join the equal one that is there, and return it.

        ANEW: one that is done is built again; its image is there until the new one is.

        :raises Refused: the queue is full (503), or the client has too much in it (429)
        """
        with self.engine.begin() as connection:
            entry = self._find(connection, digest)
            if entry is None or (anew and entry.state == "done"):
                self._check_limits(connection, client)
                self._insert(connection, asked, digest, client)
                entry = self._find(connection, digest)
        assert entry is not None
        return entry

    def _insert(self, connection: sa.Connection, asked: Asked, digest: str, client: str) -> None:
        """Insert a request, or begin anew with one that is ended."""
        row = {"request": msgspec.json.encode(asked.request).decode(), "defaults": asked.defaults, "client": client,
               "state": "queued", "stage": "", "accepted": self.clock(), "started": None, "finished": None,
               "attempts": 0, "worker": "", "lease": "", "lease_until": None, "failure": "", "error": ""}
        again = connection.execute(
            sa.update(requests).where(requests.c.hash == digest, requests.c.state.in_(["failed", "done"])).values(row))
        if again.rowcount:
            connection.execute(sa.delete(logs).where(logs.c.hash == digest))
        else:
            insert_new(connection, requests, {"hash": digest, **row})

    def _check_limits(self, connection: sa.Connection, client: str) -> None:
        queued = requests.c.state == "queued"
        if connection.scalar(select(func.count()).where(queued)) >= self.settings.queue_limit:  # type: ignore[operator]
            raise refusals.overloaded(self.settings.retry_after)
        mine = connection.scalar(select(func.count()).where(queued, requests.c.client == client)) or 0
        if mine >= self.settings.client_queue:
            raise refusals.too_many(f"you have {mine} images in the queue; wait until some are built",
                                    self.settings.retry_after)
        lately = connection.scalar(select(func.count()).where(
            requests.c.client == client, requests.c.accepted > self.clock() - 3600)) or 0
        if lately >= self.settings.client_hourly:
            raise refusals.too_many(f"you have asked for {lately} images in an hour; that is enough", 3600)

    def _find(self, connection: sa.Connection, digest: str) -> Entry | None:
        row = connection.execute(select(requests).where(requests.c.hash == digest)).one_or_none()
        if row is None or (row.state == "failed" and row.finished < self.clock() - self.settings.failure_seconds):
            return None
        return Entry(
            row.hash, msgspec.json.decode(row.request, type=Request), row.state, row.stage, row.failure, row.error,
            row.accepted, row.started or 0.0, row.finished or 0.0,
            self._place(connection, digest) if row.state == "queued" else 0,
            images.find(connection, digest) if row.state == "done" else None)

    def _place(self, connection: sa.Connection, digest: str) -> int:
        order = _order().subquery()
        return connection.scalar(select(order.c.place).where(order.c.hash == digest)) or 0

    def waiting(self) -> int:
        """Return how many requests are queued."""
        with self.engine.connect().execution_options(reading=True) as connection:
            return connection.scalar(select(func.count()).where(requests.c.state == "queued")) or 0

    def oldest_wait(self) -> float:
        """Return for how many seconds the request has waited that waits longest; 0 if none does."""
        with self.engine.connect().execution_options(reading=True) as connection:
            since = connection.scalar(select(func.min(requests.c.accepted)).where(requests.c.state == "queued"))
        return max(0.0, self.clock() - since) if since else 0.0

    def queue(self) -> list[str]:
        """Return the hashes that are queued, next first."""
        with self.engine.connect().execution_options(reading=True) as connection:
            order = _order().subquery()
            return list(connection.scalars(select(order.c.hash).order_by(order.c.place)))

    def claim(self, worker: str) -> Job | None:
        """Take the next request of the queue; None if there is none. It must be kept alive with :meth:`beat`."""
        for _ in range(_TRIES):
            with self.engine.begin() as connection:
                order = _order().subquery()
                digest = connection.scalar(select(order.c.hash).order_by(order.c.place).limit(1))
                if digest is None:
                    return None
                lease = secrets.token_hex(16)
                now = self.clock()
                taken = connection.execute(
                    sa.update(requests).where(requests.c.hash == digest, requests.c.state == "queued").values(
                        state="building", stage="initialize", worker=worker, lease=lease, started=now,
                        lease_until=now + self.settings.lease_seconds, attempts=requests.c.attempts + 1))
                if taken.rowcount == 1:
                    connection.execute(sa.delete(logs).where(logs.c.hash == digest))
                    row = connection.execute(select(requests).where(requests.c.hash == digest)).one()
                    return Job(digest, msgspec.json.decode(row.request, type=Request), row.defaults, lease, worker,
                               row.attempts)
        return None

    def beat(self, job: Job, stage: str = "", text: str = "") -> bool:
        """Keep a claimed request, note its stage and what to add to its log; False: it is somebody else's now."""
        with self.engine.begin() as connection:
            values: dict[str, object] = {"lease_until": self.clock() + self.settings.lease_seconds}
            if stage:
                values["stage"] = stage
            if connection.execute(_mine(job).values(values)).rowcount != 1:
                return False
            if text:
                number, size = connection.execute(select(
                    func.coalesce(func.max(logs.c.number), 0), func.coalesce(func.sum(func.length(logs.c.text)), 0),
                ).where(logs.c.hash == job.hash)).one()
                if size < LOG_LIMIT:
                    connection.execute(sa.insert(logs).values(
                        hash=job.hash, number=number + 1, text=text[:LOG_LIMIT - size]))
        return True

    def finish(self, job: Job, image: Image, manifest: dict[str, str]) -> bool:
        """Record the image of a claimed request; False: it is somebody else's now."""
        with self.engine.begin() as connection:
            ended = connection.execute(_mine(job).values(
                state="done", stage="", finished=self.clock(), lease="", lease_until=None))
            if ended.rowcount != 1:
                return False
            images.record(connection, image, job.request, manifest)
        return True

    def fail(self, job: Job, failure: Failure, error: str) -> bool:
        """Record why a claimed request can't be built; False: it is somebody else's now."""
        with self.engine.begin() as connection:
            return connection.execute(_mine(job).values(
                state="failed", stage="", finished=self.clock(), failure=failure, error=error[:8000], lease="",
                lease_until=None)).rowcount == 1

    def reap(self) -> int:
        """Put requests whose worker has gone back into the queue, or give them up; return how many."""
        gone = (requests.c.state == "building") & (requests.c.lease_until < self.clock())
        with self.engine.begin() as connection:
            lost = connection.execute(
                sa.update(requests).where(gone, requests.c.attempts >= self.settings.attempts).values(
                    state="failed", stage="", finished=self.clock(), failure="lost", lease="", lease_until=None,
                    error=f"the build was begun {self.settings.attempts} times, and each time its worker was lost"))
            back = connection.execute(sa.update(requests).where(gone).values(
                state="queued", stage="", worker="", lease="", lease_until=None))
        if lost.rowcount or back.rowcount:
            log.warning("workers were lost: %d builds begin anew, %d are given up", back.rowcount, lost.rowcount)
        return lost.rowcount + back.rowcount

    def release(self, job: Job) -> None:
        """Give a claimed request back to the queue at once, as if it had not been begun."""
        with self.engine.begin() as connection:
            connection.execute(_mine(job).values(state="queued", stage="", worker="", lease="", lease_until=None,
                                                 attempts=requests.c.attempts - 1))

    def log(self, digest: str) -> str | None:
        """Return the log of a build so far; None if the request is not known."""
        with self.engine.connect().execution_options(reading=True) as connection:
            if connection.scalar(select(requests.c.state).where(requests.c.hash == digest)) is None:
                return None
            return "".join(connection.scalars(
                select(logs.c.text).where(logs.c.hash == digest).order_by(logs.c.number)))

    def flush(self, digest: str = "") -> int:
        """Forget failures, of one request or of all, so that they are built when asked for again; return how many."""
        chosen = requests.c.state == "failed"
        if digest:
            chosen &= requests.c.hash == digest
        with self.engine.begin() as connection:
            doomed = list(connection.scalars(select(requests.c.hash).where(chosen)))
            connection.execute(sa.delete(logs).where(logs.c.hash.in_(doomed)))
            connection.execute(sa.delete(requests).where(requests.c.hash.in_(doomed), requests.c.state == "failed"))
        return len(doomed)

    def hit(self, hits: dict[str, int]) -> None:
        """Count how often images were asked for that were there already."""
        with self.engine.begin() as connection:
            for digest, number in hits.items():
                connection.execute(sa.update(requests).where(requests.c.hash == digest).values(
                    hits=requests.c.hits + number))


def _mine(job: Job) -> sa.Update:
    return sa.update(requests).where(requests.c.hash == job.hash, requests.c.state == "building",
                                     requests.c.lease == job.lease)


def _order() -> sa.Select[tuple[str, int]]:
    """Return the queue: clients take turns, each client's requests in their order.

    A client's turn comes later the more of its requests are built or stand before; at the same turn, who asked first.
    """
    other = requests.alias("other")
    building = select(func.count()).where(other.c.client == requests.c.client, other.c.state == "building")
    turn = func.row_number().over(partition_by=requests.c.client, order_by=(requests.c.accepted, requests.c.hash))
    queued = select(requests.c.hash, requests.c.accepted, (turn + building.scalar_subquery()).label("turn")).where(
        requests.c.state == "queued").subquery()
    place = func.row_number().over(order_by=(queued.c.turn, queued.c.accepted, queued.c.hash)) - 1
    return select(queued.c.hash, place.label("place"))
