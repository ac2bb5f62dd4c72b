"""Devices at which somebody agreed beforehand to all that comes, which hawkBit calls auto-confirm: what wants to be
confirmed is, there."""

import msgspec
import sqlalchemy as sa
from sqlalchemy import select

from pdimage.server.registry.fleet.tables import actions, devices
from pdimage.server.upsert import replace


class Agreed(msgspec.Struct, frozen=True):
    """Who agreed, with a remark of his, and since when (Unix seconds)."""

    initiator: str
    remark: str
    since: float


def find(connection: sa.Connection, pdid: str) -> Agreed | None:
    """Return who agreed at a device, None if nobody did."""
    text = connection.scalar(select(devices.c.agreed).where(devices.c.pdid == pdid))
    return msgspec.json.decode(text, type=Agreed) if text else None


def keep(connection: sa.Connection, pdid: str, agreed: Agreed | None, now: float) -> None:
    """Write down that somebody agrees at a device from now on, or (None) that nobody does any more."""
    text = msgspec.json.encode(agreed).decode() if agreed else ""
    replace(connection, devices, {"pdid": pdid, "seen": now, "agreed": text})
    apply(connection, actions.c.pdid == pdid, now)


def apply(connection: sa.Connection, which: sa.ColumnElement[bool], now: float) -> None:
    """Confirm those of some actions that wait for it at devices where somebody agreed."""
    agreed = sa.exists().where(devices.c.pdid == actions.c.pdid, devices.c.agreed != "")
    connection.execute(sa.update(actions).where(which, actions.c.state == "unconfirmed", agreed).values(
        state="waiting", reason="confirmed beforehand at the device", changed=now))
