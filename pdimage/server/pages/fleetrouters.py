"""The pages about routers: all of them, one with its log and chutes, provisioning; groups; the audit log."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from fussy.moments import utc
from pdimage.server.pages.fleetdoor import Door, Visit, display, go
from pdimage.server.pages.showing import first, query
from pdimage.server.refusals import Refused

# So many of each are on one page.
LINES = 100
AUDIT = 100
ROUTERS = 200
_DELETED = ("The server forgets it and does not let it in any more. The router goes on by itself, and follows its "
            "channel. To come back it must be made and provisioned again.")


class Release(msgspec.Struct, frozen=True):
    """A release of a router; ``waits_for`` says what one on trial does."""

    name: str = ""
    version: str = ""
    waits_for: str = ""


class Bad(msgspec.Struct, frozen=True):
    """A release that failed on a router."""

    release: str = ""
    reason: str = ""


class Firmware(msgspec.Struct, frozen=True):
    """What a router tells of its firmware, as far as it is shown."""

    current: Release | None = None
    previous: Release | None = None
    trial: Release | None = None
    bad: list[Bad] = []


class Chute(msgspec.Struct, frozen=True):
    """A chute of a router."""

    name: str = ""
    state: str = ""
    version: str | None = None


class Told(msgspec.Struct, frozen=True):
    """What a router tells of itself, as far as it is shown. Routers may be of any age, and anybody's."""

    firmware: Firmware | None = None
    chutes: list[Chute] = []


class RouterPages:
    """The handlers."""

    def __init__(self, door: Door) -> None:
        self.api = door.api

    async def routers(self, visit: Visit) -> Response:
        """Show all routers, or those of a group."""
        asked = {name: text for name in ("group", "after") if (text := first(query(visit.request), name))}
        found = await self.api.ask(visit.request, "GET", "/fleet", limit=ROUTERS, **asked)
        routers = found["routers"]
        more = {**asked, "after": routers[-1]["pdid"]} if len(routers) == ROUTERS else {}
        groups = await self.api.ask(visit.request, "GET", "/groups")
        part = "part" in query(visit.request)
        return display("fleet_routers_list.html" if part else "fleet_routers.html", visit.caller,
                       routers=routers, numbers=found["numbers"], incidents=found["incidents"], more=more,
                       groups=groups["groups"], group=asked.get("group", ""))

    async def make(self, visit: Visit) -> Response:
        """Make a router."""
        made = await self.api.ask(visit.request, "POST", "/routers", {"name": visit.field("name")})
        return go(f"/fleet/routers/{made['pdid']}")

    async def router(self, visit: Visit) -> Response:
        """Show a router, with what it says now, if it is awake."""
        return await self._show(visit)

    async def lead(self, visit: Visit) -> Response:
        """Provision a router again, put it into a group, forget its incident, or delete it."""
        name, what = _name(visit), visit.field("action")
        if what == "provision":
            secret = await self.api.ask(visit.request, "POST", f"{_router(name)}/provision")
            return await self._show(visit, secret)
        if what == "delete" and visit.field("sure") != "yes":
            return display("fleet_delete.html", visit.caller, here="/fleet", address=f"/fleet/routers/{quote(name)}",
                           what=name, means=_DELETED)
        if what == "delete":
            await self.api.ask(visit.request, "DELETE", _router(name))
            return go("/fleet")
        if what == "clear":
            await self.api.ask(visit.request, "DELETE", f"{_router(name)}/incident")
            return go(f"/fleet/routers/{quote(name)}")
        if what == "group":
            await self._group(visit, name)
            return go(f"/fleet/routers/{quote(name)}")
        raise Refused(400, "this page has no such button")

    async def groups(self, visit: Visit) -> Response:
        """Show the groups."""
        found = await self.api.ask(visit.request, "GET", "/groups")
        return display("fleet_groups.html", visit.caller, groups=found["groups"])

    async def change_groups(self, visit: Visit) -> Response:
        """Make a group, or forget one."""
        group = f"/groups/{quote(visit.field('group'), safe='')}"
        if visit.field("action") == "delete":
            await self.api.ask(visit.request, "DELETE", group)
        else:
            await self.api.ask(visit.request, "PUT", group, {"note": visit.field("note")})
        return go("/fleet/groups")

    async def audit(self, visit: Visit) -> Response:
        """Show who changed what."""
        before = first(query(visit.request), "before")
        asked = {"before": before} if before else {}
        found = await self.api.ask(visit.request, "GET", "/audit", limit=AUDIT, **asked)
        entries = found["entries"]
        older = entries[-1]["number"] if len(entries) == AUDIT else 0
        return display("fleet_audit.html", visit.caller, entries=entries, older=older)

    async def _show(self, visit: Visit, secret: Mapping[str, Any] | None = None) -> Response:
        name = _name(visit)
        router = await self.api.ask(visit.request, "GET", _router(name))
        groups = await self.api.ask(visit.request, "GET", "/groups")
        now: dict[str, Any] = {"told": _told(router["facts"]), "chutes": None, "log": "", "trouble": ""}
        if router["awake"]:
            try:
                asked = await self.api.ask(visit.request, "GET", f"{_router(name)}/api/v1/chutes")
                now["chutes"] = msgspec.convert(asked, list[Chute])
                text = await self.api.text(visit.request, "GET", f"{_router(name)}/api/v1/logs", tail=LINES)
                now["log"] = _readable(text)
            except (Refused, msgspec.MsgspecError) as error:
                now["trouble"] = getattr(error, "error", "its answer can't be read")
        own = [one["name"] for one in groups["groups"] if one["account"] == router["account"]]
        return display("fleet_router.html", visit.caller, router=router, groups=own, secret=secret, **now,
                       may_lead=visit.caller.may("router.lead", router["account"]))

    async def _group(self, visit: Visit, name: str) -> None:
        router = await self.api.ask(visit.request, "GET", _router(name))
        wanted = visit.field("group")
        group = f"/groups/{quote(router['account'] + '.' + (wanted or router['group']), safe='')}/routers/{quote(name)}"
        if wanted or router["group"]:
            await self.api.ask(visit.request, "PUT" if wanted else "DELETE", group)


def _name(visit: Visit) -> str:
    return str(visit.path["router"])


def _router(name: str) -> str:
    return f"/routers/{quote(name, safe='')}"


def _told(facts: Any) -> Told:
    try:
        return msgspec.convert(facts or {}, Told)
    except msgspec.ValidationError:
        return Told()


def _readable(text: bytes) -> str:
    """Return a daemon's log, which has an object of JSON in each line, for people."""
    lines = []
    for line in text.splitlines():
        try:
            found = msgspec.json.decode(line)
            lines.append(f"{utc(float(found['time']))}  {found['level']:7} {found['message']}")
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, OverflowError, OSError):
            lines.append(line.decode(errors="replace"))
    return "\n".join(lines)
