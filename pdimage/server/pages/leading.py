"""The page of one router that visits (:mod:`pdimage.server.visits`): what it runs, what is new, upgrade, outcome."""

from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from fussy import ondemand
from pdimage.server import asu, packages
from pdimage.server.asking import Asked, approved
from pdimage.server.catalogue import Catalogue, Distro
from pdimage.server.desk import Desk
from pdimage.server.entries import Entry
from pdimage.server.http import client_of, in_thread
from pdimage.server.pages import building
from pdimage.server.pages.choosing import chosen
from pdimage.server.pages.showing import Form, first, form, query, show
from pdimage.server.refusals import Refused
from pdimage.server.visits import AWAY_SECONDS, ENDED, Device, Visit, Visits


class Leading:
    """The page of a router, and what is decided on it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.visits = Visits(desk.engine)

    async def page(self, request: Request) -> Response:
        """Show a router and what can be done with it now."""
        token = request.path_params["token"]
        visit = await self._visit(token)
        catalogue = await self.desk.catalogue()
        entry = await self.desk.find(visit.request_hash) if visit.request_hash else None
        facts: dict[str, Any] = {"visit": visit, "entry": entry, "token": token, "ended": visit.stage in ENDED,
                 "away": visit.stage not in ENDED and self.visits.clock() - visit.seen > AWAY_SECONDS,
                 "steps": building.steps(entry) if entry else (),
                 "under_way": visit.stage not in ENDED and (visit.go or _building(entry))}
        if first(query(request), "part") == "progress":
            return show("router_progress.html", **facts)
        return show("router.html", **facts, **news(catalogue, visit.device), **await self._changes(visit, entry))

    async def decide(self, request: Request) -> Response:
        """Build what was chosen, have the router install it, or choose again."""
        fields = await form(request, self.desk.settings)
        token = request.path_params["token"]
        visit = await self._visit(token)
        action = first(fields, "action")
        late = Refused(409, "the router was told already what to install")
        if action == "build":
            asked = await self._ask(request, visit.device, fields)
            if not await in_thread(self.visits.choose, token, asked.hash):
                raise late
        elif action == "again":
            if not await in_thread(self.visits.choose, token, ""):
                raise late
        elif action == "install":
            entry = await self.desk.find(visit.request_hash) if visit.request_hash else None
            if entry is None or entry.image is None or not entry.image.sysupgrade:
                raise Refused(409, "there is no image yet that the router could install")
            if not await in_thread(self.visits.install, token, first(fields, "request")):
                raise late
        else:
            raise Refused(400, "this page has no such button")
        return RedirectResponse(f"/router/{token}", 303)

    async def _visit(self, token: str) -> Visit:
        visit = await in_thread(self.visits.find, token)
        if visit is None:
            raise Refused(404, "this page is over; run fussy-update --on-demand --page on the router again")
        return visit

    async def _ask(self, request: Request, device: Device, fields: Form) -> Entry:
        catalogue = await self.desk.catalogue()
        version = asu.newest_for(_distro(catalogue, device), device.version)
        known = catalogue.target(device.distro, version, device.target)
        if known is None:
            raise Refused(503, f"the server does not know {device.target} yet; try again in some minutes")
        wish = approved(ondemand.Request(
            device.distro, version, device.target, device.profile, chosen(fields, known), diff_packages=True), known)
        return await self.desk.accept(Asked(wish), client_of(request))

    async def _changes(self, visit: Visit, entry: Entry | None) -> dict[str, Any]:
        """Return how the parts of the image differ from those of the one that the router runs, if both are known."""
        if entry is None or entry.image is None or not visit.device.request:
            return {"components": None}
        old = await in_thread(self.desk.images.of_request, visit.device.request)
        return {"components": await in_thread(building.changes, self.desk, old, entry.image)}


def _building(entry: Entry | None) -> bool:
    return entry is not None and entry.state in ("queued", "building")


def _distro(catalogue: Catalogue, device: Device) -> Distro:
    """Return the distribution of a device, which may have gone from the catalogue since the device came."""
    distro = catalogue.distros.get(device.distro)
    if distro is None or device.version not in distro.versions:
        raise Refused(404, f"the server does not have {device.distro} {device.version} any more")
    return distro


def news(catalogue: Catalogue, device: Device) -> dict[str, Any]:
    """Return what the newest version has for a device: its packages, what changes, and what to tick at first."""
    distro = _distro(catalogue, device)
    version = asu.newest_for(distro, device.version)
    said = asu.news(catalogue, device)
    known = catalogue.target(device.distro, version, device.target)
    changed = packages.transform(distro, device.version, version, device.installed)
    return {"version": version, "known": known.packages if known else {}, "wanted": changed.packages,
            "news": said.body if said.status == 200 else {}, "description": distro.versions[version].description}
