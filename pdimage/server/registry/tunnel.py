"""Requests for a router's own API, through its link: ``/registry/v1/routers/NAME/api/…`` and ``…/v1/…``.

Bodies stream both ways. Who reads slowly stops his own request alone, and costs the router the 64 KiB of its credit.
What is asked of a router is its owner's: an answer is never a page that could act for who looks at it.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from paradrop.backend.link.messages import STREAMS, Answer, Headers
from pdimage.server.http import answering, in_thread, refusal
from pdimage.server.refusals import Refused
from pdimage.server.registry.access import Caller
from pdimage.server.registry.desk import Registry
from pdimage.server.registry.link import Full, Link, TooLong
from pdimage.server.registry.linkmetrics import LinkMetrics
from pdimage.server.registry.permissions import Action
from pdimage.server.registry.routers import Router, full_name
from pdimage.server.registry.streams import Lost

# How long a router may take to begin its answer, from the last that it was sent.
ANSWER_SECONDS = 120.0
# How often it is asked whether a client is there from whom nothing is read for a while.
GONE_SECONDS = 1.0
# How long a client may take nothing of an answer that is there.
STALL_SECONDS = 300.0

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
_TARGET = re.compile(r"/+registry/+v1/+routers/+[^/]+(/(?:api|v1)/.*)")
# What belongs to one connection, or to this server, and is not passed on.
_HOP = frozenset({"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te",
                  "trailer", "transfer-encoding", "upgrade", "expect"})
_OURS = _HOP | {"host", "authorization", "cookie", "origin", "referer", "forwarded", "x-forwarded-for",
                "x-forwarded-proto", "x-forwarded-host"}
_THEIRS = _HOP | {"set-cookie", "date", "server", "content-security-policy", "x-content-type-options"}
_GUARD = [(b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"sandbox")]
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# Marks what another machine has passed on, so that it is not passed on again.
_PASSED_ON = "x-link-passed-on"


def routes(registry: Registry) -> list[BaseRoute]:
    """Return the routes that lead through links. What a router answers to there, its own OpenAPI document tells,
    ``…/api/v1/openapi.json``."""
    ask = answering(Tunnel(registry).ask_router)
    return [Route(f"/registry/v1/routers/{{name}}/{face}/{{rest:path}}", ask, methods=METHODS)
            for face in ("api", "v1")]


class Exchange(Protocol):
    """A request that is under way to a router, through its link here or through another process."""

    async def send(self, content: bytes) -> None:
        """Send some of the body."""

    async def end(self) -> None:
        """Say that the body is complete."""

    async def head(self) -> Answer:
        """Return the head of the answer."""

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield the answer's body."""

    def abandon(self, why: str) -> None:
        """Make all that waits stop."""


class Tunnel:
    """The handler."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    async def ask_router(self, request: Request) -> Response:
        """Ask a router's own API."""
        reads = request.method in ("GET", "HEAD")
        action: Action = "router.read" if reads else "router.lead"
        caller = await self.registry.caller(request, action)
        router = await self._router(caller, action, request.path_params["name"])
        target = _TARGET.fullmatch(request.scope["raw_path"].decode("latin-1"))
        if target is None:
            raise Refused(404, "there is no such address; those of a router begin with api/ or v1/")
        if not reads and not _is_inner(request):
            await in_thread(self._note, caller, router, f"{request.method} {target[1]}"[:200])
        query = request.scope["query_string"].decode("latin-1")
        opened = await self._open(request, router, caller, target[1] + (f"?{query}" if query else ""))
        has_gone = request.scope["extensions"]["connection"]["has_gone"]
        return Carried(opened, router.pdid, has_gone, self.registry.hub.metrics)

    async def _router(self, caller: Caller, action: Action, name: str) -> Link | Router:
        """Return the router; the database need not be asked for one that is linked here."""
        link = self.registry.hub.links.get(full_name(caller.account, name))
        if link and caller.may(action, link.account):
            return link
        return await self.registry.router(caller, action, name)

    def _note(self, caller: Caller, router: Link | Router, text: str) -> None:
        with self.registry.engine.begin() as connection:
            self.registry.audit.note(connection, caller.who, "router.lead", router.account, router.pdid, text)

    async def _open(self, request: Request, router: Link | Router, caller: Caller, target: str,
                    ) -> AbstractAsyncContextManager[Exchange]:
        pdid, hub, siblings = router.pdid, self.registry.hub, self.registry.siblings
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        if link := hub.links.get(pdid):
            # who only reads asks with GET alone, and may see what operators see, such as logs
            role = "admin" if caller.may("router.lead", router.account) else "operator"
            return link.request(request.method, target, _without(headers, _OURS), role, caller.account)
        known = await hub.find(pdid)
        if known is None or known.hub in ("", siblings.name) or _is_inner(request):
            raise asleep(pdid)
        if not siblings.can_ask(known.hub) or _PASSED_ON in request.headers:
            raise Refused(503, f"{pdid} is linked to another server, {known.hub}, whose address is not known; see its "
                               "setting machine_url", {"Retry-After": "60"})
        whole = f"/registry/v1/routers/{pdid}{target}"
        chunked = "chunked" in request.headers.get("transfer-encoding", "").lower()
        return siblings.request(known.hub, request.method, whole, (
            *_without(headers, _HOP), *[("transfer-encoding", "chunked")] * chunked, (_PASSED_ON, "1")))


