"""The addresses for routers: list, make, show, delete; and provisioning, for who owns one, and for the device."""

from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from pdimage.server.asu import address
from pdimage.server.http import answer, client_of, in_thread
from pdimage.server.names import is_good
from pdimage.server.refusals import bad
from pdimage.server.registry.authority import read_request
from pdimage.server.registry.desk import PRIVATE, Registry
from pdimage.server.registry.provisioning import Order
from pdimage.server.registry.reading import read
from pdimage.server.registry.routers import Router

MACHINE = "^[0-9A-Za-z]{8,64}$"


class NewRouter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A router that is to be made."""

    name: str


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device asks with that is to be a router: see :class:`.provisioning.Order`."""

    secret: str
    csr: str
    machine: Annotated[str, msgspec.Meta(pattern=MACHINE)]
    clock: float
    again: bool = False


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
        await self.registry.hub.cut(router.pdid)
        return answer(None, 204)

    async def clear_incident(self, request: Request) -> Response:
        """Forget the incident that is noted for a router: somebody has seen to it."""
        caller = await self.registry.caller(request, "router.lead")
        router = await self.registry.router(caller, "router.lead", request.path_params["name"])
        await in_thread(self.routers.clear_incident, router, caller.who)
        return answer(None, 204)

    async def issue_secret(self, request: Request) -> Response:
        """Issue a secret, with which a device can become this router, once and soon."""
        caller = await self.registry.caller(request, "router.provision")
        router = await self.registry.router(caller, "router.provision", request.path_params["name"])
        certificate = await in_thread(self.registry.handed.server_certificate)
        secret, until = await in_thread(self.registry.provisioning.issue, router, caller.who)
        return answer({"pdid": router.pdid, "secret": secret, "expires": until, "server": self._address(request),
                       "server_certificate": certificate}, 200, PRIVATE)

    async def provision(self, request: Request) -> Response:
        """Make a device the router that its secret is for, and give it all that it needs as that."""
        asked = await read(request, self.registry.settings, Asked)
        order = Order(asked.secret, read_request(asked.csr), asked.machine, asked.clock, asked.again,
                      client_of(request))
        keyring, channel = await in_thread(self.registry.handed.keyring), await in_thread(self.registry.handed.channel)
        made = await in_thread(self.registry.provisioning.redeem, order)
        await self.registry.hub.cut(made.pdid)  # the link of who was this router before
        server = self._address(request)
        return answer({
            "pdid": made.pdid, "certificate": made.certificate, "authority": self.registry.authority.certificate,
            "server": server, "keyring": keyring.keys, "signers": keyring.signers, "channel": channel,
            "hawkbit": {"url": server, "tenant": made.account, "name": made.name, "token": made.update_token},
        }, 200, PRIVATE)

    def _address(self, request: Request) -> str:
        return address(request, self.registry.settings.url)


def _short(router: Router) -> dict[str, Any]:
    """Return a router for lists: what it tells of itself would make them long."""
    return {name: value for name, value in msgspec.structs.asdict(router).items() if name != "facts"}
