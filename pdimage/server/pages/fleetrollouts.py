"""The pages about roll-outs: all of them, a new one, how one goes, and leading it."""

from typing import Any, get_args

from starlette.responses import Response

from pdimage.server.pages.fleetdoor import Door, Visit, display, go
from pdimage.server.pages.showing import first, query
from pdimage.server.refusals import Refused, bad
from pdimage.server.registry.fleet.rollouts import Lead
from pdimage.server.registry.fleet.states import ROLLOUT, Plan

# So many routers of a roll-out, and so many roll-outs, are on one page.
LISTED = 200
ROLLOUTS = 50
_WORDS = {"approve": "Approve it", "pause": "Pause", "resume": "Go on", "cancel": "Cancel it",
          "quit": "Wait for none of them"}


class RolloutPages:
    """The handlers."""

    def __init__(self, door: Door) -> None:
        self.api = door.api

    async def rollouts(self, visit: Visit) -> Response:
        """Show all roll-outs, the newest first."""
        before = first(query(visit.request), "before")
        asked = {"before": before} if before else {}
        found = (await self.api.ask(visit.request, "GET", "/rollouts", limit=ROLLOUTS, **asked))["rollouts"]
        older = found[-1]["id"] if len(found) == ROLLOUTS else 0
        return display("fleet_rollouts.html", visit.caller, rollouts=found, older=older)

    async def new(self, visit: Visit) -> Response:
        """Show the form for a new roll-out."""
        releases = await self.api.ask(visit.request, "GET", "/releases")
        groups = await self.api.ask(visit.request, "GET", "/groups")
        return display("fleet_new.html", visit.caller, releases=releases["releases"], groups=groups["groups"],
                       plan=Plan(), own=visit.caller.account)

    async def start(self, visit: Visit) -> Response:
        """Start a roll-out, or propose it."""
        made = await self.api.ask(visit.request, "POST", "/rollouts", wish(visit))
        return go(f"/fleet/rollouts/{made['id']}")

    async def rollout(self, visit: Visit) -> Response:
        """Show how a roll-out goes."""
        number = visit.path["rollout"]
        found = await self.api.ask(visit.request, "GET", f"/rollouts/{number}")
        routers = await self.api.ask(visit.request, "GET", f"/rollouts/{number}/routers", limit=LISTED)
        part = "part" in query(visit.request)
        return display("fleet_progress.html" if part else "fleet_rollout.html", visit.caller, one=found,
                       routers=routers["routers"], limit=LISTED, buttons=buttons(visit, found),
                       under_way=found["state"] in ("proposed", "running", "paused"))

    async def lead(self, visit: Visit) -> Response:
        """Approve, pause, resume, cancel or quit a roll-out."""
        what, number = visit.field("action"), visit.path["rollout"]
        if what not in _WORDS:
            raise Refused(400, "this page has no such button")
        router = visit.field("router")
        body = {"routers": [router] if router else []} if what == "quit" else None
        await self.api.ask(visit.request, "POST", f"/rollouts/{number}/{what}", body)
        return go(f"/fleet/rollouts/{number}")


def buttons(visit: Visit, found: dict[str, Any]) -> dict[str, str]:
    """Return what the visitor may do with a roll-out now, with words for it."""
    may = {what: visit.caller.may("rollout.approve" if what == "approve" else "rollout.lead", found["account"])
           for what in get_args(Lead)}
    may["approve"] = may["approve"] and found["made_by"] != visit.caller.account
    now = {what: (found["state"], what) in ROLLOUT for what in get_args(Lead)}
    may["quit"], now["quit"] = may["cancel"], found["counts"]["cancelling"] > 0
    return {what: words for what, words in _WORDS.items() if may[what] and now[what]}


def wish(visit: Visit) -> dict[str, Any]:
    """Return what the form asks for, as the API takes it.

    :raises Refused: a number is none
    """
    group = visit.field("group")
    account = group.removeprefix("all of ") if group.startswith("all of ") else ""
    fields = visit.fields
    return {"release": visit.field("release"), "group": "" if account else group, "account": account,
            "window": visit.field("window"), "zone": visit.field("zone"),
            "forced": first(fields, "forced") == "yes", "confirm": first(fields, "confirm") == "yes",
            "approval": first(fields, "approval") == "yes",
            "plan": {"steps": [_number(text, "steps") for text in visit.field("steps").replace(",", " ").split()],
                     "failures": _number(visit.field("failures"), "failures"),
                     "least": int(_number(visit.field("least"), "least")),
                     "success": _number(visit.field("success"), "success"),
                     "seconds": 60 * _number(visit.field("minutes"), "minutes")}}


def _number(text: str, name: str) -> float:
    try:
        found = float(text.rstrip("%"))
        if not 0 <= found < 1e9:
            raise ValueError(text)
    except ValueError as error:
        raise bad(f"{name}: {text[:40]!r} is not a number") from error
    return found
