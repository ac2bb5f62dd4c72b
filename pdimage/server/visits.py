"""Routers that are led through an upgrade from a page: a router comes, somebody decides on its page, it follows.

A router gives its facts and gets a token. The page with that token in its address is shown to whoever has the address;
the router looks every few seconds whether somebody decided, installs what was decided, and reports::

    come -> (somebody chooses and builds) -> (somebody says install) -> downloading -> installing -> done | failed

The token is the only key to a visit; the database has its digest alone. A visit that nobody looked after for
:data:`SECONDS` is over.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy import select

from pdimage.server.tables import visits

SECONDS = 3600.0
# A router that did not look for this long has gone, or has no network.
AWAY_SECONDS = 30.0

Stage = Literal["waiting", "downloading", "installing", "done", "failed"]
ENDED = ("done", "failed")


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    """A router as it describes itself. ``request``: digest of the request whose image it runs, if it knows."""

    distro: str
    version: str
    target: str
    profile: str
    installed: dict[str, str] = {}
    request: str = ""
    name: str = ""


class Visit(msgspec.Struct, frozen=True):
    """A visit. ``request_hash``: the image that was chosen, or empty. ``go``: whether the router is to install it.

    ``stage``, ``text`` and ``percent`` are what the router reported last; ``seen`` is when it was there (Unix time).
    """

    device: Device
    request_hash: str
    go: bool
    stage: Stage
    text: str
    percent: int
    seen: float


class Visits:
    """The visits in one database. CLOCK gives Unix seconds."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self.clock = clock

    def come(self, device: Device) -> str:
        """Begin a visit and return its token; those that are over are forgotten."""
        token, now = secrets.token_urlsafe(24), self.clock()
        with self._engine.begin() as connection:
            connection.execute(sa.delete(visits).where(visits.c.until < now))
            connection.execute(sa.insert(visits).values(
                token=_digest(token), device=msgspec.json.encode(device).decode(), request_hash="", go=0,
                stage="waiting", text="", percent=0, seen=now, until=now + SECONDS))
        return token

    def find(self, token: str, *, router: bool = False) -> Visit | None:
        """Return a visit, None if it is over. ROUTER: the router itself looks."""
        now = self.clock()
        mine = (visits.c.token == _digest(token)) & (visits.c.until >= now)
        kept: dict[str, float] = {"until": now + SECONDS, **({"seen": now} if router else {})}
        with self._engine.begin() as connection:
            if connection.execute(sa.update(visits).where(mine).values(kept)).rowcount != 1:
                return None
            row = connection.execute(select(visits).where(mine)).one()
        return Visit(msgspec.json.decode(row.device, type=Device), row.request_hash, bool(row.go), row.stage, row.text,
                     row.percent, row.seen)

    def choose(self, token: str, request_hash: str) -> bool:
        """Note the image that was chosen (empty: none); False: too late, the router was told already."""
        return self._change(token, visits.c.go == 0, {"request_hash": request_hash})

    def install(self, token: str, request_hash: str) -> bool:
        """Have the router install an image; False: another one was chosen meanwhile, or it was told already."""
        return self._change(token, (visits.c.request_hash == request_hash) & (visits.c.go == 0), {"go": 1})

    def report(self, token: str, stage: Stage, text: str, percent: int) -> bool:
        """Note what the router says of itself; False: nobody told it to install, or it has ended."""
        return self._change(token, (visits.c.go == 1) & visits.c.stage.not_in(ENDED), {
            "stage": stage, "text": text, "percent": percent, "seen": self.clock()})

    def _change(self, token: str, state: sa.ColumnElement[bool], values: dict[str, object]) -> bool:
        now = self.clock()
        with self._engine.begin() as connection:
            return connection.execute(sa.update(visits).where(
                visits.c.token == _digest(token), visits.c.until >= now, state).values(
                    {**values, "until": now + SECONDS})).rowcount == 1


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
