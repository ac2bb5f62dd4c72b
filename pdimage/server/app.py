"""The HTTP application: :func:`make_desk` and :func:`make_app` give all of it, for a server or for a test."""

from collections.abc import Sequence

import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

import fussy
from pdimage.server import artifacts, operations
from pdimage.server.desk import Desk
from pdimage.server.doorbell import Doorbell
from pdimage.server.files import Files
from pdimage.server.http import Edge, answer, answering, http_error
from pdimage.server.images import Images
from pdimage.server.known import Known
from pdimage.server.metrics import Health, Measured
from pdimage.server.openapi import document
from pdimage.server.registry.fleet.desk import Fleet
from pdimage.server.registry.fleet.operations import operations as fleet_operations
from pdimage.server.registry.linkapi import LinkEndpoint
from pdimage.server.registry.operations import operations as registry_operations
from pdimage.server.registry.tunnel import routes as tunnel_routes
from pdimage.server.requests import Requests
from pdimage.server.settings import Settings


def make_desk(settings: Settings, engine: sa.Engine) -> Desk:
    """Return all that the application works with; the database must be in its present form.

    :raises FussyError: the catalogue, the store or the queue can't be used
    """
    return Desk(settings, engine, Requests(engine, settings), Images(engine), Known(engine, settings),
                artifacts.connect(settings), Doorbell(settings))


def make_app(desk: Desk, fleet: Fleet, more: Sequence[BaseRoute] = ()) -> ASGIApp:
    """Return the application. MORE are routes that others add, such as those of the web page."""
    found = [*operations.operations(desk), *registry_operations(fleet.registry), *fleet_operations(fleet)]
    described = document(found, fussy.__version__)

    async def openapi(request: Request) -> Response:
        return answer(described)

    routes: list[BaseRoute] = [Route(one.path, answering(one.handler), methods=[one.method]) for one in found]
    routes.append(Route("/json/{request_hash}/{file:path}", answering(Files(desk).file)))
    routes.append(Route("/openapi.json", openapi))
    routes += [*Health(desk).routes(), *tunnel_routes(fleet.registry), *more]
    app = Starlette(routes=routes, exception_handlers={HTTPException: http_error})
    return Edge(Measured(app, routes, log_access=desk.settings.log_access), LinkEndpoint(fleet.registry))
