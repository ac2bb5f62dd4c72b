"""Actions as devices see them: what is there for a device, and what it says of it. Nothing here speaks HTTP.

What a device says is taken at its word, but for what is closed: that stays as it is. A word that was lost on the way
is said again, so the same end twice is fine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import sqlalchemy as sa
from sqlalchemy import select

from fussy import windows
from pdimage.server.refusals import Refused
from pdimage.server.registry.fleet import moving
from pdimage.server.registry.fleet.releases import Artifact
from pdimage.server.registry.fleet.states import ActionEvent, ActionState, State
from pdimage.server.registry.fleet.tables import actions, devices, rollouts
from pdimage.server.registry.tables import routers
from pdimage.server.tables import reading
from pdimage.server.upsert import replace

# What is kept of what a device says.
_MESSAGES, _LENGTH = 20, 500
_ATTRIBUTES = 64
_ENDS: Mapping[ActionEvent, ActionState] = {"succeed": "done", "fail": "failed", "acknowledge": "cancelled"}


class Device(NamedTuple):
    """A device that asks. ``action`` is the open one, if there is one that it may know of; ``installed`` the last that
    was done. ``token`` is the digest of its own token; ``is_known``: it told its attributes, since that if it was."""

    pdid: str
    token: str
    action: int | None
    state: ActionState | None
    installed: int | None
    is_known: bool


class Deployment(NamedTuple):
    """What a device is to install. ``is_open``: whether the window is, None if there is no window."""

    action: int
    state: ActionState
    rollout: int
    release: str
    title: str
    version: str
    digest: str
    artifacts: tuple[Artifact, ...]
    forced: bool
    is_open: bool | None
    messages: Sequence[str]


@dataclass
class Actions(moving.Mover):
    """The actions in one database."""

    _seen: dict[str, str] = field(default_factory=dict, init=False)

    def device(self, pdid: str) -> Device | None:
        """Return a device, and what is there for it. What waits for a roll-out that is paused is not."""
        with reading(self.engine) as connection:
            row = connection.execute(_DEVICE, {"pdid": pdid.lower()}).one_or_none()
        if row is None:
            return None
        shown = row.state == "cancelling" or _can_begin(row.state, row.rollout_state)
        return Device(row.pdid, row.update_token, row.action if shown else None, row.state if shown else None,
                      row.installed, bool(row.attributes) and row.told >= (row.installed_at or 0))

    def deployment(self, pdid: str, number: int, *, begin: bool) -> Deployment:
        """Return what a device is to install; BEGIN: it fetches it now, so the action is under way. Without it, what
        it has installed.

        :raises Refused: it is none of this device's, or was closed or withheld meanwhile (404)
        """
        with self.engine.begin() if begin else reading(self.engine) as connection:
            there = connection.execute(_deployment(pdid, number, lock=begin)).one_or_none()
            if there is None or not (_can_begin(there.state, there.rollout_state) if begin else there.state == "done"):
                raise Refused(404, f"there is no deployment {number} for this device")
            if there.state == "waiting":
                now = self.clock()
                connection.execute(sa.update(actions).where(
                    actions.c.id == number, actions.c.state == "waiting").values(state="running", changed=now))
        return Deployment(number, there.state, there.rollout, there.release, there.title, there.version, there.digest,
                          msgspec.json.decode(there.files, type=tuple[Artifact, ...]), bool(there.forced),
                          self._is_open(there.window, there.zone), msgspec.json.decode(there.messages))

    def files(self, pdid: str, rollout: int) -> tuple[Artifact, ...]:
        """Return the files of a roll-out that reached this device.

        :raises Refused: it did not, or there is none (404)
        """
        return self._files(pdid, rollout)[1]

    def artifact(self, pdid: str, rollout: int, name: str) -> tuple[str, Artifact]:
        """Return a file of a roll-out that reached this device, and the name of its release.

        :raises Refused: there is none (404)
        """
        release, found = self._files(pdid, rollout)
        for one in found:
            if one.name == name:
                return release, one
        raise Refused(404, "there is no such file for this device")

    def _files(self, pdid: str, rollout: int) -> tuple[str, tuple[Artifact, ...]]:
        with reading(self.engine) as connection:
            row = connection.execute(select(rollouts.c.release, rollouts.c.files).join(
                actions, actions.c.rollout == rollouts.c.id).where(
                    rollouts.c.id == rollout, actions.c.pdid == pdid)).one_or_none()
        if row is None:
            raise Refused(404, "there is no such file for this device")
        return row.release, msgspec.json.decode(row.files, type=tuple[Artifact, ...])

    def report(self, pdid: str, number: int, event: ActionEvent, lines: Sequence[str]) -> None:
        """Take down what a device says of an action; the roll-out is moved on if that closes it.

        :raises Refused: it is none of this device's (404), or was closed otherwise (410)
        """
        now, woken = self.clock(), []
        with self.engine.begin() as connection:
            mine = (actions.c.id == number) & (actions.c.pdid == pdid)
            rollout = connection.scalar(select(actions.c.rollout).where(mine))
            if rollout is None:
                raise Refused(404, f"there is no action {number} for this device")
            there = moving.lock(connection, rollout) if event in _ENDS else None
            row = connection.execute(select(actions).where(mine).with_for_update()).one()
            if row.ended is not None:
                if _ENDS.get(event) == row.state:
                    return
                raise Refused(410, f"action {number} was closed already: {row.state}")
            _write(connection, row, moving.new_state(row.state, event), lines, now)
            if there:
                woken = moving.move(connection, there, self.audit, now)
        self.wake(woken)

    def tell(self, pdid: str, given: Mapping[str, str], mode: str) -> None:
        """Keep the attributes that a device tells, as hawkBit's MODE says: merge, replace or remove.

        :raises Refused: they are too many (413)
        """
        with self.engine.begin() as connection:
            row = connection.execute(select(devices).where(devices.c.pdid == pdid).with_for_update()).one_or_none()
            kept: dict[str, str] = msgspec.json.decode(row.attributes) if row and row.attributes else {}
            if mode == "remove":
                kept = {name: value for name, value in kept.items() if name not in given}
            else:
                kept = {**(kept if mode == "merge" else {}), **given}
            if len(kept) > _ATTRIBUTES:
                raise Refused(413, f"a device may have {_ATTRIBUTES} attributes")
            replace(connection, devices, {
                "pdid": pdid, "attributes": msgspec.json.encode(kept).decode(), "told": self.clock(),
                "seen": self.clock(), "address": row.address if row else ""})

    def saw(self, pdid: str, address: str) -> None:
        """Note that a device asked; it is written down with others (:meth:`write_seen`), for many ask each second."""
        self._seen[pdid] = address

    def write_seen(self) -> None:
        """Write down which devices asked since the last time."""
        seen, self._seen = self._seen, {}
        if not seen:
            return
        now = self.clock()
        with self.engine.begin() as connection:
            known = set(connection.scalars(select(devices.c.pdid)))
            # in one order, so that no two servers wait for each other
            old = [{"of": pdid, "at": now, "from": seen[pdid]} for pdid in sorted(seen.keys() & known)]
            if old:
                connection.execute(sa.update(devices).where(devices.c.pdid == sa.bindparam("of")).values(
                    seen=sa.bindparam("at"), address=sa.bindparam("from")), old)
            for pdid in sorted(seen.keys() - known):
                replace(connection, devices, {"pdid": pdid, "seen": now, "address": seen[pdid]})

    def _is_open(self, window: str, zone: str) -> bool | None:
        if not window:
            return None
        now = datetime.fromtimestamp(self.clock(), ZoneInfo(zone) if zone else None)
        return windows.opens(windows.parse(window), now) == now


def _can_begin(state: ActionState | None, rollout: State | None) -> bool:
    """Tell whether a device may fetch what it is to install: what is under way, and the rest while the roll-out is."""
    return state == "running" or (state in ("waiting", "held") and rollout == "running")


def _write(connection: sa.Connection, row: Any, state: ActionState, lines: Sequence[str], now: float) -> None:
    said = [line[:_LENGTH] for line in lines]
    messages = [*msgspec.json.decode(row.messages), *said][-_MESSAGES:]
    ended = state in _ENDS.values()
    # the first line of an end says how it ended; while it goes on, the last one says what goes on
    silent = "it let go" if state == "cancelled" else "" if state != row.state else row.reason
    reason = (said[0] if ended or state == "held" else said[-1]) if said else silent
    connection.execute(sa.update(actions).where(actions.c.id == row.id).values(
        state=state, reason=reason, messages=msgspec.json.encode(messages).decode(), changed=now,
        ended=now if ended else None))


def _device() -> sa.Select[Any]:
    last = actions.alias()
    installed, installed_at = (select(sa.func.max(what)).where(
        last.c.pdid == routers.c.pdid, last.c.state == "done").scalar_subquery() for what in (last.c.id, last.c.ended))
    return select(
        routers.c.pdid, routers.c.update_token, actions.c.id.label("action"), actions.c.state,
        rollouts.c.state.label("rollout_state"), installed.label("installed"),
        installed_at.label("installed_at"), devices.c.attributes, devices.c.told,
    ).outerjoin(actions, (actions.c.pdid == routers.c.pdid) & actions.c.ended.is_(None)).outerjoin(
        rollouts, rollouts.c.id == actions.c.rollout).outerjoin(devices, devices.c.pdid == routers.c.pdid).where(
            sa.func.lower(routers.c.pdid) == sa.bindparam("pdid"))


_DEVICE = _device()


def _deployment(pdid: str, number: int, *, lock: bool) -> sa.Select[Any]:
    """Return the question for an action with its roll-out. LOCK: nobody may stop the roll-out meanwhile."""
    found = select(actions.c.state, actions.c.messages, actions.c.rollout, rollouts.c.release, rollouts.c.title,
                   rollouts.c.version, rollouts.c.digest, rollouts.c.files, rollouts.c.forced, rollouts.c.window,
                   rollouts.c.zone, rollouts.c.state.label("rollout_state")).join(
                       rollouts, rollouts.c.id == actions.c.rollout).where(
                           actions.c.id == number, actions.c.pdid == pdid)
    return found.with_for_update(read=True, of=rollouts) if lock else found
