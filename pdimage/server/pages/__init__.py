"""The web page: choose a board and chutes, build, watch, download; lead one router through an upgrade; and, for those
who log in, the fleet: routers, groups, roll-outs.

Pages are made on the server and can be read and used without scripts; ``static/page.js`` only saves reloading.
"""

from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from pdimage.server.desk import Desk
from pdimage.server.pages.building import Building
from pdimage.server.pages.choosing import Choosing
from pdimage.server.pages.fleetaccounts import AccountPages
from pdimage.server.pages.fleetdoor import Door
from pdimage.server.pages.fleetrollouts import RolloutPages
from pdimage.server.pages.fleetrouters import RouterPages
from pdimage.server.pages.inner import Api
from pdimage.server.pages.leading import Leading
from pdimage.server.pages.showing import HERE, showing
from pdimage.server.registry.fleet.desk import Fleet


def routes(desk: Desk, fleet: Fleet) -> list[BaseRoute]:
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
        *_fleet(fleet),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]


def _fleet(fleet: Fleet) -> list[BaseRoute]:
    door = Door(fleet, Api(fleet))
    routers, rollouts, accounts = RouterPages(door), RolloutPages(door), AccountPages(door)
    inside = {
        "/fleet": (routers.routers, routers.make), "/fleet/logout": (None, door.log_out),
        "/fleet/groups": (routers.groups, routers.change_groups), "/fleet/audit": (routers.audit, None),
        "/fleet/rollouts": (rollouts.rollouts, rollouts.start), "/fleet/rollouts/new": (rollouts.new, None),
        "/fleet/rollouts/{rollout}": (rollouts.rollout, rollouts.lead),
        "/fleet/routers/{router}": (routers.router, routers.lead),
        "/fleet/account": (accounts.own, accounts.change_own), "/fleet/accounts": (accounts.all, accounts.invite),
        "/fleet/accounts/{account}": (accounts.one, accounts.lead)}
    return [
        Route("/fleet/login", showing(door.ask_password), methods=["GET"]),
        Route("/fleet/login", showing(door.log_in), methods=["POST"]),
        Route("/fleet/register", showing(door.ask_name), methods=["GET"]),
        Route("/fleet/register", showing(door.register), methods=["POST"]),
        Route("/fleet/reset", showing(door.ask_code), methods=["GET"]),
        Route("/fleet/reset", showing(door.reset), methods=["POST"]),
        *(Route(path, door.inside(page), methods=[method]) for path, pages in inside.items()
          for method, page in zip(("GET", "POST"), pages, strict=True) if page),
    ]
