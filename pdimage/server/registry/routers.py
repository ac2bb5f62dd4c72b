"""The routers of all accounts in a database.

A router is made by name, gets a secret, and is provisioned with it (:mod:`.provisioning`); then it links itself to the
server. Its identity to the world is its pdid, ``pd.ACCOUNT.NAME``.
"""

import time
from collections.abc import Callable
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import select

from pdimage.server import names
from pdimage.server.refusals import Refused
from pdimage.server.registry.audit import Audit, Who
from pdimage.server.registry.fleet import moving
from pdimage.server.registry.tables import hold_account, routers
from pdimage.server.settings import Settings
from pdimage.server.tables import reading


class Router(msgspec.Struct, frozen=True):
    """A router. ``awake``: its link is there. ``outcome`` and ``facts`` are what it told last, None before that."""

    pdid: str
    account: str
    name: str
    group: str
    made: float
    provisioned: float | None
    awake: bool
    seen: float | None
    address: str
    version: str
    incident: str
    outcome: Any
    facts: Any


def full_name(account: str, name: str) -> str:
    """Return the pdid that a name stands for, which may be one itself; empty if it can be none.

    >>> full_name("joe", "aardvark"), full_name("joe", "pd.ann.zebra"), full_name("joe", "../etc")
    ('pd.joe.aardvark', 'pd.ann.zebra', '')
    """
    if names.is_good("pdid", name):
        return name
    return f"pd.{account}.{name}" if names.is_good("router", name) else ""


def has_pdid(pdid: str) -> sa.ColumnElement[bool]:
    """Return the condition for the row of a router; case does not matter."""
    return sa.func.lower(routers.c.pdid) == pdid.lower()


class Routers:
    """The routers in one database. CLOCK gives Unix seconds."""

    def __init__(self, engine: sa.Engine, settings: Settings, audit: Audit, clock: Callable[[], float] = time.time,
                 ) -> None:
        self._engine = engine
        self._settings = settings
        self._audit = audit
        self.clock = clock

    def all(self, account: str | None) -> list[Router]:
        """Return the routers of one account, or of all, by pdid."""
        wanted = select(routers).order_by(sa.func.lower(routers.c.pdid))
        with reading(self._engine) as connection:
            return [_router(row) for row in connection.execute(
                wanted if account is None else wanted.where(routers.c.account == account))]

    def find(self, pdid: str) -> Router | None:
        """Return a router."""
        with reading(self._engine) as connection:
            row = connection.execute(select(routers).where(has_pdid(pdid))).one_or_none()
        return _router(row) if row else None

    def make(self, account: str, name: str, who: Who) -> Router:
        """Make a router.

        :raises Refused: the name is taken, or the account has too many, or was deleted meanwhile (409)
        """
        pdid, most = f"pd.{account}.{name}", self._settings.account_routers
        with self._engine.begin() as connection:
            hold_account(connection, account)
            if connection.scalar(select(routers.c.pdid).where(has_pdid(pdid))) is not None:
                raise Refused(409, f"there is a router {pdid} already; choose another name")
            number = connection.scalar(select(sa.func.count()).where(routers.c.account == account)) or 0
            if number >= most:
                raise Refused(409, f"this account has {number} routers, and may have {most}; delete one first")
            connection.execute(sa.insert(routers).values(pdid=pdid, account=account, name=name, made=self.clock()))
            moving.forget(connection, pdid)
            self._audit.note(connection, who, "router.make", account, pdid)
            return _router(connection.execute(select(routers).where(routers.c.pdid == pdid)).one())

    def delete(self, router: Router, who: Who) -> None:
        """Forget a router; its certificate and its secret are good for nothing then."""
        with self._engine.begin() as connection:
            if connection.execute(sa.delete(routers).where(routers.c.pdid == router.pdid)).rowcount:
                self._audit.note(connection, who, "router.delete", router.account, router.pdid)

    def clear_incident(self, router: Router, who: Who) -> None:
        """Forget what is noted of a router."""
        with self._engine.begin() as connection:
            if connection.execute(sa.update(routers).where(
                    routers.c.pdid == router.pdid, routers.c.incident != "").values(incident="")).rowcount:
                self._audit.note(connection, who, "router.clear", router.account, router.pdid, router.incident)


def _router(row: Any) -> Router:
    return Router(row.pdid, row.account, row.name, row.group_name, row.made, row.provisioned, bool(row.connected),
                  row.seen, row.address, row.version, row.incident, _json(row.outcome), _json(row.facts))


def _json(text: str) -> Any:
    return msgspec.json.decode(text) if text else None
