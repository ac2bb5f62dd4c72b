"""What the database knows of the routers' links: which are there, which process has them, and what they told last.

The database is the only truth about who has a link: a process takes one by an UPDATE that fails if another process took
it meanwhile. A process that has links says every BEAT seconds that it is there; rows of one that does not are corrected
by any other, or by itself when it starts again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy import select, update

from paradrop.backend.link.messages import Outcome, encode
from pdimage.server.registry.audit import Audit, Who
from pdimage.server.registry.tables import routers
from pdimage.server.tables import reading

BEAT = 30.0
# A process that has not said for so long that it is there is gone, and its links with it.
GONE = 4 * BEAT
# SQLite takes 32766 values in a statement, PostgreSQL 65535.
_AT_ONCE = 5000


@dataclass(frozen=True)
class Known:
    """A router, as far as its link is concerned. ``hub``: the process that has its link, empty if none has."""

    pdid: str
    account: str
    certificate: str
    public_key: str
    machine: str
    hub: str
    address: str


@dataclass(frozen=True)
class Claim:
    """A process wants a router's link, which was with the process WAS, or with none (empty)."""

    known: Known
    was: str
    address: str
    version: str


@dataclass
class Changes:
    """What is to be written: routers whose link ended, and JSON of what routers told."""

    ended: set[str] = field(default_factory=set)
    facts: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.ended or self.facts or self.outcomes)

    @property
    def size(self) -> int:
        """How many characters wait."""
        return sum(map(len, self.facts.values())) + sum(map(len, self.outcomes.values()))

    def outcome(self, pdid: str, outcome: Outcome) -> None:
        """Note an outcome that a router told."""
        self.outcomes[pdid] = encode(outcome).decode()

    def older(self, than: "Changes") -> None:
        """Take what is older than what is here: it could not be written when it was tried."""
        self.ended |= than.ended
        self.facts = than.facts | self.facts
        self.outcomes = than.outcomes | self.outcomes


class Presence:
    """The links of one process, HUB, in the database. CLOCK gives Unix seconds. Everything here blocks."""

    def __init__(self, engine: sa.Engine, audit: Audit, hub: str, clock: Callable[[], float] = time.time) -> None:
        self.hub = hub
        self._engine = engine
        self._audit = audit
        self._clock = clock

    def start(self) -> None:
        """Correct what an earlier process of this name left when it was killed."""
        with self._engine.begin() as connection:
            connection.execute(update(routers).where(routers.c.hub == self.hub, routers.c.connected == 1)
                               .values(connected=0))

    def beat(self) -> set[str]:
        """Say that this process is there, and correct what those left that are not; return whose links it has."""
        now = self._clock()
        with self._engine.begin() as connection:
            own = (routers.c.hub == self.hub, routers.c.connected == 1)
            connection.execute(update(routers).where(*own).values(seen=now))
            connection.execute(update(routers).where(routers.c.connected == 1, routers.c.seen < now - GONE)
                               .values(connected=0))
            return set(connection.scalars(select(routers.c.pdid).where(*own)))

    def find(self, pdids: Sequence[str]) -> list[Known | None]:
        """Return the routers of these names; case does not matter."""
        wanted = [pdid.lower() for pdid in pdids]
        columns = routers.c
        found: dict[str, Known] = {}
        with reading(self._engine) as connection:
            for begin in range(0, len(wanted), _AT_ONCE):
                rows = connection.execute(
                    select(columns.pdid, columns.account, columns.certificate, columns.public_key, columns.machine,
                           sa.case((columns.connected == 1, columns.hub), else_=""), columns.address)
                    .where(sa.func.lower(columns.pdid).in_(wanted[begin:begin + _AT_ONCE])))
                found |= {row[0].lower(): Known(*row) for row in rows}
        return [found.get(pdid) for pdid in wanted]

    def claim(self, claims: Sequence[Claim]) -> list[bool]:
        """Take the links of routers; tell of each whether it is this process's now."""
        here = routers.c
        free = sa.or_(here.connected == 0, here.hub == self.hub, here.hub == sa.bindparam("was"))
        rows = [{"one": claim.known.pdid, "same": claim.known.certificate, "was": claim.was or self.hub,
                 "address": claim.address, "version": claim.version} for claim in claims]
        own = (here.pdid.in_([claim.known.pdid for claim in claims]), here.hub == self.hub, here.connected == 1)
        with self._engine.begin() as connection:
            connection.execute(
                update(routers).where(here.pdid == sa.bindparam("one"), here.certificate == sa.bindparam("same"), free)
                .values(connected=1, hub=self.hub, seen=self._clock()), rows)
            mine = {(row.pdid, row.certificate) for row in connection.execute(
                select(here.pdid, here.certificate).where(*own))}
        return [(claim.known.pdid, claim.known.certificate) in mine for claim in claims]

    def write(self, changes: Changes) -> None:
        """Write what has changed; only of routers whose link is, or was last, with this process."""
        now = self._clock()
        with self._engine.begin() as connection:
            for column, told in ((routers.c.facts, changes.facts), (routers.c.outcome, changes.outcomes)):
                self._many(connection, {column: sa.bindparam("told")},
                           [{"one": pdid, "told": text} for pdid, text in told.items()])
            self._many(connection, {routers.c.connected: 0, routers.c.seen: now},
                       [{"one": pdid} for pdid in changes.ended])

    def _many(self, connection: sa.Connection, values: Mapping[sa.Column[str], object],
              rows: list[dict[str, str]]) -> None:
        if rows:
            connection.execute(
                update(routers).where(routers.c.pdid == sa.bindparam("one"), routers.c.hub == self.hub,
                                      routers.c.connected == 1)
                .values({column.name: value for column, value in values.items()}), rows)

    def incident(self, pdid: str, address: str, text: str) -> None:
        """Note what an operator must know of a router, in its row and in the audit log."""
        with self._engine.begin() as connection:
            connection.execute(update(routers).where(routers.c.pdid == pdid).values(incident=text))
            account = connection.scalar(select(routers.c.account).where(routers.c.pdid == pdid)) or ""
            self._audit.note(connection, Who(pdid, address), "router.clone", account, pdid, text)
