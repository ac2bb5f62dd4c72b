"""Provisioning: who owns a router gets a secret for it, and the device that has the secret becomes that router.

::

              issue                   redeem                    first link
    (made) ----------> secret issued ---------> secret spent ------------> (secret forgotten)
                          |    ^                   |    ^
                          +----+ issue             +----+ redeem with the same key

``secret_until`` is 0 once the secret is spent. A secret counts once; but as long as the router has not linked itself
with its new certificate, the same device (the same key, which it proves to have) gets the same answer again, so that
whoever is killed on the way, nothing is lost. All that is asked for is checked before anything is written, in one
transaction.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import select

from fussy.moments import utc
from pdimage.server.refusals import Refused
from pdimage.server.registry.accounts import digest
from pdimage.server.registry.audit import Audit, Who
from pdimage.server.registry.authority import Applicant, Authority
from pdimage.server.registry.fleet import moving
from pdimage.server.registry.routers import Router
from pdimage.server.registry.tables import routers
from pdimage.server.settings import Settings

# How far a device's clock may be off: with more, certificates and updates are not what they seem to it.
CLOCK_SECONDS = 600.0


@dataclass(frozen=True)
class Order:
    """What a device asks with. ``machine``: a digest of its hardware; ``clock``: Unix seconds there; ``again``: it may
    take the place of what is provisioned already."""

    secret: str
    applicant: Applicant
    machine: str
    clock: float
    again: bool
    address: str


@dataclass(frozen=True)
class Provisioned:
    """What a device is now. ``update_token`` is for the device API of hawkBit; only its digest is kept."""

    pdid: str
    account: str
    name: str
    certificate: str
    update_token: str


class Provisioning:
    """Provisions the routers of one database. CLOCK gives Unix seconds."""

    def __init__(self, engine: sa.Engine, settings: Settings, audit: Audit, authority: Authority,
                 clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._settings = settings
        self._audit = audit
        self._authority = authority
        self.clock = clock

    def issue(self, router: Router, who: Who) -> tuple[str, float]:
        """Return a secret for a router, and until when it is good; one that was issued before ends.

        :raises Refused: the router was deleted meanwhile (404)
        """
        secret, until = secrets.token_urlsafe(18), self.clock() + self._settings.secret_seconds
        with self._engine.begin() as connection:
            if not connection.execute(sa.update(routers).where(routers.c.pdid == router.pdid).values(
                    secret=digest(secret), secret_until=until)).rowcount:
                raise Refused(404, f"the router {router.pdid} was deleted")
            self._audit.note(connection, who, "router.provision", router.account, router.pdid, "a secret was issued")
        return secret, until

    def redeem(self, order: Order) -> Provisioned:
        """Make a device the router that its secret is for.

        :raises Refused: the secret is not good (any more) (403), the device or the router is provisioned already, or
            the device's clock is far off (409); nothing has changed then
        """
        with self._engine.begin() as connection:
            row = connection.execute(select(routers).where(
                routers.c.secret == digest(order.secret)).with_for_update()).one_or_none()
            if row is None:
                raise Refused(403, "this secret is not known (any more); get another one")
            self._check_clock(order)
            if row.secret_until == 0:
                if row.public_key != order.applicant.pem or row.seen is not None:
                    raise Refused(403, f"this secret was used already, for {row.pdid}; get another one")
                return self._answer(connection, row, row.certificate)
            self._check_time(row)
            if row.certificate and not order.again:
                raise Refused(409, f"{row.pdid} is provisioned already, since {utc(row.provisioned, 'day')}; to give "
                                   "its name to this device, provision again (--again)", state="provisioned")
            self._leave_others(connection, row, order)
            if row.certificate and row.machine != order.machine:
                moving.forget(connection, row.pdid)
            certificate = self._authority.certify(order.applicant, row.pdid)
            connection.execute(sa.update(routers).where(routers.c.pdid == row.pdid).values(
                public_key=order.applicant.pem, certificate=certificate, machine=order.machine, secret_until=0,
                provisioned=self.clock(), seen=None, connected=0, incident=""))
            self._audit.note(connection, Who(row.pdid, order.address), "router.provisioned", row.account, row.pdid,
                             "again" if row.certificate else "")
            return self._answer(connection, row, certificate)

    def _check_clock(self, order: Order) -> None:
        now = self.clock()
        if not abs(order.clock - now) <= CLOCK_SECONDS:
            raise Refused(409, f"the device's clock is off by {_span(abs(order.clock - now))}: it says "
                               f"{utc(order.clock)}, and it is {utc(now)}; set it, then provision again",
                          state="clock", time=now)

    def _check_time(self, row: Any) -> None:
        late = self.clock() - row.secret_until
        if late > 0:
            raise Refused(403, f"this secret expired {_span(late)} ago; get another one", state="expired")

    def _leave_others(self, connection: sa.Connection, row: Any, order: Order) -> None:
        """See to routers that this device was before: of the same account they end, of others they are told."""
        before = connection.execute(select(routers).where(
            routers.c.machine == order.machine, routers.c.pdid != row.pdid, routers.c.certificate != "").order_by(
                routers.c.pdid).with_for_update()).all()
        for other in before:
            own = other.account == row.account
            if not order.again:
                what = f"as {other.pdid}" if own else "by another account"
                raise Refused(409, f"this device is provisioned already, {what}; to make it {row.pdid}, provision "
                                   "again (--again)", state="provisioned")
            said = f"the device was provisioned again, as {row.pdid if own else 'a router of another account'}"
            ended = {"certificate": "", "public_key": "", "machine": "", "update_token": "", "provisioned": None,
                     "connected": 0}
            connection.execute(sa.update(routers).where(routers.c.pdid == other.pdid).values(
                incident=said, **(ended if own else {})))
            self._audit.note(connection, Who(row.pdid if own else other.pdid, order.address), "router.left",
                             other.account, other.pdid, said)

    def _answer(self, connection: sa.Connection, row: Any, certificate: str) -> Provisioned:
        token = secrets.token_urlsafe(24)
        connection.execute(sa.update(routers).where(routers.c.pdid == row.pdid).values(update_token=digest(token)))
        return Provisioned(row.pdid, row.account, row.name, certificate, token)


def _span(seconds: float) -> str:
    """Return how long something is, roughly.

    >>> [_span(seconds) for seconds in (5, 90, 7200, 1e6, 1e20)]
    ['5 seconds', '1 minute', '2 hours', '11 days', 'more than 1000 years']
    """
    if not seconds < 86400 * 365 * 1000:
        return "more than 1000 years"
    units = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
    unit, name = next((one for one in units if seconds >= one[0]), units[-1])
    count = int(seconds // unit)
    return f"{count} {name}" + "s" * (count != 1)
