"""The audit log: every change, with who made it, when, and from where; written in the transaction of the change."""

import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from pdimage.server.registry.tables import accounts, audit
from pdimage.server.tables import reading

_DAY = 86400.0


class Who(NamedTuple):
    """Who did something, and from which address: an account, a pdid, or :data:`SERVER`."""

    name: str
    address: str


# Somebody at the server's command line.
SERVER = Who("server", "")


class Entry(msgspec.Struct, frozen=True):
    """A line of the log. ``account``: whom it concerns."""

    number: int
    time: float
    who: str
    address: str
    action: str
    account: str
    subject: str
    text: str


class Audit:
    """The log in one database. KEEP_DAYS: what is older is forgotten."""

    def __init__(self, engine: sa.Engine, keep_days: float, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._keep = keep_days * _DAY
        self._clock = clock

    def note(self, connection: sa.Connection, who: Who, action: str, account: str, subject: str, text: str = "",
             ) -> None:
        """Write a line in the transaction of CONNECTION."""
        now = self._clock()
        connection.execute(sa.delete(audit).where(audit.c.time < now - self._keep))
        connection.execute(sa.insert(audit).values(
            time=now, who=who.name, address=who.address[:64], action=action, account=account, subject=subject,
            text=text))

    def read(self, account: str | None, before: int, limit: int) -> list[Entry]:
        """Return the newest lines, of one ACCOUNT or all, older than the line BEFORE.

        An account sees none from before it was made: they are of one that had its name and was deleted.
        """
        wanted = sa.select(audit).where(audit.c.number < before).order_by(audit.c.number.desc()).limit(limit)
        if account is not None:
            made = sa.select(accounts.c.made).where(accounts.c.name == account).scalar_subquery()
            wanted = wanted.where(audit.c.account == account, audit.c.time >= made)
        with reading(self._engine) as connection:
            return [Entry(*row) for row in connection.execute(wanted)]
