"""The address that routers make their links to: ``/registry/v1/link``."""

import asyncio
import logging
import secrets
import time
from contextlib import suppress
from urllib.parse import urlsplit

import sqlalchemy as sa
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from paradrop.backend.link.messages import (
    BROKEN,
    BUSY,
    HELLO_SECONDS,
    PATH,
    Broken,
    Challenge,
    Hello,
    Later,
    Welcome,
    encode,
    from_router,
)
from pdimage.server.http import answering, client_of, refusal
from pdimage.server.refusals import Refused
from pdimage.server.registry.admission import Admission
from pdimage.server.registry.desk import Registry
from pdimage.server.registry.hub import Hub, Refuse
from pdimage.server.registry.link import Link, Socket
from pdimage.server.registry.tunnel import METHODS, Tunnel

log = logging.getLogger(__name__)


def routes(registry: Registry) -> list[BaseRoute]:
    """Return the route of the links, and those that lead through them. What a router answers to there, its own OpenAPI
    document tells, ``…/api/v1/openapi.json``."""
    ask = Tunnel(registry).ask_router
    return [
        WebSocketRoute(PATH, LinkEndpoint(registry.hub, registry.admission, registry.settings.url)),
        *(Route(f"/registry/v1/routers/{{name}}/{face}/{{rest:path}}", answering(ask), methods=METHODS)
          for face in ("api", "v1")),
    ]


class LinkEndpoint:
    """An ASGI application for WebSockets. URL: the server's; if it is empty its host is what routers ask for."""

    def __init__(self, hub: Hub, admission: Admission, url: str) -> None:
        self._hub = hub
        self._admission = admission
        self._host = urlsplit(url).hostname if url else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        address = client_of(HTTPConnection(scope))
        if seconds := self._hub.may_come(address, asyncio.get_running_loop().time()):
            await _deny(send, seconds)
            return
        await send({"type": "websocket.accept"})
        socket = Socket(scope, receive, send)
        with self._admission.proving(address):
            link = await self._prove(socket, self._host or _host(scope), address)
        if link:
            await self._hub.attend(link)

    async def _prove(self, socket: Socket, host: str, address: str) -> Link | None:
        """Let a router in, or end its link."""
        nonce = secrets.token_hex(32)
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                await socket.say(Challenge(nonce))
                frame = await socket.read()
            if frame is None:
                return None
            hello = from_router(frame) if isinstance(frame, str) else None
            if not isinstance(hello, Hello):
                raise Broken("the first message is no hello")
            link = await self._hub.enter(socket, hello, nonce, host, address)
        except Broken as error:
            self._hub.metrics.refused("broken")
            await socket.close(BROKEN, str(error))
        except TimeoutError:
            self._hub.metrics.refused("broken")
            await socket.close(BROKEN, f"no hello within {HELLO_SECONDS:g} seconds")
        except OSError:
            pass  # it is gone
        except Refuse as refused:
            await socket.close(refused.code, str(refused))
        except sa.exc.SQLAlchemyError as error:
            log.warning("cannot let a router in: %s", str(error).partition("\n")[0])
            await socket.close(BUSY, encode(Later(30, "the server can't reach its database")).decode())
        else:
            return await self._welcome(socket, link)
        return None

    async def _welcome(self, socket: Socket, link: Link) -> Link:
        with suppress(OSError):  # who reads it will see
            await socket.say(Welcome(self._hub.seconds, time.time()))
        return link


async def _deny(send: Send, seconds: int) -> None:
    """Refuse a WebSocket before there is one, which costs the least."""
    answer = refusal(Refused(503, f"too many routers come at once; come back in {seconds} seconds",
                             {"Retry-After": str(seconds), "Connection": "close"}))
    await send({"type": "websocket.http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
    await send({"type": "websocket.http.response.body", "body": answer.body})


def _host(scope: Scope) -> str:
    """Return the host that a router asks for, without the port."""
    host = HTTPConnection(scope).headers.get("host", "")
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
