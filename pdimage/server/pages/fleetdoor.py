"""The way into the pages of the fleet: log in, register, log out; and what each of these pages checks first."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pdimage.server.http import client_of, in_thread
from pdimage.server.pages.inner import Api
from pdimage.server.pages.showing import Form, Handler, first, form, show, showing
from pdimage.server.refusals import Refused
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
            return await page(Visit(request, caller, fields))
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
            text, token, _ = await self.registry.log_in(first(fields, "name").strip(), first(fields, "password"),
                                                        client_of(request), "page")
        except Refused as refused:
            return self._login(f"{refused.error[:1].upper()}{refused.error[1:]}.", refused.status,
                               first(fields, "name"))
        answer = go("/fleet")
        set_cookie(answer, text, token.expires - self.registry.accounts.clock(), secure=request.url.scheme == "https")
        return answer

    async def ask_name(self, request: Request) -> Response:
        """Show the form for a new account."""
        return self._register("")

    async def register(self, request: Request) -> Response:
        """Make an account, and begin its session."""
        check_same_origin(request)
        fields = await form(request, self.registry.settings)
        asked = {name: first(fields, name).strip() for name in ("name", "invitation")}
        asked["password"] = first(fields, "password")
        try:
            if asked["password"] != first(fields, "again"):
                raise Refused(400, "the two passwords are not the same")
            await self.api.ask(request, "POST", "/accounts", asked)
        except Refused as refused:
            return self._register(f"{refused.error[:1].upper()}{refused.error[1:]}.", refused.status, asked["name"])
        text, token, _ = await self.registry.log_in(asked["name"], asked["password"], client_of(request), "page")
        answer = go("/fleet")
        set_cookie(answer, text, token.expires - self.registry.accounts.clock(), secure=request.url.scheme == "https")
        return answer

    async def log_out(self, visit: Visit) -> Response:
        """End the session."""
        caller = visit.caller
        await in_thread(self.registry.accounts.end_token, caller.account, caller.token, caller.who)
        answer = go("/fleet/login")
        set_cookie(answer, "", 0, secure=visit.request.url.scheme == "https")
        return answer

    def _login(self, mistake: str, status: int = 200, name: str = "") -> Response:
        return display("fleet_login.html", None, status, mistake=mistake, name=name)

    def _register(self, mistake: str, status: int = 200, name: str = "") -> Response:
        return display("fleet_register.html", None, status, mistake=mistake, name=name,
                       how=self.registry.settings.registration)


def display(template: str, caller: Caller | None, status: int = 200, **facts: Any) -> Response:
    """Return a page of the fleet."""
    return show(template, status, HEADERS, caller=caller, **facts)


def go(address: str) -> Response:
    """Return what leads the browser on."""
    return RedirectResponse(address, 303, HEADERS)
