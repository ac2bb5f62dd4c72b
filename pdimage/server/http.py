"""What every address of the server shares: reading a body within limits, JSON answers, errors, other origins' pages.

Whatever happens, a client gets JSON with ``error`` (and ``detail`` and ``status``, which the present-day clients read),
and no traceback.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from obstore.exceptions import BaseError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pdimage.server.refusals import Refused, unavailable
from pdimage.server.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

# Pages of any origin may ask: there are no accounts here, and LuCI's pages come from routers.
CORS = {"Access-Control-Allow-Origin": "*",
        "Access-Control-Expose-Headers": "X-Imagebuilder-Status, X-Build-Queue-Position, X-Queue-Position, "
                                         "X-Unknown-Package, X-Request-Hash, Retry-After"}
_PREFLIGHT = {**CORS, "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
              "Access-Control-Allow-Headers": "Content-Type", "Access-Control-Max-Age": "86400"}
_encode = msgspec.json.Encoder().encode


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return CONTENT as JSON; None: no body."""
    body = b"" if content is None else _encode(content)
    return Response(body, status, {**CORS, **(headers or {})}, None if content is None else "application/json")


def refusal(error: Refused) -> Response:
    """Return the answer to what is refused."""
    content = {"error": error.error, "detail": error.error, "status": error.status, **error.more}
    return answer(content, error.status, {name: value.encode("ascii", "replace").decode()
                                          for name, value in error.headers.items()})


def answering(handle: Handler) -> Handler:
    """Make a handler answer, whatever it raises."""
    async def endpoint(request: Request) -> Response:
        try:
            return await handle(request)
        except Refused as error:
            return refusal(error)
        except ClientDisconnect:
            return Response(status_code=400)
        except (sa.exc.OperationalError, sa.exc.TimeoutError, sa.exc.InterfaceError, BaseError) as error:
            log.warning("cannot answer %s: %s", request.url.path, error)
            return refusal(unavailable())
        except Exception:
            log.exception("cannot answer %s %s", request.method, request.url.path)
            return refusal(Refused(500, "the server has a bug; its log has the traceback"))
    return endpoint


async def http_error(request: Request, error: Exception) -> Response:
    """Answer what Starlette refuses by itself: an address or a method that is not there."""
    assert isinstance(error, HTTPException)
    return refusal(Refused(error.status_code, f"cannot {request.method} {request.url.path}: {error.detail}",
                           error.headers))


async def body(request: Request, settings: Settings) -> bytes:
    """Return the body, whatever its media type says: real clients send ``text/json``.

    :raises Refused: it is too long (413), or takes too long to come (408)
    """
    limit = settings.body_limit
    too_long = Refused(413, f"the request is longer than {limit} bytes", {"Connection": "close"})
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length[:20]) > limit:
        raise too_long
    parts, size = [], 0
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise too_long
                parts.append(part)
    except TimeoutError:
        raise Refused(408, f"the request did not come within {settings.body_seconds:g} seconds",
                      {"Connection": "close"}) from None
    return b"".join(parts)


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Do what may block (database, disk) beside the loop."""
    return await run_in_threadpool(work, *arguments)


def client_of(request: HTTPConnection) -> str:
    """Return who sent a request, as one client is counted."""
    return client_key(request.client.host if request.client else "")


@lru_cache(4096)
def client_key(host: str) -> str:
    """Return what counts as one client: an IPv4 address, or an IPv6 network of 64 bits, which one person has.

    >>> client_key("192.0.2.7"), client_key("2001:db8::5:1"), client_key("")
    ('192.0.2.7', '2001:db8::/64', 'unknown')
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64] or "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class Edge:
    """The outermost layer: answers other origins' questions, and takes ``//`` in a path as ``/``, as clients send it.

    WebSockets, of which there are many and for long, go straight to an application of their own.
    """

    def __init__(self, app: ASGIApp, websockets: ASGIApp) -> None:
        self.app = app
        self.websockets = websockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self.websockets(scope, receive, send)
            return
        if scope["method"] == "OPTIONS":
            await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, send)
            return
        path: str = scope["path"]
        if "//" in path:
            scope = {**scope, "path": "/" + "/".join(filter(None, path.split("/")))
                     + ("/" if path.endswith("/") else "")}
        await self.app(scope, receive, send)
