"""The addresses for accounts: register, log in and out, passwords, tokens; what administrators do; the audit log."""

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from pdimage.server.http import answer, client_of, in_thread
from pdimage.server.names import is_good
from pdimage.server.refusals import Refused
from pdimage.server.registry.accounts import MOST_DAYS, Account, Token, check_name, check_password
from pdimage.server.registry.audit import Who
from pdimage.server.registry.desk import PRIVATE, Registry
from pdimage.server.registry.lockout import of_address, of_name
from pdimage.server.registry.permissions import Role
from pdimage.server.registry.reading import number, read

# The number of a line of the audit log that is never reached.
_NEWEST = 2**31 - 1


class Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who wants to log in."""

    name: str
    password: str


class Newcomer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who wants an account. ``invitation``: the code of an administrator, where one is wanted."""

    name: str
    password: str
    invitation: str = ""


class Reset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who has a code and sets a password."""

    name: str
    code: str
    password: str


class NewPassword(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another password for the one that was."""

    old: str
    new: str


class NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token that is wanted. ``read``: it only reads. ``days``: how long it is good."""

    label: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[\x20-\x7e\xa0-\ud7ff]+$")]
    read: bool = False
    days: Annotated[int, msgspec.Meta(ge=1, le=MOST_DAYS)] = 365


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an administrator changes of an account."""

    role: Role | None = None
    locked: bool | None = None


class AccountsApi:
    """The handlers."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.accounts = registry.accounts
        self.settings = registry.settings

    async def register(self, request: Request) -> Response:
        """Make an account."""
        asked = await read(request, self.settings, Newcomer)
        if asked.invitation:
            name = await self._spend_code(request, Reset(asked.name, asked.invitation, asked.password))
            return answer({"name": name}, 201)
        if self.settings.registration != "open":
            raise Refused(403, "this server makes accounts only for those whom an administrator invited; ask for an "
                               "invitation" if self.settings.registration == "invited" else
                               "this server makes no accounts for who asks; ask its administrator")
        name, password = check_name(asked.name, self.settings), check_password(asked.password)
        await in_thread(self.registry.lockout.attempt, f"register {client_of(request)}")
        digest = await self.registry.passwords.digest(password)
        made = await in_thread(self.accounts.add, name, digest, "user", Who(name, client_of(request)))
        return answer({"name": made.name}, 201)

    async def login(self, request: Request) -> Response:
        """Log in: give a token for a name and a password."""
        asked = await read(request, self.settings, Credentials)
        found = await self.registry.log_in(asked.name, asked.password, client_of(request), "login")
        return _fresh(*found)

    async def logout(self, request: Request) -> Response:
        """Log out: end the token that this is asked with."""
        caller = await self.registry.access.caller(request)
        await in_thread(self.accounts.end_token, caller.account, caller.token, caller.who)
        return answer(None, 204)

    async def account(self, request: Request) -> Response:
        """Show the account that asks."""
        caller = await self.registry.caller(request, "account.read")
        return answer({"name": caller.account, "role": caller.role, "read": caller.only_reads}, 200, PRIVATE)

    async def change_password(self, request: Request) -> Response:
        """Change the password; all tokens end, and a new login begins."""
        caller = await self.registry.caller(request, "account.change")
        asked = await read(request, self.settings, NewPassword)
        return _fresh(*await self.registry.change_password(caller, asked.old, asked.new, "login"))

    async def reset(self, request: Request) -> Response:
        """Set a password with a code that an administrator issued; all tokens end."""
        return answer({"name": await self._spend_code(request, await read(request, self.settings, Reset))})

    async def tokens(self, request: Request) -> Response:
        """List the tokens of the account that asks."""
        caller = await self.registry.caller(request, "account.read")
        return answer({"tokens": await in_thread(self.accounts.tokens, caller.account)}, 200, PRIVATE)

    async def make_token(self, request: Request) -> Response:
        """Make a token for a program; its text is shown this once."""
        caller = await self.registry.caller(request, "account.change")
        asked = await read(request, self.settings, NewToken)
        text, token = await in_thread(lambda: self.accounts.new_token(
            caller.account, "made", caller.who, read=asked.read, label=asked.label, days=asked.days))
        return answer({"token": text, **msgspec.structs.asdict(token)}, 201, PRIVATE)

    async def end_token(self, request: Request) -> Response:
        """End a token of the account that asks."""
        caller = await self.registry.caller(request, "account.change")
        token = request.path_params["token"]
        if not is_good("token", token) or not await in_thread(
                self.accounts.end_token, caller.account, token, caller.who):
            raise Refused(404, "this account has no such token (any more)")
        return answer(None, 204)

    async def accounts_list(self, request: Request) -> Response:
        """List all accounts."""
        await self.registry.caller(request, "accounts.read")
        return answer({"accounts": await in_thread(self.accounts.all)}, 200, PRIVATE)

    async def change_account(self, request: Request) -> Response:
        """Give an account another role, lock or unlock it."""
        caller = await self.registry.caller(request, "accounts.change")
        asked = await read(request, self.settings, Change)
        return answer(await in_thread(self.accounts.change, request.path_params["name"], asked.role, asked.locked,
                                      caller.who))

    async def delete_account(self, request: Request) -> Response:
        """Forget an account that has no routers, with its groups and roll-outs."""
        caller = await self.registry.caller(request, "accounts.delete")
        await in_thread(self.accounts.delete, request.path_params["name"], caller.who)
        return answer(None, 204)

    async def reset_account(self, request: Request) -> Response:
        """Issue a code with which an account's password can be set once."""
        caller = await self.registry.caller(request, "accounts.change")
        code, until = await in_thread(self.accounts.new_code, request.path_params["name"], caller.who)
        return answer({"code": code, "expires": until}, 200, PRIVATE)

    async def invite(self, request: Request) -> Response:
        """Issue a code with which somebody can register a name."""
        caller = await self.registry.caller(request, "accounts.change")
        name = check_name(request.path_params["name"], self.settings)
        code, until = await in_thread(self.accounts.invite, name, caller.who)
        return answer({"code": code, "expires": until}, 201, PRIVATE)

    async def audit(self, request: Request) -> Response:
        """Show who changed what, the newest first: of the account that asks, or of all."""
        caller = await self.registry.caller(request, "audit.read")
        one = caller.account if caller.reach("audit.read") == "own" else None
        before = number(request, "before", _NEWEST, _NEWEST)
        entries = await in_thread(self.registry.audit.read, one, before, number(request, "limit", 100, 1000))
        return answer({"entries": entries}, 200, PRIVATE)

    async def _spend_code(self, request: Request, asked: Reset) -> str:
        check_password(asked.password)
        name, address = of_name(asked.name), of_address(client_of(request))
        await in_thread(self.registry.lockout.attempt, name, address)
        digest = ""
        if await in_thread(self.accounts.has_code, asked.name, asked.code):
            digest = await self.registry.passwords.digest(asked.password)
        account = await in_thread(self.accounts.spend_code, asked.name, asked.code, digest, client_of(request))
        await in_thread(self.registry.lockout.passed, address, name)
        return account


def _fresh(text: str, token: Token, account: Account) -> Response:
    return answer({"token": text, "id": token.id, "expires": token.expires, "name": account.name, "role": account.role},
                  200, PRIVATE)
