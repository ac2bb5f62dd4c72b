"""The way into the pages of the fleet: log in, register, set a password with a code, log out; and what each of these
pages checks first."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pdimage.server.http import client_of, in_thread
from pdimage.server.pages.inner import Api
from pdimage.server.pages.showing import Form, Handler, first, form, show, showing
from pdimage.server.refusals import Refused, bad
from pdimage.server.registry.access import Caller, check_same_origin, set_cookie
from pdimage.server.registry.fleet.desk import Fleet

# The browser tells us where a form comes from, and nobody else.
HEADERS = {"Referrer-Policy": "same-origin"}


@dataclass(frozen=True)
class Visit:
    """A request of somebody who is logged in. ``fields``: of the form that was sent."""

    request: Request
    caller: Caller
    fields: Form

    def field(self, name: str) -> str:
        """Return a field of the form, empty if it is not there."""
        return first(self.fields, name).strip()

    @property
    def path(self) -> Mapping[str, str]:
        """What the address says."""
        return self.request.path_params


Page = Callable[[Visit], Awaitable[Response]]


class Door:
    """Lets people in."""

    def __init__(self, fleet: Fleet, api: Api) -> None:
        self.registry = fleet.registry
        self.api = api

    def inside(self, page: Page) -> Handler:
        """Return the handler of a page for those who are logged in; others are led to the login."""
        async def endpoint(request: Request) -> Response:
            if request.method == "POST":
                check_same_origin(request)
            caller = await self.registry.access.visitor(request)
            if caller is None:
                return go("/fleet/login")
            fields = await form(request, self.registry.settings) if request.method == "POST" else {}
            try:
                return await page(Visit(request, caller, fields))
            except Refused as refused:
                return display("fleet_error.html", caller, refused.status, text=refused.error)
        return showing(endpoint)

    async def ask_password(self, request: Request) -> Response:
        """Show the login."""
        if await self.registry.access.visitor(request):
            return go("/fleet")
        return self._login("")

    async def log_in(self, request: Request) -> Response:
        """Begin a session."""
        check_same_origin(request)
        fields = await form(request, self.registry.settings)
        try:
            return await self._begin(request, first(fields, "name").strip(), first(fields, "password"))
        except Refused as refused:
            return self._login(sentence(refused), refused.status, first(fields, "name"))

    async def ask_name(self, request: Request) -> Response:
        """Show the form for a new account."""
        return self._register("")

    async def register(self, request: Request) -> Response:
        """Make an account, and begin its session."""
        check_same_origin(request)
        fields = await form(request, self.registry.settings)
        asked = {name: first(fields, name).strip() for name in ("name", "invitation")}
        try:
            asked["password"] = new_password(fields)
            await self.api.ask(request, "POST", "/accounts", asked)
        except Refused as refused:
            return self._register(sentence(refused), refused.status, asked["name"])
        return await self._begin(request, asked["name"], asked["password"])

    async def ask_code(self, request: Request) -> Response:
        """Show the form for who has a code of an administrator."""
        return self._reset("")

    async def reset(self, request: Request) -> Response:
        """Set a password with a code, and begin a session."""
        check_same_origin(request)
        fields = await form(request, self.registry.settings)
        asked = {name: first(fields, name).strip() for name in ("name", "code")}
        try:
            asked["password"] = new_password(fields)
            await self.api.ask(request, "POST", "/reset", asked)
            return await self._begin(request, asked["name"], asked["password"])
        except Refused as refused:
            return self._reset(sentence(refused), refused.status, asked["name"])

    async def log_out(self, visit: Visit) -> Response:
        """End the session."""
        caller = visit.caller
        await in_thread(self.registry.accounts.end_token, caller.account, caller.token, caller.who)
        answer = go("/fleet/login")
        set_cookie(answer, "", 0, secure=visit.request.url.scheme == "https")
        return answer

    def admit(self, answer: Response, request: Request, token: str, expires: float) -> Response:
        """Give a browser its token with an answer."""
        set_cookie(answer, token, expires - self.registry.accounts.clock(), secure=request.url.scheme == "https")
        return answer

    async def _begin(self, request: Request, name: str, password: str) -> Response:
        text, token, _ = await self.registry.log_in(name, password, client_of(request), "page")
        return self.admit(go("/fleet"), request, text, token.expires)

    def _login(self, mistake: str, status: int = 200, name: str = "") -> Response:
        return display("fleet_login.html", None, status, mistake=mistake, name=name)

    def _register(self, mistake: str, status: int = 200, name: str = "") -> Response:
        return display("fleet_register.html", None, status, mistake=mistake, name=name,
                       how=self.registry.settings.registration)

    def _reset(self, mistake: str, status: int = 200, name: str = "") -> Response:
        return display("fleet_reset.html", None, status, mistake=mistake, name=name)


def new_password(fields: Form) -> str:
    """Return the password that a form has twice.

    :raises Refused: it has two
    """
    if first(fields, "password") != first(fields, "again"):
        raise bad("the two passwords are not the same")
    return first(fields, "password")


def sentence(refused: Refused) -> str:
    """Return what was refused, for people."""
    return f"{refused.error[:1].upper()}{refused.error[1:]}."


def display(template: str, caller: Caller | None, status: int = 200, **facts: Any) -> Response:
    """Return a page of the fleet."""
    return show(template, status, HEADERS, caller=caller, **facts)


def go(address: str) -> Response:
    """Return what leads the browser on."""
    return RedirectResponse(address, 303, HEADERS)
