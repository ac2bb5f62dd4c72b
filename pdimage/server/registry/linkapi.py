"""The address that routers make their links to: ``/registry/v1/link``."""

import asyncio
import logging
import secrets
import time
from contextlib import suppress
from functools import lru_cache
from urllib.parse import urlsplit

import sqlalchemy as sa
from starlette.requests import HTTPConnection
from starlette.responses import Response
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
    encode,
    from_router,
)
from pdimage.server.http import client_of, refusal
from pdimage.server.refusals import Refused
from pdimage.server.registry.desk import Registry
from pdimage.server.registry.hub import Refuse
from pdimage.server.registry.link import Link, Socket

log = logging.getLogger(__name__)


class LinkEndpoint:
    """An ASGI application for WebSockets, of which routers' links are the only ones."""

    def __init__(self, registry: Registry) -> None:
        self._hub = registry.hub
        self._admission = registry.admission
        url = registry.settings.url  # if it is empty, what routers ask for counts
        self._host = urlsplit(url).hostname if url else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        if scope["path"] != PATH:
            await send({"type": "websocket.close"})
            return
        address, host = client_of(HTTPConnection(scope)), self._host or _host(scope)
        if seconds := self._hub.may_come(asyncio.get_running_loop().time(), address):
            answer = later(seconds)
            await send({"type": "websocket.http.response.start", "status": answer.status_code,
                        "headers": answer.raw_headers})
            await send({"type": "websocket.http.response.body", "body": answer.body})
            return
        await send({"type": "websocket.accept"})
        socket = Socket(scope, receive, send)
        with self._admission.proving(address):
            link = await self._prove(socket, host, address)
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
            with suppress(OSError):  # who reads it will see
                await link.welcome(self._hub.seconds, time.time())
            return link
        return None


def later(seconds: int) -> Response:
    """Return what is answered to a router that is to come back, instead of a WebSocket."""
    return refusal(Refused(503, f"too many routers come at once; come back in {seconds} seconds",
                           {"Retry-After": str(seconds), "Connection": "close"}))


@lru_cache(512)
def early_refusal(seconds: int) -> bytes:
    """Return the same as it goes over the wire: for a router that nothing is known of yet, which costs the least."""
    answer = later(seconds)
    head = [b"HTTP/1.1 503 Service Unavailable", *(b": ".join(header) for header in answer.raw_headers), b"", b""]
    return b"\r\n".join(head) + bytes(answer.body)


def _host(scope: Scope) -> str:
    """Return the host that a router asks for, without the port."""
    host = HTTPConnection(scope).headers.get("host", "")
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
