"""All pages: their paths, who may see them, and the checks that each request passes first."""

import asyncio
import logging
import socket
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from fussy.errors import FussyError
from paradrop.backend.pages import chutes, entering, firmware, network, overview, router, sessions
from paradrop.backend.pages.showing import HEADERS, HERE, go, show
from paradrop.backend.pages.visit import Visit, check_form, parse_fields
from paradrop.backend.pdfcd.access import asked_for_another_host, from_a_foreign_page
from paradrop.backend.pdfcd.app import exchange_of
from paradrop.backend.pdfcd.problems import Problem, problem_of, response
from paradrop.backend.pdfcd.server import ParadropAPIServer
from paradrop.lib import settings

log = logging.getLogger(__name__)

FORM_LIMIT = 64 << 10
FORM_SECONDS = 30.0
_TITLES = {401: "Please log in", 403: "You may not do this", 404: "There is no such page", 409: "Not now",
           429: "Too many attempts", 503: "Not now"}
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Page:
    """A method of a path. ``role`` is the least role that may use it, None for everybody who can reach the router."""

    method: str
    path: str
    answer: Callable[[Visit], Response]
    role: str | None


PAGES = [
    Page("GET", "/", overview.show_overview, "viewer"),
    Page("GET", "/login", entering.ask_password, None),
    Page("POST", "/login", entering.log_in, None),
    Page("GET", "/first", entering.ask_first, None),
    Page("POST", "/first", entering.set_first, None),
    Page("POST", "/logout", entering.log_out, "viewer"),
    Page("GET", "/chutes", chutes.show_all, "viewer"),
    Page("GET", "/chutes/{name}", chutes.show_one, "viewer"),
    Page("GET", "/chutes/{name}/{action}", chutes.ask, "operator"),
    Page("POST", "/chutes/{name}/{action}", chutes.do, "operator"),
    Page("GET", "/changes/{id}", chutes.show_change, "viewer"),
    Page("GET", "/firmware", firmware.show_firmware, "viewer"),
    Page("GET", "/firmware/{action}", firmware.ask, "admin"),
    Page("POST", "/firmware/{action}", firmware.do, "admin"),
    Page("GET", "/network", network.show_network, "viewer"),
    Page("GET", "/router", router.show_router, "viewer"),
    Page("POST", "/router/password", router.set_password, "viewer"),
    Page("GET", "/router/reboot", router.ask_reboot, "admin"),
    Page("POST", "/router/reboot", router.reboot, "admin"),
    Page("GET", "/router/reset", router.ask_reset, "admin"),
    Page("POST", "/router/reset", router.reset, "admin"),
]


def make_site(rest: ParadropAPIServer) -> Starlette:
    """Return the application that answers with pages."""
    by_path: dict[str, dict[str, Page]] = defaultdict(dict)
    for page in PAGES:
        by_path[page.path][page.method] = page
    routes = [Route(path, _endpoint(rest, pages), methods=["GET", "HEAD", "POST"]) for path, pages in by_path.items()]
    routes.append(Route("/static/{name}", _static, methods=["GET", "HEAD"]))

    async def not_a_page(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        problem = Problem(status, "nothing of the router is at this address")
        if "text/html" in request.headers.get("accept", ""):
            return _failed(_visit(rest, request), problem)
        return response(problem, f"{request.method} {request.url.path}")  # for a program

    return Starlette(routes=routes, exception_handlers={HTTPException: not_a_page})


def _endpoint(rest: ParadropAPIServer, pages: dict[str, Page]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        visit = _visit(rest, request)
        try:
            page = pages.get("GET" if request.method == "HEAD" else request.method)
            if page is None:
                raise Problem(405, "this page has no form, or only a form", {"Allow": ", ".join(pages)})
            _check_origin(request)
            visit = replace(visit, query=parse_fields(request.url.query))
            identity, session = await run_in_threadpool(sessions.of_request, rest, request, visit.client)
            visit = replace(visit, identity=identity, session=session)
            if page.role is not None and identity is None:
                return go("/login" if rest.accounts.users() else "/first")
            if page.role is not None and not visit.may(page.role):
                assert identity
                raise Problem(403, f"you are {identity.user} with the role {identity.role}; this needs {page.role}")
            if page.method == "POST":
                visit = replace(visit, fields=parse_fields(await _read(request)))
                if page.role is not None:
                    check_form(visit)
            return await run_in_threadpool(page.answer, visit)
        except ClientDisconnect:
            return Response(status_code=400)
        except FussyError as error:
            return _failed(visit, Problem(409, str(error)))
        except Exception as error:
            problem = problem_of(error)
            if problem.status == 500:
                log.exception("cannot show %s", request.url.path)
            return _failed(visit, problem)
    return endpoint


def _visit(rest: ParadropAPIServer, request: Request) -> Visit:
    return Visit(rest, None, exchange_of(request).client, "", request.path_params, {}, {},
                 secure=request.url.scheme == "https")


def _check_origin(request: Request) -> None:
    """Raise Problem 421 or 403 for what a browser sends because a page of somebody else's told it to."""
    exchange = exchange_of(request)
    if refusal := asked_for_another_host(exchange, own_names()):
        raise Problem(421, refusal)
    site = request.headers.get("sec-fetch-site", "none")
    if refusal := from_a_foreign_page(exchange):
        raise Problem(403, refusal)
    if request.method == "POST" and site not in ("same-origin", "none"):
        raise Problem(403, "this form was sent from a page of another site")


def own_names() -> set[str]:
    """Return the names, in lower case, that the router answers to: its host's, also as .local, and the owner's."""
    host = socket.gethostname().lower()
    return {host, f"{host.partition('.')[0]}.local", *str(settings.PDFCD_HOST_NAMES or "").lower().split()}


async def _read(request: Request) -> str:
    content = bytearray()
    try:
        async with asyncio.timeout(FORM_SECONDS):
            async for piece in request.stream():
                content += piece
                if len(content) > FORM_LIMIT:
                    raise Problem(413, f"cannot read the form: it is longer than {FORM_LIMIT} bytes")
    except TimeoutError:
        raise Problem(408, f"cannot read the form: it did not come within {FORM_SECONDS:g} seconds") from None
    try:
        return content.decode("ascii")
    except UnicodeDecodeError as error:
        raise Problem(400, f"cannot read the form: {error}") from error


def _failed(visit: Visit, problem: Problem) -> Response:
    mistakes: Iterable[str] = problem.extra.get("mistakes", ())
    return show(visit, "problem.html", problem.status, problem.headers, text=problem.detail, mistakes=mistakes,
                title=_TITLES.get(problem.status, "This did not work"))


async def _static(request: Request) -> Response:
    path = HERE / "static" / Path(request.path_params["name"]).name
    if not path.is_file() or path.suffix not in _TYPES:
        raise HTTPException(404)
    headers = {**HEADERS, "Cache-Control": "no-cache"}
    return Response(await run_in_threadpool(path.read_bytes), 200, headers, _TYPES[path.suffix])
