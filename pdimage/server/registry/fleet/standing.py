"""How the routers of a fleet are: what each runs, when it was there last, how its last update ended, what it is to do.
"""

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import select

from pdimage.server.registry.fleet.moving import running
from pdimage.server.registry.fleet.states import OPEN, ActionState
from pdimage.server.registry.fleet.tables import actions, devices, rollouts
from pdimage.server.registry.tables import routers
from pdimage.server.tables import reading


class Doing(msgspec.Struct, frozen=True):
    """What a roll-out does, or did last, with a router: to which release, and why it is as it is."""

    rollout: int
    release: str
    version: str
    state: ActionState
    reason: str
    changed: float


class Standing(msgspec.Struct, frozen=True):
    """A router. ``seen``: when it was there last, by its link or by hawkBit's API; ``release`` and ``version`` are what
    it runs; ``outcome`` what its updater told last; ``action`` the open action, otherwise the last one."""

    pdid: str
    account: str
    name: str
    group: str
    awake: bool
    seen: float | None
    release: str
    version: str
    paradrop: str
    outcome: Any
    action: Doing | None
    attributes: dict[str, str]
    incident: str


class Numbers(msgspec.Struct, frozen=True):
    """How many routers there are, and of these awake, in a roll-out, and with a last action that failed."""

    routers: int
    awake: int
    open: int
    failed: int


class Incident(msgspec.Struct, frozen=True):
    """What an operator must know of a router."""

    pdid: str
    incident: str


class Some(msgspec.Struct, frozen=True):
    """Whose routers are asked for: those of one account, or of all; those of one group, or of all."""

    account: str | None
    group: str | None = None

    def of(self, found: sa.Select[Any]) -> sa.Select[Any]:
        """Return a question about routers as one about these."""
        if self.account is not None:
            found = found.where(routers.c.account == self.account)
        return found if self.group is None else found.where(routers.c.group_name == self.group)


def standing(engine: sa.Engine, some: Some, after: str = "", limit: int | None = None) -> list[Standing]:
    """Return how routers are, by pdid, from the one AFTER a pdid on."""
    found = _with_last_action(select(
        routers, devices.c.seen.label("asked"), devices.c.attributes, actions.c.state, actions.c.reason,
        actions.c.changed, actions.c.rollout, rollouts.c.title, rollouts.c.version.label("wanted"))).outerjoin(
            devices, devices.c.pdid == routers.c.pdid).outerjoin(rollouts, rollouts.c.id == actions.c.rollout).where(
                sa.func.lower(routers.c.pdid) > after.lower()).order_by(sa.func.lower(routers.c.pdid)).limit(limit)
    with reading(engine) as connection:
        return [_standing(row) for row in connection.execute(some.of(found))]


def numbers(engine: sa.Engine, some: Some) -> Numbers:
    """Count routers."""
    def many(which: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        return sa.func.coalesce(sa.func.sum(sa.case((which, 1), else_=0)), 0)

    found = _with_last_action(select(
        sa.func.count(), many(routers.c.connected == 1), many(actions.c.state.in_(OPEN)),
        many(actions.c.state == "failed")).select_from(routers))
    with reading(engine) as connection:
        return Numbers(*connection.execute(some.of(found)).one())


def incidents(engine: sa.Engine, some: Some, limit: int) -> list[Incident]:
    """Return what is noted of routers that somebody should look at."""
    found = select(routers.c.pdid, routers.c.incident).where(routers.c.incident != "").order_by(
        sa.func.lower(routers.c.pdid)).limit(limit)
    with reading(engine) as connection:
        return [Incident(*row) for row in connection.execute(some.of(found))]


def _with_last_action(found: Any) -> Any:
    last = select(actions.c.pdid, sa.func.max(actions.c.id).label("id")).group_by(actions.c.pdid).subquery()
    return found.outerjoin(last, last.c.pdid == routers.c.pdid).outerjoin(actions, actions.c.id == last.c.id)


def _standing(row: Any) -> Standing:
    release, version = running(row.facts)
    attributes: dict[str, str] = msgspec.json.decode(row.attributes) if row.attributes else {}
    doing = Doing(row.rollout, row.title, row.wanted, row.state, row.reason, row.changed) if row.rollout else None
    return Standing(
        row.pdid, row.account, row.name, row.group_name, bool(row.connected),
        max((time for time in (row.seen, row.asked) if time is not None), default=None),
        release or attributes.get("release", ""), version or attributes.get("version", ""), row.version,
        msgspec.json.decode(row.outcome) if row.outcome else None, doing, attributes, row.incident)
