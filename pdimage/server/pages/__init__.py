"""The web page: choose a board and chutes, build, watch, download; and lead one router through an upgrade.

Pages are made on the server and can be read and used without scripts; ``static/page.js`` only saves reloading.
"""

from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from pdimage.server.desk import Desk
from pdimage.server.pages.building import Building
from pdimage.server.pages.choosing import Choosing
from pdimage.server.pages.leading import Leading
from pdimage.server.pages.showing import HERE, showing


def routes(desk: Desk) -> list[BaseRoute]:
    """Return the routes of the pages, for :func:`pdimage.server.app.make_app`."""
    choosing, building, leading = Choosing(desk), Building(desk), Leading(desk)
    return [
        Route("/", showing(choosing.start)),
        Route("/choose", showing(choosing.choose)),
        Route("/builds", showing(building.queue), methods=["GET"]),
        Route("/builds", showing(building.ask), methods=["POST"]),
        Route("/builds/{request_hash}", showing(building.one)),
        Route("/router/{token}", showing(leading.page), methods=["GET"]),
        Route("/router/{token}", showing(leading.decide), methods=["POST"]),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
