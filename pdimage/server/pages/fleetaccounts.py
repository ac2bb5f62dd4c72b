"""The pages about accounts: one's own, with its password and tokens; and for administrators those of all."""

from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from pdimage.server.pages.fleetdoor import Door, Visit, display, go, new_password, sentence
from pdimage.server.pages.showing import first, query
from pdimage.server.refusals import Refused
from pdimage.server.registry.permissions import ROLES

# How long a token may be good that is made here, in days.
DAYS = {7: "a week", 30: "a month", 365: "a year", 3650: "ten years"}
_DELETED = ("Its logins and tokens, its groups and its roll-outs go with it. An account that has routers is not "
            "deleted: they carry its name, so delete them first, and provision the devices again as routers of whoever "
            "takes them over.")


class AccountPages:
    """The handlers."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.api = door.api

    async def own(self, visit: Visit) -> Response:
        """Show the account of who looks at it."""
        return await self._own(visit)

    async def change_own(self, visit: Visit) -> Response:
        """Change the password, make a token or end one."""
        what = visit.field("action")
        try:
            if what == "password":
                return await self._change_password(visit)
            if what == "make":
                return await self._own(visit, made=await self._make_token(visit))
        except Refused as refused:
            return await self._own(visit, refused=refused)
        if what == "end":
            await self.api.ask(visit.request, "DELETE", f"/tokens/{quote(visit.field('token'), safe='')}")
            return go("/fleet/account")
        raise Refused(400, "this page has no such button")

    async def all(self, visit: Visit) -> Response:
        """Show all accounts."""
        return await self._all(visit)

    async def invite(self, visit: Visit) -> Response:
        """Issue a code with which somebody can register a name."""
        name = visit.field("name")
        code = await self.api.ask(visit.request, "POST", f"{_account(name)}/invite")
        return await self._all(visit, {**code, "name": name})

    async def one(self, visit: Visit) -> Response:
        """Show an account, for who leads it."""
        return await self._one(visit)

    async def lead(self, visit: Visit) -> Response:
        """Give an account a role, lock, unlock or delete it, or issue a code for it."""
        what, name = visit.field("action"), visit.path["account"]
        changes = {"role": {"role": visit.field("role")}, "lock": {"locked": True}, "unlock": {"locked": False}}
        if what in changes:
            await self.api.ask(visit.request, "PUT", _account(name), changes[what])
            return go(f"/fleet/accounts/{quote(name)}")
        if what == "reset":
            return await self._one(visit, await self.api.ask(visit.request, "POST", f"{_account(name)}/reset"))
        if what == "delete" and visit.field("sure") != "yes":
            name = (await self._find(visit))["name"]
            return display("fleet_delete.html", visit.caller, here="/fleet/accounts",
                           address=f"/fleet/accounts/{name}", what=f"the account {name}", means=_DELETED)
        if what == "delete":
            await self.api.ask(visit.request, "DELETE", _account(name))
            return go("/fleet/accounts")
        raise Refused(400, "this page has no such button")

    async def _change_password(self, visit: Visit) -> Response:
        """Change the password, and begin the browser's session anew."""
        visit.caller.check("account.change")
        text, token, _ = await self.door.registry.change_password(
            visit.caller, first(visit.fields, "old"), new_password(visit.fields), "page")
        return self.door.admit(go("/fleet/account?changed"), visit.request, text, token.expires)

    async def _make_token(self, visit: Visit) -> Any:
        days = next((days for days in DAYS if visit.field("days") == str(days)), 0)
        return await self.api.ask(visit.request, "POST", "/tokens", {
            "label": visit.field("label"), "read": visit.field("read") == "yes", "days": days})

    async def _own(self, visit: Visit, *, made: Any = None, refused: Refused | None = None) -> Response:
        found = await self.api.ask(visit.request, "GET", "/tokens")
        return display("fleet_account.html", visit.caller, refused.status if refused else 200, tokens=found["tokens"],
                       made=made, mistake=sentence(refused) if refused else "", days=DAYS,
                       changed="changed" in query(visit.request))

    async def _all(self, visit: Visit, code: Any = None) -> Response:
        found = await self.api.ask(visit.request, "GET", "/accounts")
        return display("fleet_accounts.html", visit.caller, accounts=found["accounts"], code=code)

    async def _one(self, visit: Visit, code: Any = None) -> Response:
        return display("fleet_account_of.html", visit.caller, one=await self._find(visit), code=code, roles=ROLES)

    async def _find(self, visit: Visit) -> Any:
        name = visit.path["account"]
        found = await self.api.ask(visit.request, "GET", "/accounts")
        for one in found["accounts"]:
            if one["name"].lower() == name.lower():
                return one
        raise Refused(404, f"there is no account {name[:40]!r}")


def _account(name: str) -> str:
    return f"/accounts/{quote(name, safe='')}"
