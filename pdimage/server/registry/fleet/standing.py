"""How the routers of a fleet are: what each runs, when it was there last, how its last update ended, what it is to do.
"""

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import select

from pdimage.server.registry.fleet.moving import running
from pdimage.server.registry.fleet.states import ActionState
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


def standing(engine: sa.Engine, account: str | None, group: str | None = None) -> list[Standing]:
    """Return the routers of one account, or of all; those of one group, or of all."""
    last = select(actions.c.pdid, sa.func.max(actions.c.id).label("id")).group_by(actions.c.pdid).subquery()
    found = select(routers, devices.c.seen.label("asked"), devices.c.attributes, actions.c.state, actions.c.reason,
                   actions.c.changed, actions.c.rollout, rollouts.c.title, rollouts.c.version.label("wanted"),
                   ).outerjoin(devices, devices.c.pdid == routers.c.pdid).outerjoin(
                       last, last.c.pdid == routers.c.pdid).outerjoin(actions, actions.c.id == last.c.id).outerjoin(
                           rollouts, rollouts.c.id == actions.c.rollout).order_by(sa.func.lower(routers.c.pdid))
    if account is not None:
        found = found.where(routers.c.account == account)
    if group is not None:
        found = found.where(routers.c.group_name == group)
    with reading(engine) as connection:
        return [_standing(row) for row in connection.execute(found)]


def _standing(row: Any) -> Standing:
    release, version = running(row.facts)
    attributes: dict[str, str] = msgspec.json.decode(row.attributes) if row.attributes else {}
    doing = Doing(row.rollout, row.title, row.wanted, row.state, row.reason, row.changed) if row.rollout else None
    return Standing(
        row.pdid, row.account, row.name, row.group_name, bool(row.connected),
        max((time for time in (row.seen, row.asked) if time is not None), default=None),
        release or attributes.get("release", ""), version or attributes.get("version", ""), row.version,
        msgspec.json.decode(row.outcome) if row.outcome else None, doing, attributes, row.incident)
