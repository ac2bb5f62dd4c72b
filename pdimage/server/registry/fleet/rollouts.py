"""The roll-outs in a database, as people see and lead them. Every change is in the audit log."""

from collections.abc import Collection
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy import select

from pdimage.server.refusals import Refused
from pdimage.server.registry.audit import Who
from pdimage.server.registry.fleet import moving
from pdimage.server.registry.fleet.releases import Release
from pdimage.server.registry.fleet.states import ACTION, ROLLOUT, ActionState, Counts, Event, Plan, State
from pdimage.server.registry.fleet.tables import actions, rollouts
from pdimage.server.registry.tables import hold_account
from pdimage.server.tables import reading

Lead = Literal["approve", "pause", "resume", "cancel"]
_DONE = {"approve": "approved", "pause": "paused", "resume": "resumed", "cancel": "cancelled"}


class Order(msgspec.Struct, frozen=True):
    """What somebody wants rolled out. ``group``: its name, empty for all routers of the account. ``window``: when
    devices may install, in the time of ``zone`` (empty: the server's). ``forced``: devices are not to ask anybody.
    ``confirm``: they get it when somebody at each has confirmed it.
    """

    account: str
    group: str
    release: Release
    plan: Plan
    window: str = ""
    zone: str = ""
    forced: bool = True
    confirm: bool = False
    approval: bool = False


class Rollout(msgspec.Struct, frozen=True):
    """A roll-out. ``step`` counts from 0 and began ``since``; ``counts`` are its actions, by step."""

    id: int
    account: str
    group: str
    release: str
    title: str
    version: str
    plan: Plan
    window: str
    zone: str
    forced: bool
    confirm: bool
    state: State
    step: int
    since: float
    reason: str
    made: float
    made_by: str
    approved_by: str
    ended: float | None
    counts: dict[int, Counts]

    @property
    def total(self) -> Counts:
        """Return the counts of all steps together."""
        return Counts(*map(sum, zip(*self.counts.values(), strict=True))) if self.counts else Counts()


class Action(msgspec.Struct, frozen=True):
    """What a roll-out does with one router. ``messages``: what the device said last, the newest at the end."""

    id: int
    pdid: str
    step: int
    state: ActionState
    reason: str
    messages: list[str]
    made: float
    changed: float
    ended: float | None


