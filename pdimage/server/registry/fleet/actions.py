"""Actions as devices see them: what is there for a device, and what it says of it. Nothing here speaks HTTP.

What a device says is taken at its word, but for what is closed: that stays as it is. A word that was lost on the way
is said again, so the same end twice is fine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import sqlalchemy as sa
from sqlalchemy import select

from fussy import windows
from pdimage.server.refusals import Refused
from pdimage.server.registry.fleet import confirmation, moving
from pdimage.server.registry.fleet.confirmation import Agreed
from pdimage.server.registry.fleet.releases import Artifact
from pdimage.server.registry.fleet.states import ActionEvent, ActionState, State
from pdimage.server.registry.fleet.tables import actions, devices, rollouts
from pdimage.server.registry.tables import routers
from pdimage.server.tables import reading
from pdimage.server.upsert import replace

# What is kept of what a device says.
_MESSAGES, _LENGTH = 20, 500
_ATTRIBUTES = 64
# What a device looks at an action for: to agree to it, to install it, or because it did.
View = Literal["confirmationBase", "deploymentBase", "installedBase"]
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
        shown = row.state == "cancelling" or _view(row.state, row.rollout_state) is not None
        return Device(row.pdid, row.update_token, row.action if shown else None, row.state if shown else None,
                      row.installed, bool(row.attributes) and row.told >= (row.installed_at or 0))

    def deployment(self, pdid: str, number: int, view: View) -> Deployment:
        """Return what a device is to install, to confirm first, or has installed. To fetch what it is to install puts
        the action under way.

        :raises Refused: it is none of this device's, or not in this view (any more) (404)
        """
        begin = view == "deploymentBase"
        with self.engine.begin() if begin else reading(self.engine) as connection:
            there = connection.execute(_deployment(pdid, number, lock=begin)).one_or_none()
            if there is None or _view(there.state, there.rollout_state) != view:
                raise Refused(404, f"there is no {view} {number} for this device")
            if begin and there.state == "waiting":
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

    def confirm(self, pdid: str, number: int, lines: Sequence[str], *, agrees: bool) -> None:
        """Take down whether somebody at a device agrees to an action. He may say no, and later yes.

        :raises Refused: it is none of this device's (404), or does not wait for that (any more) (410)
        """
        with self.engine.begin() as connection:
            row = connection.execute(select(actions).where(
                actions.c.id == number, actions.c.pdid == pdid).with_for_update()).one_or_none()
            if row is None:
                raise Refused(404, f"there is no action {number} for this device")
            if row.state == "unconfirmed":
                state = moving.new_state(row.state, "confirm" if agrees else "deny")
                _write(connection, row, state, lines or ["confirmed" if agrees else "denied"], self.clock())
            elif row.ended is not None or not agrees:
                raise Refused(410, f"action {number} does not wait to be confirmed; it is {row.state}")

    def agreed(self, pdid: str) -> Agreed | None:
        """Return who agreed beforehand at a device, None if nobody did."""
        with reading(self.engine) as connection:
            return confirmation.find(connection, pdid)

    def agree(self, pdid: str, initiator: str, remark: str) -> None:
        """Have somebody at a device agree to all that comes, and to what waits for it.

        :raises Refused: somebody has (409)
        """
        now = self.clock()
        with self.engine.begin() as connection:
            if confirmation.find(connection, pdid):
                raise Refused(409, "somebody has agreed at this device; deactivateAutoConfirm ends that")
            confirmation.keep(connection, pdid, Agreed(initiator, remark, now), now)

    def disagree(self, pdid: str) -> None:
        """Have each action wait from now on until it is confirmed."""
        with self.engine.begin() as connection:
            confirmation.keep(connection, pdid, None, self.clock())

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


def _view(state: ActionState | None, rollout: State | None) -> View | None:
    """Return what a device may look at an action for: what is under way, and the rest while its roll-out is."""
    if state == "unconfirmed" and rollout == "running":
        return "confirmationBase"
    if state == "running" or (state in ("waiting", "held") and rollout == "running"):
        return "deploymentBase"
    return "installedBase" if state == "done" else None


def _write(connection: sa.Connection, row: Any, state: ActionState, lines: Sequence[str], now: float) -> None:
    said = [line[:_LENGTH] for line in lines]
    messages = [*msgspec.json.decode(row.messages), *said][-_MESSAGES:]
    ended = state in _ENDS.values()
    # the first line of an end says how it ended; while it goes on, the last one says what goes on
    silent = "it let go" if state == "cancelled" else "" if state != row.state else row.reason
    reason = (said[0] if ended or state in ("held", "unconfirmed", "waiting") else said[-1]) if said else silent
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
