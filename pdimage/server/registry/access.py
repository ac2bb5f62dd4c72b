"""Who sends a request: a token in ``Authorization: Bearer``, or, for pages alone, in a cookie.

The API looks at no cookie, so a page of another origin can't act as who looks at it. Pages take a cookie, which
browsers send only from pages of this origin (``SameSite=Strict``), and what changes something must come from one.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import Response

from pdimage.server.http import client_of, in_thread
from pdimage.server.refusals import Refused
from pdimage.server.registry.audit import Who
from pdimage.server.registry.permissions import Action, Reach, Role, reach

if TYPE_CHECKING:
    from pdimage.server.registry.accounts import Accounts

COOKIE = "registry"
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True)
class Caller:
    """Somebody who proved who he is. ``token`` is the id of the token that did."""

    account: str
    role: Role
    token: str
    only_reads: bool
    address: str

    @property
    def who(self) -> Who:
        """Return how the audit log calls him."""
        return Who(self.account, self.address)

    def reach(self, action: Action) -> Reach:
        """Return how far he reaches with an action."""
        return reach(self.role, action, only_reads=self.only_reads)

    def check(self, action: Action) -> Reach:
        """Return how far he reaches with an action.

        :raises Refused: nowhere (403)
        """
        found = self.reach(action)
        if found == "none":
            why = "this token only reads" if self.only_reads and reach(self.role, action) != "none" else \
                f"the role {self.role} may not do that ({action})"
            raise Refused(403, f"{why}; log in with an account that may")
        return found

    def may(self, action: Action, account: str) -> bool:
        """Tell whether he may do that with what belongs to an account."""
        found = self.reach(action)
        return found == "all" or (found == "own" and account.lower() == self.account.lower())


class Access:
    """Finds the caller of a request."""

    def __init__(self, accounts: "Accounts") -> None:
        self._accounts = accounts

    async def caller(self, request: HTTPConnection) -> Caller:
        """Return who sent a request to the API.

        :raises Refused: he does not say, or his token is not good (any more) (401)
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Refused(401, "log in first: paradrop login", _CHALLENGE)
        found = await self._find(token.strip(), request)
        if found is None:
            raise Refused(401, "this login has ended; log in again: paradrop login", _CHALLENGE)
        return found

    async def visitor(self, request: HTTPConnection) -> Caller | None:
        """Return who looks at a page, None if nobody is logged in."""
        token = request.cookies.get(COOKIE, "")
        return await self._find(token, request) if token else None

    async def _find(self, token: str, request: HTTPConnection) -> Caller | None:
        return await in_thread(self._accounts.caller, token, client_of(request))


def check_same_origin(request: HTTPConnection) -> None:
    """Refuse what a browser sends for a page of another origin; a browser says of every POST where it comes from.

    :raises Refused: it is one (403)
    """
    origin = request.headers.get("origin", "")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") or \
            (origin and urlsplit(origin).netloc != request.headers.get("host", "")):
        raise Refused(403, "this form was sent by a page of another site")


def set_cookie(response: Response, token: str, seconds: float, *, secure: bool) -> None:
    """Give a browser its token, or take it (empty). SECURE: it came by HTTPS, so the cookie may leave by nothing else.
    """
    response.set_cookie(COOKIE, token, max_age=int(seconds) if token else 0, path="/", httponly=True,
                        samesite="strict", secure=secure)