class Rollouts(moving.Mover):
    """The roll-outs in one database."""

    def start(self, order: Order, who: Who) -> Rollout:
        """Make a roll-out, which begins at once unless it wants approval.

        :raises Refused: the account was deleted meanwhile (409)
        """
        now = self.clock()
        release, state = order.release, "proposed" if order.approval else "running"
        with self.engine.begin() as connection:
            hold_account(connection, order.account)
            number = connection.execute(sa.insert(rollouts).values(
                account=order.account, group_name=order.group, release=release.id, title=release.title,
                version=release.version, digest=release.digest,
                files=msgspec.json.encode(release.artifacts).decode(), plan=msgspec.json.encode(order.plan).decode(),
                window=order.window, zone=order.zone, forced=int(order.forced), confirm=int(order.confirm),
                state=state, since=now, made=now, made_by=who.name).returning(rollouts.c.id)).scalar_one()
            self.audit.note(connection, who, "rollout.make", order.account, str(number),
                             f"{release.id} to {order.group or 'all routers'}, {state}")
            woken = self._move(connection, number, now)
            found = _of(connection, rollouts.c.id == number)[0]
        self.wake(woken)
        return found

    def find(self, number: int) -> Rollout | None:
        """Return a roll-out."""
        with reading(self.engine) as connection:
            found = _of(connection, rollouts.c.id == number)
        return found[0] if found else None

    def all(self, account: str | None, before: int, limit: int) -> list[Rollout]:
        """Return the newest roll-outs of one account, or of all, older than the one with the number BEFORE."""
        wanted = rollouts.c.id < before
        with reading(self.engine) as connection:
            return _of(connection, wanted if account is None else wanted & (rollouts.c.account == account), limit)

    def actions(self, number: int, after: str, limit: int) -> list[Action]:
        """Return what a roll-out does with its routers, by pdid, from the one AFTER a pdid on."""
        with reading(self.engine) as connection:
            rows = connection.execute(select(actions).where(
                actions.c.rollout == number, actions.c.pdid > after).order_by(actions.c.pdid).limit(limit))
            return [Action(row.id, row.pdid, row.step, row.state, row.reason, msgspec.json.decode(row.messages),
                           row.made, row.changed, row.ended) for row in rows]

    def lead(self, number: int, what: Lead, who: Who) -> Rollout:
        """Approve, pause, resume or cancel a roll-out.

        :raises Refused: it is in a state in which that can't be, or who made it approves it (409)
        """
        now = self.clock()
        with self.engine.begin() as connection:
            there = moving.lock(connection, number)
            found = _of(connection, rollouts.c.id == number)
            if there is None or not found:
                raise Refused(404, f"there is no roll-out {number}")
            if what == "approve" and found[0].made_by == who.name:
                raise Refused(409, "who made a roll-out can't approve it; ask a second person")
            self._change(connection, there, what, who, now)
            self.audit.note(connection, who, f"rollout.{what}", there.account, str(number))
            woken = self._move(connection, number, now)
            found = _of(connection, rollouts.c.id == number)
        self.wake(woken)
        return found[0]

    def _change(self, connection: sa.Connection, there: moving.Lock, what: Lead, who: Who, now: float) -> None:
        event: Event = what
        if (there.state, event) not in ROLLOUT:
            raise Refused(409, f"this roll-out is {there.state}; it can't be {_DONE[what]}")
        if what == "cancel":
            moving.end(connection, there, "cancel", f"by {who.name}", now)
            return
        values: dict[str, object] = {"state": ROLLOUT[there.state, event]}
        if what == "approve":
            values |= {"approved_by": who.name, "since": now}
        connection.execute(sa.update(rollouts).where(rollouts.c.id == there.id).values(values))

    def quit(self, number: int, pdids: Collection[str], who: Who) -> Rollout:
        """End what waits for devices to let go without their word: of these routers, or (none) of all. What such a
        device says later is refused (410).

        :raises Refused: nothing of it waits (409)
        """
        now = self.clock()
        waiting = (actions.c.rollout == number) & (actions.c.state == "cancelling")
        if pdids:
            waiting &= sa.func.lower(actions.c.pdid).in_([pdid.lower() for pdid in pdids])
        with self.engine.begin() as connection:
            there = moving.lock(connection, number)
            ended = connection.scalars(sa.update(actions).where(waiting).values(
                state=ACTION["cancelling", "quit"], reason=f"{who.name} did not wait for its word", changed=now,
                ended=now).returning(actions.c.pdid)).all()
            if there is None or not ended:
                raise Refused(409, "nothing there waits for a device to let go; cancel the roll-out first")
            self.audit.note(connection, who, "rollout.quit", there.account, str(number), ", ".join(sorted(ended)))
            return _of(connection, rollouts.c.id == number)[0]

    def move_all(self) -> None:
        """Move all roll-outs on that go on; those that another process moves just now are left to it."""
        with reading(self.engine) as connection:
            numbers = moving.unfinished(connection)
        for number in numbers:
            with self.engine.begin() as connection:
                woken = self._move(connection, number, self.clock(), skip=True)
            self.wake(woken)

    def _move(self, connection: sa.Connection, number: int, now: float, *, skip: bool = False) -> list[str]:
        there = moving.lock(connection, number, skip=skip)
        return moving.move(connection, there, self.audit, now) if there else []


def _of(connection: sa.Connection, wanted: sa.ColumnElement[bool], limit: int = 1) -> list[Rollout]:
    rows = connection.execute(select(rollouts).where(wanted).order_by(rollouts.c.id.desc()).limit(limit)).all()
    return [_rollout(row, moving.count(connection, row.id)) for row in rows]


def _rollout(row: Any, counts: dict[int, Counts]) -> Rollout:
    return Rollout(row.id, row.account, row.group_name, row.release, row.title, row.version,
                   msgspec.json.decode(row.plan, type=Plan), row.window, row.zone, bool(row.forced), bool(row.confirm),
                   row.state, row.step, row.since, row.reason, row.made, row.made_by, row.approved_by, row.ended,
                   counts)
