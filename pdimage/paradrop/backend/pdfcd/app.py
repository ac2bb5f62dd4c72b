"""The HTTP application: ``/v1`` and ``/internal`` by the documented resources, ``/api/v1`` by its operations."""

import asyncio
import io
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import IO, Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import fussy
from paradrop.backend import pages
from paradrop.backend.link.streams import SCOPE
from paradrop.backend.pdfcd import apiinternal, opaccounts, opchanges, opchutes, opidentity, oprouter, problems, upload
from paradrop.backend.pdfcd.access import CHALLENGE, asked_for_another_host, from_a_foreign_page, may_use_v1
from paradrop.backend.pdfcd.accounts import Identity
from paradrop.backend.pdfcd.apiutils import getIP
from paradrop.backend.pdfcd.openapi import document
from paradrop.backend.pdfcd.operations import Accepted, Call, Operation, Text, check_media, parse_body, parse_query
from paradrop.backend.pdfcd.problems import Problem
from paradrop.backend.pdfcd.server import ParadropAPIServer
from paradrop.lib import settings
from paradrop.lib.api import pdapi, pdrest

log = logging.getLogger(__name__)

BODY_LIMIT = 1 << 20
BODY_SECONDS = 30.0
UPLOAD_SECONDS = 600.0
Handler = Callable[[Request], Awaitable[Response]]
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]


def get_openapi(call: Call) -> dict[str, Any]:
    """Show this document."""
    return document(OPERATIONS, fussy.__version__)


OPERATIONS = [
    *opchutes.OPERATIONS, *opchanges.OPERATIONS, *oprouter.OPERATIONS, *opidentity.OPERATIONS, *opaccounts.OPERATIONS,
    Operation("GET", "/api/v1/openapi.json", get_openapi, None, dict[str, Any]),
]


def make_app(rest: ParadropAPIServer) -> Starlette:
    """Return the application that serves a ParadropAPIServer."""
    by_path: dict[str, dict[str, Operation]] = defaultdict(dict)
    for operation in OPERATIONS:
        by_path[operation.path][operation.method] = operation
    routes = [Route(path, _modern(rest, methods), methods=METHODS) for path, methods in by_path.items()]
    routes.append(Route("/internal", _internal(rest), methods=["POST"]))
    routes.append(Route("/v1/{rest:path}", _documented(rest), methods=METHODS))
    return Starlette(routes=[*routes, *pages.routes(rest)], exception_handlers={HTTPException: _http_error})


def _answering(handle: Handler) -> Handler:
    """Make a handler answer with a problem, whatever it raises."""
    async def endpoint(request: Request) -> Response:
        try:
            return await handle(request)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            return problems.response(error, f"{request.method} {request.url.path}")
    return endpoint


def _modern(rest: ParadropAPIServer, methods: dict[str, Operation]) -> Handler:
    @_answering
    async def endpoint(request: Request) -> Response:
        operation = methods.get("GET" if request.method == "HEAD" else request.method)
        if operation is None:
            raise Problem(405, f"cannot {request.method} {request.url.path}: the methods are {', '.join(methods)}",
                          {"Allow": ", ".join(methods)})
        return await _operate(rest, operation, request)
    return endpoint


async def _operate(rest: ParadropAPIServer, operation: Operation, request: Request) -> Response:
    exchange = exchange_of(request)
    if refusal := from_a_foreign_page(exchange):
        raise Problem(403, refusal)
    identity = await _who(rest, operation, request, exchange)
    query = parse_query(operation, request.query_params)
    call = Call(rest, identity, exchange.client, request.path_params, query, None)
    if operation.body is not None:
        check_media(operation, request.headers.get("content-type", ""))
    if isinstance(operation.body, str):
        with upload.receive() as file:
            await _receive(request, file)
            return _response(operation, await run_in_threadpool(operation.run, replace(call, body=file)))
    if operation.body is not None:
        call = replace(call, body=parse_body(operation, await _read(request)))
    return _response(operation, await run_in_threadpool(operation.run, call))


async def _who(rest: ParadropAPIServer, operation: Operation, request: Request,
               exchange: pdrest.Request) -> Identity | None:
    """Return who asks for an operation. Problem if he may not, or has to say who he is."""
    if SCOPE in request.scope and not operation.remote:
        raise Problem(403, "cannot do this through the server: ask the router itself")
    if operation.role is None and not operation.optional:
        return None
    identity = await _identity(rest, request, exchange)
    if operation.role is None:
        if identity is None and (refusal := asked_for_another_host(exchange)):
            raise Problem(403, refusal)
        return identity
    if identity is None:
        raise Problem(401, "cannot do this for everybody: send a password or a token", CHALLENGE)
    if not identity.may(operation.role):
        raise Problem(403, f"cannot do this with the role {identity.role}: it needs {operation.role}")
    return identity


