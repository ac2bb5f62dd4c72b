"""Asks the registry's own API, in this process, as who looks at a page: so pages may exactly what the API lets him.

The visitor's token, which his browser sends in a cookie, goes on as the API takes it; addresses and proxies stay.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Scope

from pdimage.server.http import answering, http_error
from pdimage.server.refusals import Refused
from pdimage.server.registry.access import COOKIE
from pdimage.server.registry.fleet.desk import Fleet
from pdimage.server.registry.fleet.operations import operations as fleet_operations
from pdimage.server.registry.operations import HERE
from pdimage.server.registry.operations import operations as registry_operations
from pdimage.server.registry.tunnel import routes as tunnel_routes

# What is read of an answer: routers' logs may be long.
MOST = 1 << 20


class Api:
    """The API, for the pages of one server."""

    def __init__(self, fleet: Fleet) -> None:
        found = [*registry_operations(fleet.registry), *fleet_operations(fleet)]
        routes: Sequence[BaseRoute] = [Route(one.path, answering(one.handler), methods=[one.method]) for one in found]
        self._app = Starlette(routes=[*routes, *tunnel_routes(fleet.registry)],
                              exception_handlers={HTTPException: http_error})

    async def ask(self, visit: Request, method: str, path: str, body: object = None, **query: object) -> Any:
        """Return what the API answers, as JSON says it; None where there is no body.

        :raises Refused: as the API refuses, or it answers more than is read
        """
        content = await self.text(visit, method, path, body, **query)
        if len(content) == MOST:
            raise Refused(502, "this is too long for a page; the command paradrop shows all of it")
        return msgspec.json.decode(content) if content else None

    async def text(self, visit: Request, method: str, path: str, body: object = None, **query: object) -> bytes:
        """Return what the API answers, its first :data:`MOST` bytes.

        :raises Refused: as the API refuses
        """
        sent = msgspec.json.encode(body) if body is not None else b""
        messages: list[Message] = [{"type": "http.request", "body": sent}]
        status, content = 0, bytearray()

        async def receive() -> Message:
            if messages:
                return messages.pop()
            while (event := await visit.receive())["type"] != "http.disconnect":
                pass  # the visitor's own request, which was read
            return event

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            content.extend(message.get("body", b"")[:MOST - len(content)])

        await self._app(_scope(visit, method, HERE + path, urlencode(query), len(sent)), receive, send)
        if status >= 400:
            raise _refused(status, bytes(content))
        return bytes(content)


def _scope(visit: Request, method: str, path: str, query: str, length: int) -> Scope:
    token = visit.cookies.get(COOKIE, "")
    kept = [(name, value) for name, value in visit.headers.raw if name in (b"host", b"x-forwarded-for", b"forwarded",
                                                                          b"x-forwarded-proto", b"x-real-ip")]
    headers = [*kept, (b"authorization", f"Bearer {token}".encode("latin-1", "replace")),
               (b"content-length", str(length).encode())]
    return {**{key: value for key, value in visit.scope.items() if key not in ("path_params", "endpoint", "route")},
            "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "headers": headers, "root_path": "", "app_root_path": ""}


def _refused(status: int, content: bytes) -> Refused:
    try:
        error = str(msgspec.json.decode(content).get("error") or msgspec.json.decode(content).get("detail"))
    except (msgspec.DecodeError, AttributeError):
        error = f"the answer was {status}"
    return Refused(status, error)
