"""The addresses for routers: list, make, show, delete."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from pdimage.server.http import answer, in_thread
from pdimage.server.names import is_good
from pdimage.server.refusals import bad
from pdimage.server.registry.desk import PRIVATE, Registry
from pdimage.server.registry.reading import read
from pdimage.server.registry.routers import Router


class NewRouter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A router that is to be made."""

    name: str


class RoutersApi:
    """The handlers."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.routers = registry.routers

    async def routers_list(self, request: Request) -> Response:
        """List the routers of the account that asks, or of all."""
        caller = await self.registry.caller(request, "router.read")
        one = caller.account if caller.reach("router.read") == "own" else None
        found = await in_thread(self.routers.all, one)
        return answer({"routers": [_short(router) for router in found]}, 200, PRIVATE)

    async def make_router(self, request: Request) -> Response:
        """Make a router by name."""
        caller = await self.registry.caller(request, "router.make")
        asked = await read(request, self.registry.settings, NewRouter)
        if not is_good("router", asked.name):
            raise bad("the name of a router must have 3 to 32 letters and digits (a-z, A-Z, 0-9)")
        return answer(_short(await in_thread(self.routers.make, caller.account, asked.name, caller.who)), 201)

    async def show_router(self, request: Request) -> Response:
        """Show a router, with all that it tells of itself."""
        caller = await self.registry.caller(request, "router.read")
        return answer(await self.registry.router(caller, "router.read", request.path_params["name"]), 200, PRIVATE)

    async def delete_router(self, request: Request) -> Response:
        """Forget a router; it must be made and provisioned again to come back."""
        caller = await self.registry.caller(request, "router.delete")
        router = await self.registry.router(caller, "router.delete", request.path_params["name"])
        await in_thread(self.routers.delete, router, caller.who)
        return answer(None, 204)


def _short(router: Router) -> dict[str, Any]:
    """Return a router for lists: what it tells of itself would make them long."""
    return {name: value for name, value in msgspec.structs.asdict(router).items() if name != "facts"}
