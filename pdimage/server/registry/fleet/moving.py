"""Moves roll-outs on: one transaction each, so whatever is killed, a roll-out is as before or one step further.

Who moves a roll-out on locks its row first, and then looks at its actions; so do devices whose word closes an action,
and people who pause or cancel. Several servers may try at the same time: the row is for one of them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import select

from fussy.channel import stable_hash
from pdimage.server.registry.audit import SERVER, Audit
from pdimage.server.registry.fleet import confirmation
from pdimage.server.registry.fleet.states import (
    ACTION,
    ROLLOUT,
    ActionState,
    Counts,
    Event,
    Plan,
    State,
    decide,
    wanted,
)
from pdimage.server.registry.fleet.tables import actions, devices, rollouts
from pdimage.server.registry.tables import routers
from pdimage.server.upsert import insert_all_new

NOT_BEGUN = [state for (state, event), becomes in ACTION.items() if (event, becomes) == ("end", "cancelled")]
_NOT_UNDER_WAY = [state for state, event in ACTION if event == "overtake"]
ALREADY = "it had this release"


@dataclass
class Mover:
    """Who moves the roll-outs of one database on. ``clock`` gives Unix seconds, ``wake`` is told which routers have
    something to fetch."""

    engine: sa.Engine
    audit: Audit
    wake: Callable[[list[str]], object]
    clock: Callable[[], float] = time.time


class Lock(NamedTuple):
    """A roll-out whose row is ours until the transaction ends."""

    id: int
    account: str
    group: str
    title: str
    version: str
    digest: str
    plan: Plan
    state: State
    step: int
    since: float
    confirm: bool

    @property
    def members(self) -> sa.ColumnElement[bool]:
        """Return the condition for the routers that it is for."""
        mine = routers.c.account == self.account
        return mine & (routers.c.group_name == self.group) if self.group else mine

    def changed(self, **values: Any) -> "Lock":
        return self._replace(**values)


def lock(connection: sa.Connection, number: int, *, skip: bool = False) -> Lock | None:
    """Take the row of a roll-out; None if there is none, or, with SKIP, if somebody else has it."""
    row = connection.execute(select(rollouts).where(rollouts.c.id == number).with_for_update(skip_locked=skip),
                             ).one_or_none()
    if row is None:
        return None
    return Lock(row.id, row.account, row.group_name, row.title, row.version, row.digest,
                msgspec.json.decode(row.plan, type=Plan), row.state, row.step, row.since,
                bool(row.confirm))


def unfinished(connection: sa.Connection) -> list[int]:
    """Return the roll-outs that may have to be moved on: those that go on, and those that are finished and the newest
    of their group, for routers that come into it later."""
    newer = rollouts.alias()
    overtaken = sa.exists().where(
        newer.c.account == rollouts.c.account, newer.c.group_name == rollouts.c.group_name, newer.c.id > rollouts.c.id,
        newer.c.state.in_(("running", "paused", "finished")))
    return list(connection.scalars(select(rollouts.c.id).where(
        rollouts.c.state.in_(("running", "paused")) | ((rollouts.c.state == "finished") & ~overtaken),
    ).order_by(rollouts.c.id)))


def count(connection: sa.Connection, number: int) -> dict[int, Counts]:
    """Count the actions of a roll-out by step and state."""
    found: dict[int, dict[str, int]] = {}
    for step, state, many in connection.execute(
            select(actions.c.step, actions.c.state, sa.func.count()).where(actions.c.rollout == number).group_by(
                actions.c.step, actions.c.state)):
        found.setdefault(step, {})[state] = many
    return {step: Counts(**states) for step, states in found.items()}


def move(connection: sa.Connection, there: Lock, audit: Audit, now: float) -> list[str]:
    """Move a roll-out on as far as it goes now; return the routers that have something to fetch since."""
    woken: list[str] = []
    if there.state not in ("running", "paused", "finished"):
        return woken
    _drop_gone(connection, there, now)
    while True:
        missing = _missing(connection, there)
        if there.state != "paused" and missing:
            if there.state == "finished":
                there = _become(connection, there, "rejoin", "", now)
            woken += _reach(connection, there, missing, now)
            missing = _missing(connection, there)
        if there.state == "finished":
            return woken
        decision = decide(there.plan, there.step, there.since, count(connection, there.id), missing, now)
        if decision.what == "stop":
            reason = end(connection, there, "stop", decision.reason, now)
            audit.note(connection, SERVER, "rollout.stop", there.account, str(there.id), reason)
            return []
        if there.state == "paused" or not decision.what:
            return woken
        if decision.what == "finish":
            _become(connection, there, "finish", "", now)
            audit.note(connection, SERVER, "rollout.finish", there.account, str(there.id))
            return woken
        there = there.changed(step=there.step + 1, since=now)
        connection.execute(sa.update(rollouts).where(rollouts.c.id == there.id).values(step=there.step, since=now))


def end(connection: sa.Connection, there: Lock, event: Event, reason: str, now: float) -> str:
    """Stop or cancel a roll-out: what was not begun never is, and devices at work are asked to let go. Return the
    reason with what that meant."""
    mine = actions.c.rollout == there.id
    never = connection.execute(sa.update(actions).where(mine, actions.c.state.in_(NOT_BEGUN)).values(
        state="cancelled", reason=f"the roll-out was {ROLLOUT[there.state, event]}", changed=now, ended=now)).rowcount
    begun = connection.execute(sa.update(actions).where(mine, actions.c.state.in_(("running", "held"))).values(
        state="cancelling", changed=now)).rowcount
    reason += aftermath(never, begun)
    _become(connection, there, event, reason, now)
    return reason


def aftermath(never: int, begun: int) -> str:
    """Return what the end of a roll-out means for routers that had not begun with it, and for those that had.

    >>> aftermath(2, 0), aftermath(1, 3), aftermath(0, 0)
    ('; not begun: 2', '; not begun: 1, asked to let go: 3', '')
    """
    parts = [f"{what}: {many}" for what, many in (("not begun", never), ("asked to let go", begun)) if many]
    return f"; {', '.join(parts)}" if parts else ""


def _become(connection: sa.Connection, there: Lock, event: Event, reason: str, now: float) -> Lock:
    state = ROLLOUT[there.state, event]
    connection.execute(sa.update(rollouts).where(rollouts.c.id == there.id).values(
        state=state, reason=reason, ended=None if state == "running" else now))
    return there.changed(state=state)


def _drop_gone(connection: sa.Connection, there: Lock, now: float) -> None:
    """Close what is open for routers that were deleted, and what waits for those that left the group."""
    known = sa.exists().where(routers.c.pdid == actions.c.pdid)
    member = sa.exists().where(routers.c.pdid == actions.c.pdid, there.members)
    connection.execute(sa.update(actions).where(
        actions.c.rollout == there.id, actions.c.ended.is_(None),
        ~known | (actions.c.state.in_(NOT_BEGUN) & ~member)).values(
            state="cancelled", reason="the router is not in the group any more", changed=now, ended=now))


def _new(there: Lock) -> sa.Select[Any]:
    """Return the question for the routers that a roll-out has not reached."""
    return select(routers.c.pdid).where(there.members, ~sa.exists().where(
        actions.c.rollout == there.id, actions.c.pdid == routers.c.pdid))


def _missing(connection: sa.Connection, there: Lock) -> int:
    """Return how many routers the present step is to reach and has not."""
    members = connection.scalar(select(sa.func.count()).select_from(routers).where(there.members)) or 0
    new = connection.scalar(select(sa.func.count()).select_from(_new(there).subquery())) or 0
    return max(0, wanted(there.plan, there.step, members) - (members - new))


def _reach(connection: sa.Connection, there: Lock, many: int, now: float) -> list[str]:
    """Give MANY more routers an action, by a stable hash; those that are busy with another roll-out have to wait."""
    chosen = sorted(connection.scalars(_new(there)), key=lambda pdid: stable_hash(str(there.id), pdid))[:many]
    busy = _busy(connection, there, chosen, now)
    free = [pdid for pdid in chosen if pdid not in busy]
    have = _that_have(connection, there, free)
    first = "unconfirmed" if there.confirm else "waiting"
    rows = [{"rollout": there.id, "pdid": pdid, "step": there.step, "state": first, "reason": "", "made": now,
             "changed": now, "ended": None} for pdid in free]
    for row in rows:
        if row["pdid"] in have:
            row |= {"state": "done", "reason": ALREADY, "ended": now}
    insert_all_new(connection, actions, rows)
    if there.confirm:
        confirmation.apply(connection, actions.c.rollout == there.id, now)
    return [pdid for pdid in free if pdid not in have]


def _busy(connection: sa.Connection, there: Lock, chosen: Sequence[str], now: float) -> set[str]:
    """Return the routers of CHOSEN that have an open action; what an older roll-out did not begin gives way."""
    busy = {row.pdid: row for row in connection.execute(select(
        actions.c.id, actions.c.pdid, actions.c.rollout, actions.c.state).where(actions.c.ended.is_(None)))}
    left = set()
    for pdid in chosen:
        row = busy.get(pdid)
        if row is None:
            continue
        gives_way = row.rollout < there.id and row.state in _NOT_UNDER_WAY and connection.execute(
            sa.update(actions).where(actions.c.id == row.id, actions.c.state == row.state).values(
                state="cancelled", reason=f"roll-out {there.id} came after it", changed=now, ended=now)).rowcount
        if not gives_way:
            left.add(pdid)
    return left


def _that_have(connection: sa.Connection, there: Lock, pdids: Sequence[str]) -> set[str]:
    """Return the routers that run this very release, as they told; only a channel's release is known by name."""
    if not there.digest:
        return set()
    wanted_ones, found = set(pdids), set()
    for pdid, facts in connection.execute(select(routers.c.pdid, routers.c.facts).where(
            there.members, routers.c.facts.contains(there.title))):
        if pdid in wanted_ones and running(facts) == (there.title, there.version):
            found.add(pdid)
    return found


def running(facts: str) -> tuple[str, str]:
    """Return name and version of the release that a router runs by the facts it told; empty if it told none.

    >>> running('{"firmware": {"current": {"name": "firmware-8", "version": "8.0"}}}'), running("")
    (('firmware-8', '8.0'), ('', ''))
    """
    try:
        current = msgspec.json.decode(facts)["firmware"]["current"]
        return str(current["name"]), str(current["version"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return "", ""


def forget(connection: sa.Connection, pdid: str) -> None:
    """Have the roll-outs that go on, or have reached all, reach a router anew: it is another device from now on, which
    did nothing of what the one before it did."""
    again = select(rollouts.c.id).where(rollouts.c.state.in_(("running", "paused", "finished")))
    connection.execute(sa.delete(actions).where(
        sa.func.lower(actions.c.pdid) == pdid.lower(), actions.c.ended.is_not(None), actions.c.rollout.in_(again)))
    connection.execute(sa.delete(devices).where(sa.func.lower(devices.c.pdid) == pdid.lower()))


def new_state(state: ActionState, event: Any) -> ActionState:
    """Return the state of an action after an event; what makes no sense in a state changes nothing."""
    return ACTION.get((state, event), state)