class Carried(Response):
    """The answer of a router, as it comes. HAS_GONE tells whether who asked has closed the connection."""

    def __init__(self, opened: AbstractAsyncContextManager[Exchange], pdid: str, has_gone: Callable[[], bool],
                 metrics: LinkMetrics) -> None:
        super().__init__()
        self._opened = opened
        self._has_gone = has_gone
        self._pdid = pdid
        self._metrics = metrics
        self._patience: asyncio.Timeout | None = None
        self._began = False
        self._gone = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        end = "answered"
        refused: Refused | None = None
        try:
            async with self._opened as exchange:
                await self._carry(exchange, scope["method"], receive, send)
        except Full:
            end, refused = "full", Refused(503, f"{self._pdid} has {STREAMS} requests under way; try again later",
                                           {"Retry-After": "5"})
        except TooLong:
            end, refused = "refused", Refused(431, "the head of the request is too long")
        except Lost as lost:
            end = "gone" if self._gone else "lost"
            refused = Refused(502, f"cannot get an answer from {self._pdid}: {lost}")
        except TimeoutError:
            end, refused = "late", Refused(504, f"{self._pdid} did not answer within {ANSWER_SECONDS:g} seconds")
        except OSError:  # the process that had its link is gone
            end, refused = "asleep", asleep(self._pdid)
        self._metrics.asked(end)
        if refused and not self._began:
            await refusal(refused)(scope, receive, send)

    async def _carry(self, exchange: Exchange, method: str, receive: Receive, send: Send) -> None:
        up = asyncio.create_task(self._up(exchange, receive))
        try:
            async with asyncio.timeout(ANSWER_SECONDS) as self._patience:
                head = await exchange.head()
            self._patience = None
            await self._down(exchange, head, method, send)
        finally:
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)

    async def _up(self, exchange: Exchange, receive: Receive) -> None:
        """Send the request's body; then wait until who asked is gone."""
        try:
            while (event := await receive())["type"] == "http.request":
                if content := event.get("body"):
                    await self._pass_on(exchange, content)
                    self._metrics.carried("to", len(content))
                if self._patience:
                    self._patience.reschedule(asyncio.get_running_loop().time() + ANSWER_SECONDS)
                if not event.get("more_body"):
                    await exchange.end()
            self._leave(exchange)
        except Lost:
            pass  # who waits for the answer is told the same

    async def _pass_on(self, exchange: Exchange, content: bytes) -> None:
        """Send some of the body. While the router takes none nothing is read from who asked, so his end is looked for.

        It is not seen while it waits behind more of the body than the kernel takes: then ANSWER_SECONDS count.
        """
        sending = asyncio.create_task(exchange.send(content))
        try:
            while not (await asyncio.wait([sending], timeout=GONE_SECONDS))[0]:
                if self._has_gone():
                    self._leave(exchange)
        finally:
            sending.cancel()
        await sending

    def _leave(self, exchange: Exchange) -> None:
        self._gone = True
        exchange.abandon("who asked has gone")

    async def _down(self, exchange: Exchange, head: Answer, method: str, send: Send) -> None:
        headers = checked(head.headers)
        left = _length(headers)
        await self._send(send, {"type": "http.response.start", "status": head.status, "headers": headers + _GUARD})
        empty = method == "HEAD" or head.status in (204, 304)
        async for content in exchange.pieces():
            if empty:
                continue
            if left is not None:
                left -= len(content)
                if left < 0:
                    raise Lost("it says more than it said it would")
            self._metrics.carried("from", len(content))
            await self._send(send, {"type": "http.response.body", "body": content, "more_body": True})
        if left and not empty:
            raise Lost("it says less than it said it would")
        await self._send(send, {"type": "http.response.body", "body": b""})

    async def _send(self, send: Send, message: Message) -> None:
        self._began = True
        async with asyncio.timeout(STALL_SECONDS):
            await send(message)


def asleep(pdid: str) -> Refused:
    """Return what is said while a router has no link."""
    return Refused(503, f"{pdid} is asleep: it has no link to this server", {"Retry-After": "30"})


def checked(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer that are passed on. A router may be anybody's.

    >>> checked((("Content-Type", "text/plain"), ("Connection", "close")))
    [(b'content-type', b'text/plain')]

    :raises Lost: they are none
    """
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Lost(f"its answer has a header that is none: {name[:40]!r}")
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in _without(headers, _THEIRS)]


def _without(headers: Iterable[tuple[str, str]], names: frozenset[str]) -> Headers:
    return tuple((name, value) for name, value in headers if name.lower() not in names)


def _length(headers: list[tuple[bytes, bytes]]) -> int | None:
    given = [value for name, value in headers if name == b"content-length"]
    if len(given) > 1 or (given and not re.fullmatch(rb"[0-9]{1,18}", given[0])):
        raise Lost("its answer has no length that makes sense")
    return int(given[0]) if given else None


def _is_inner(request: Request) -> bool:
    """Tell whether another process of this machine has passed a request on."""
    return "inner" in request.scope.get("extensions", {})
