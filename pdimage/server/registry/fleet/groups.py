"""Groups of routers in a database. A group belongs to an account; a router is in one group of its account at most."""

import time
from collections.abc import Callable
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import select

from pdimage.server.refusals import Refused
from pdimage.server.registry.audit import Audit, Who
from pdimage.server.registry.fleet.tables import groups, rollouts
from pdimage.server.registry.routers import Router
from pdimage.server.registry.tables import hold_account, routers
from pdimage.server.tables import reading


class Group(msgspec.Struct, frozen=True):
    """A group. ``routers``: how many are in it."""

    account: str
    name: str
    note: str
    made: float
    routers: int


class Groups:
    """The groups in one database. CLOCK gives Unix seconds."""

    def __init__(self, engine: sa.Engine, audit: Audit, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._audit = audit
        self.clock = clock

    def all(self, account: str | None) -> list[Group]:
        """Return the groups of one account, or of all."""
        wanted = _counted().order_by(sa.func.lower(groups.c.account), sa.func.lower(groups.c.name))
        with reading(self._engine) as connection:
            return [Group(*row) for row in connection.execute(
                wanted if account is None else wanted.where(groups.c.account == account))]

    def find(self, account: str, name: str) -> Group | None:
        """Return a group; case does not matter."""
        with reading(self._engine) as connection:
            row = connection.execute(_counted().where(_is(account, name))).one_or_none()
        return Group(*row) if row else None

    def put(self, account: str, name: str, note: str, most: int, who: Who) -> Group:
        """Make a group, or change its note.

        :raises Refused: the account has MOST groups already, or was deleted meanwhile (409)
        """
        with self._engine.begin() as connection:
            hold_account(connection, account)
            changed = connection.execute(sa.update(groups).where(_is(account, name)).values(note=note)).rowcount
            if not changed:
                if (connection.scalar(select(sa.func.count()).where(groups.c.account == account)) or 0) >= most:
                    raise Refused(409, f"this account has {most} groups; delete one first")
                connection.execute(sa.insert(groups).values(account=account, name=name, note=note, made=self.clock()))
            self._audit.note(connection, who, "group.change" if changed else "group.make", account, name)
            return Group(*connection.execute(_counted().where(_is(account, name))).one())

    def delete(self, group: Group, who: Who) -> None:
        """Forget a group; its routers are in none then.

        :raises Refused: a roll-out to it goes on (409)
        """
        with self._engine.begin() as connection:
            busy = connection.scalar(select(rollouts.c.id).where(
                rollouts.c.account == group.account, rollouts.c.group_name == group.name,
                rollouts.c.state.in_(("proposed", "running", "paused"))).limit(1))
            if busy is not None:
                raise Refused(409, f"roll-out {busy} to this group goes on; cancel it first")
            connection.execute(sa.update(routers).where(
                routers.c.account == group.account, routers.c.group_name == group.name).values(group_name=""))
            if connection.execute(sa.delete(groups).where(_is(group.account, group.name))).rowcount:
                self._audit.note(connection, who, "group.delete", group.account, group.name)

    def set_group(self, router: Router, group: str, who: Who) -> None:
        """Put a router into a group of its account (empty: into none)."""
        with self._engine.begin() as connection:
            done = connection.execute(sa.update(routers).where(
                routers.c.pdid == router.pdid, routers.c.group_name != group).values(group_name=group)).rowcount
            if done:
                self._audit.note(connection, who, "group.join" if group else "group.leave", router.account,
                                 router.pdid, group)


def _is(account: str, name: str) -> sa.ColumnElement[bool]:
    return (groups.c.account == account) & (sa.func.lower(groups.c.name) == name.lower())


def _counted() -> sa.Select[Any]:
    inside = select(sa.func.count()).where(
        routers.c.account == groups.c.account, routers.c.group_name == groups.c.name).scalar_subquery()
    return select(groups.c.account, groups.c.name, groups.c.note, groups.c.made, inside)
