"""The addresses that a router uses which is led from a page (:mod:`.visits`): come, look, report."""

from typing import cast, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from pdimage.server import asking
from pdimage.server.asking import Body
from pdimage.server.asu import address, news
from pdimage.server.desk import Desk
from pdimage.server.http import answer, body, in_thread
from pdimage.server.refusals import Refused, bad
from pdimage.server.visits import Stage, Visit, Visits

# How often a router looks, in seconds.
LOOK_SECONDS = 3
_TEXT = 500
STAGES = get_args(Stage)


class Visiting:
    """The handlers for routers."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.visits = Visits(desk.engine)

    async def come(self, request: Request) -> Response:
        """Begin a visit: a router says what it has, and gets the address of its page."""
        content = await body(request, self.desk.settings)
        catalogue = await self.desk.catalogue()
        device = asking.visitor(catalogue, content)
        news(catalogue, device)
        token = await in_thread(self.visits.come, device)
        page = f"{address(request, self.desk.settings.url)}/router/{token}"
        return answer({"token": token, "page": page, "seconds": LOOK_SECONDS}, 201)

    async def look(self, request: Request) -> Response:
        """Tell a router whether somebody decided what it is to install."""
        visit = await self._found(request)
        if not visit.go:
            return answer({"state": "wait"})
        entry = await self.desk.find(visit.request_hash)
        if entry is None:
            raise Refused(404, "the image that was chosen is not there any more; begin again")
        return answer({"state": "install", "request_hash": entry.hash, "request": msgspec.to_builtins(entry.request)})

    async def report(self, request: Request) -> Response:
        """Take down how far a router is."""
        fields = Body(await body(request, self.desk.settings))
        stage, text, percent = fields.text("stage"), fields.text("text"), fields.data.get("percent", 0)
        if stage not in STAGES:
            raise bad(f"stage must be one of {', '.join(STAGES)}")
        if not isinstance(percent, int) or isinstance(percent, bool) or not 0 <= percent <= 100:
            raise bad("percent must be a whole number from 0 to 100")
        await self._found(request)
        if not await in_thread(self.visits.report, request.path_params["token"], cast(Stage, stage), text[:_TEXT],
                               percent):
            raise Refused(409, "nobody told this router to install anything, or it has reported its end")
        return answer(None, 204)

    async def _found(self, request: Request) -> Visit:
        visit = await in_thread(lambda: self.visits.find(request.path_params["token"], router=True))
        if visit is None:
            raise Refused(404, "this visit is over; begin again")
        return visit
