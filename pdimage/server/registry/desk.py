"""What the addresses of the registry work with: its stores, who calls, and logging in."""

from dataclasses import dataclass

import sqlalchemy as sa
from starlette.requests import HTTPConnection

from pdimage.server.http import in_thread
from pdimage.server.names import shown
from pdimage.server.refusals import Refused
from pdimage.server.registry.access import Access, Caller
from pdimage.server.registry.accounts import Account, Accounts, Kind, Token, check_password
from pdimage.server.registry.admission import Admission
from pdimage.server.registry.audit import Audit, Who
from pdimage.server.registry.authority import Authority, open_authority
from pdimage.server.registry.handed import Handed
from pdimage.server.registry.hub import Hub
from pdimage.server.registry.lockout import Lockout, of_address, of_name
from pdimage.server.registry.passwords import LONGEST, Passwords
from pdimage.server.registry.permissions import Action
from pdimage.server.registry.presence import Presence
from pdimage.server.registry.provisioning import Provisioning
from pdimage.server.registry.routers import Router, Routers, full_name
from pdimage.server.registry.siblings import Siblings, machine_name
from pdimage.server.settings import Settings

# For answers that nobody may keep.
PRIVATE = {"Cache-Control": "no-store"}


@dataclass(frozen=True)
class Registry:
    """Everything behind ``/registry/v1``."""

    settings: Settings
    engine: sa.Engine
    audit: Audit
    accounts: Accounts
    access: Access
    lockout: Lockout
    passwords: Passwords
    routers: Routers
    authority: Authority
    provisioning: Provisioning
    handed: Handed
    admission: Admission
    siblings: Siblings
    hub: Hub

    async def caller(self, request: HTTPConnection, action: Action) -> Caller:
        """Return who sends a request to the API, and may do that, at least with what is his own.

        :raises Refused: he is nobody (401), or may not (403)
        """
        found = await self.access.caller(request)
        found.check(action)
        return found

    async def router(self, caller: Caller, action: Action, name: str) -> Router:
        """Return a router that somebody may do that with. NAME is that of one of his own, or a pdid.

        :raises Refused: he may not do it at all (403), or there is none of this name that he may do it with (404)
        """
        caller.check(action)
        pdid = full_name(caller.account, name)
        found = await in_thread(self.routers.find, pdid) if pdid else None
        if found is None or not caller.may(action, found.account):
            raise Refused(404, f"there is no router {shown(name)}, or it is not yours; see: paradrop list")
        return found

    async def log_in(self, name: str, password: str, address: str, kind: Kind) -> tuple[str, Token, Account]:
        """Return a new token for who knows the password, and the account.

        :raises Refused: he does not (401), the account is locked (403), too many attempts (429) or logins (503)
        """
        account = await self.prove(name, password, address)
        text, token = await in_thread(self.accounts.new_token, account.name, kind, Who(account.name, address))
        return text, token, account

    async def change_password(self, caller: Caller, old: str, new: str, kind: Kind) -> tuple[str, Token, Account]:
        """Give the account of a caller another password; all tokens end. Return a new one, and the account.

        :raises Refused: the old password is wrong (401), the new one can be none (400), and as :meth:`log_in`
        """
        account = await self.prove(caller.account, old, caller.address)
        digest = await self.passwords.digest(check_password(new))
        await in_thread(self.accounts.set_password, account.name, digest, caller.who)
        text, token = await in_thread(self.accounts.new_token, account.name, kind, caller.who)
        return text, token, account

    async def prove(self, name: str, password: str, address: str) -> Account:
        """Return the account of who knows its password.

        :raises Refused: as :meth:`log_in`
        """
        await in_thread(self.lockout.attempt, of_name(name), of_address(address))
        found = await in_thread(self.accounts.find, name)
        right = await self.passwords.are_same(found[1] if found else "", password[:LONGEST + 1])
        if not right or found is None or len(password) > LONGEST:
            raise Refused(401, "the name or the password is wrong")
        await in_thread(self.lockout.passed, of_address(address), of_name(name))
        return found[0]


def make_registry(settings: Settings, engine: sa.Engine, slot: int = 0) -> Registry:
    """Return the registry that lies in a database, which must be in its present form, for the serving process SLOT.

    :raises SystemSetup: its authority can't be used
    """
    audit = Audit(engine, settings.keep_audit_days)
    accounts = Accounts(engine, settings, audit)
    authority = open_authority(settings.root)
    admission = Admission(settings.link_rate)
    siblings = Siblings(settings.root / "links", machine_name(settings), slot)
    hub = Hub(Presence(engine, audit, siblings.name), admission, siblings, seconds=settings.link_seconds,
              most=settings.links)
    return Registry(settings, engine, audit, accounts, Access(accounts),
                    Lockout(engine, settings.login_failures, settings.lockout_seconds), Passwords(),
                    Routers(engine, settings, audit), authority,
                    Provisioning(engine, settings, audit, authority), Handed(settings), admission, siblings, hub)