async def _identity(rest: ParadropAPIServer, request: Request, exchange: pdrest.Request) -> Identity | None:
    """Return who proved who he is: the server by its link, others by what they send."""
    told: Identity | None = request.scope.get(SCOPE)
    return told or await run_in_threadpool(rest.access.identify, exchange.headers, exchange.client)


def _response(operation: Operation, answer: Any) -> Response:
    if answer is None:
        return Response(status_code=operation.status)
    if isinstance(answer, Text):
        return StreamingResponse(answer.pieces, operation.status, media_type=str(operation.answer))
    headers = {"Cache-Control": "no-store"}
    if isinstance(answer, Accepted):
        headers["Location"] = answer.location
        answer = answer.view
    return Response(msgspec.json.encode(answer), operation.status, headers, "application/json")


def _documented(rest: ParadropAPIServer) -> Handler:
    @_answering
    async def endpoint(request: Request) -> Response:
        exchange = await _identified(rest, request)
        if refusal := may_use_v1(exchange):
            exchange.setResponseCode(pdapi.ERR_BADAUTH, refusal)
            return _plain(exchange, refusal + "\n")
        if exchange.method == "OPTIONS":
            exchange.setHeader("Access-Control-Allow-Methods", ", ".join(rest.methods(exchange.path)))
            exchange.setHeader("Access-Control-Allow-Headers", "Content-Type, Authorization")
            return _plain(exchange, "")
        exchange.body = await _read(request)
        answer = await run_in_threadpool(lambda: rest.getChild(exchange.path, exchange).render(exchange))
        if answer is pdrest.NOT_DONE_YET and exchange.stream is not None:
            return StreamingResponse(exchange.stream, exchange.code, exchange.answerHeaders, "text/plain")
        return _plain(exchange, str(answer))
    return endpoint


def _internal(rest: ParadropAPIServer) -> Handler:
    internal = apiinternal.Base(apiinternal)

    @_answering
    async def endpoint(request: Request) -> Response:
        exchange = await _identified(rest, request)
        refusal = may_use_v1(exchange)
        if refusal or exchange.role not in (None, "admin"):
            raise Problem(403, refusal or "this needs the role admin")
        return Response(await run_in_threadpool(internal.render, await _read(request)), media_type="text/xml")
    return endpoint


async def _identified(rest: ParadropAPIServer, request: Request) -> pdrest.Request:
    """Return the request for the documented resources, with who sent it, if he says."""
    exchange = exchange_of(request)
    identity = await _identity(rest, request, exchange)
    if identity is not None:
        exchange.user, exchange.role = identity.user, identity.role
    return exchange


def _plain(exchange: pdrest.Request, text: str) -> Response:
    exchange.setHeader("Access-Control-Allow-Origin", str(settings.PDFCD_HEADER_VALUE))
    return Response(text, exchange.code, exchange.answerHeaders, "text/plain")


def exchange_of(request: Request) -> pdrest.Request:
    """Return a request as the rest of the daemon sees it, with who is at its other end."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    peer = request.client.host if request.client else ""
    exchange = pdrest.Request(request.method, request.url.path, peer, headers)
    exchange.client = getIP(exchange)
    return exchange


async def _read(request: Request) -> bytes:
    """Return the body. Problem 413 if it is too long, 408 if it takes too long to come."""
    content = io.BytesIO()
    await _receive(request, content, BODY_LIMIT, BODY_SECONDS)
    return content.getvalue()


async def _receive(request: Request, file: IO[bytes], limit: int = upload.BYTES,
                   seconds: float = UPLOAD_SECONDS) -> None:
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                size += len(piece)
                if size > limit:
                    raise Problem(413, f"cannot read the body: it is longer than {limit} bytes")
                file.write(piece)
    except TimeoutError:
        raise Problem(408, f"cannot read the body: it did not come within {seconds:g} seconds") from None


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = Problem(error.status_code, f"cannot {request.method} {request.url.path}: {error.detail}", error.headers)
    return problems.response(problem, f"{request.method} {request.url.path}")
