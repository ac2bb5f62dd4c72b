"""The addresses for people: groups, how routers are, releases, roll-outs."""

from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from fussy import windows
from pdimage.server import names
from pdimage.server.http import answer, in_thread
from pdimage.server.refusals import Refused, bad
from pdimage.server.registry.access import Caller
from pdimage.server.registry.desk import PRIVATE
from pdimage.server.registry.fleet.desk import Fleet
from pdimage.server.registry.fleet.groups import Group
from pdimage.server.registry.fleet.rollouts import Lead, Order, Rollout
from pdimage.server.registry.fleet.standing import Some, incidents, numbers, standing
from pdimage.server.registry.fleet.states import Plan, problem
from pdimage.server.registry.permissions import Action
from pdimage.server.registry.reading import number, read
from pdimage.server.registry.routers import full_name

_NEWEST = (1 << 31) - 1
_PAGE = 1000
_INCIDENTS = 50


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group that is to be made or changed."""

    note: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A roll-out that is to be made. ``group``: NAME or ACCOUNT.NAME; empty: all routers of ``account``, by default
    one's own."""

    release: Annotated[str, msgspec.Meta(max_length=300)]
    group: str = ""
    account: str = ""
    plan: Plan = Plan()
    window: Annotated[str, msgspec.Meta(max_length=200)] = ""
    zone: Annotated[str, msgspec.Meta(max_length=64)] = ""
    forced: bool = True
    confirm: bool = False
    approval: bool = False


class Quit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which routers are not waited for any more: by name or pdid; none: all that were asked to let go."""

    routers: Annotated[list[str], msgspec.Meta(max_length=1000)] = []


class FleetApi:
    """The handlers."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.registry = fleet.registry

    async def fleet_list(self, request: Request) -> Response:
        """Show how routers are: what they run, when they were there, how their last update ended; by pdid, ``after``
        the last one that was shown, all if no ``limit`` is named. Numbers and incidents are of all of them."""
        caller = await self.registry.caller(request, "router.read")
        text, some = request.query_params.get("group", ""), Some(_own(caller, "router.read"))
        if text:
            found = await self._group(caller, "router.read", text)
            some = Some(found.account, found.name)
        after, limit = _after(request), number(request, "limit", _NEWEST, _NEWEST)
        engine = self.registry.engine
        return answer({"routers": await in_thread(standing, engine, some, after, limit),
                       "numbers": await in_thread(numbers, engine, some),
                       "incidents": await in_thread(incidents, engine, some, _INCIDENTS)}, 200, PRIVATE)

    async def groups_list(self, request: Request) -> Response:
        """List the groups of the account that asks, or of all."""
        caller = await self.registry.caller(request, "group.read")
        found = await in_thread(self.fleet.groups.all, _own(caller, "group.read"))
        return answer({"groups": found}, 200, PRIVATE)

    async def put_group(self, request: Request) -> Response:
        """Make a group of the account that asks, or change the note of one."""
        caller = await self.registry.caller(request, "group.change")
        note = (await read(request, self.registry.settings, Note)).note
        account, name = await self._name(caller, "group.change", request.path_params["group"])
        if not note.isprintable():
            raise bad("the note must be one line of text")
        if not names.is_good("group", name):
            raise bad("the name of a group must have 1 to 32 letters, digits, - and _, and begin with one of the first")
        most = self.registry.settings.account_groups
        return answer(await in_thread(self.fleet.groups.put, account, name, note, most, caller.who))

    async def delete_group(self, request: Request) -> Response:
        """Forget a group. Its routers stay, in no group."""
        caller = await self.registry.caller(request, "group.change")
        group = await self._group(caller, "group.change", request.path_params["group"])
        await in_thread(self.fleet.groups.delete, group, caller.who)
        return answer(None, 204)

    async def join_group(self, request: Request) -> Response:
        """Put a router into a group, out of the one in which it is."""
        return await self._member(request, joins=True)

    async def leave_group(self, request: Request) -> Response:
        """Take a router out of a group."""
        return await self._member(request, joins=False)

    async def releases(self, request: Request) -> Response:
        """List what can be rolled out; images of the build server are named ``image/REQUEST_HASH`` and not listed."""
        await self.registry.caller(request, "rollout.read")
        return answer({"releases": await in_thread(self.fleet.releases.all)}, 200, PRIVATE)

    async def rollouts_list(self, request: Request) -> Response:
        """List roll-outs, the newest first."""
        caller = await self.registry.caller(request, "rollout.read")
        before, limit = number(request, "before", _NEWEST, _NEWEST), number(request, "limit", 100, _PAGE)
        found = await in_thread(self.fleet.rollouts.all, _own(caller, "rollout.read"), before, limit)
        return answer({"rollouts": [shown(one) for one in found]}, 200, PRIVATE)

    async def start_rollout(self, request: Request) -> Response:
        """Begin a roll-out, or propose it if it wants approval."""
        caller = await self.registry.caller(request, "rollout.lead")
        wish = await read(request, self.registry.settings, Wish)
        _check(wish)
        account, group = await self._whose(caller, wish)
        release = await in_thread(self.fleet.releases.find, wish.release)
        order = Order(account, group, release, wish.plan, wish.window, wish.zone, wish.forced, wish.confirm,
                      wish.approval or self.registry.settings.rollout_approval)
        return answer(shown(await in_thread(self.fleet.rollouts.start, order, caller.who)), 201)

    async def show_rollout(self, request: Request) -> Response:
        """Show a roll-out."""
        caller = await self.registry.caller(request, "rollout.read")
        return answer(shown(await self._rollout(request, caller, "rollout.read")), 200, PRIVATE)

    async def rollout_routers(self, request: Request) -> Response:
        """Show what a roll-out does with each router, by pdid; ``after`` the last one that was shown."""
        caller = await self.registry.caller(request, "rollout.read")
        found = await self._rollout(request, caller, "rollout.read")
        after, limit = _after(request), number(request, "limit", _PAGE, _PAGE)
        listed = await in_thread(self.fleet.rollouts.actions, found.id, after, limit)
        return answer({"routers": listed}, 200, PRIVATE)

    async def approve_rollout(self, request: Request) -> Response:
        """Approve a roll-out that somebody else proposed; it begins."""
        return await self._lead(request, "approve", "rollout.approve")

    async def pause_rollout(self, request: Request) -> Response:
        """Begin it on no more routers, until it is resumed."""
        return await self._lead(request, "pause", "rollout.lead")

    async def resume_rollout(self, request: Request) -> Response:
        """Go on with a roll-out that was paused."""
        return await self._lead(request, "resume", "rollout.lead")

    async def cancel_rollout(self, request: Request) -> Response:
        """End a roll-out; routers that are at it are asked to let go."""
        return await self._lead(request, "cancel", "rollout.lead")

    async def quit_rollout(self, request: Request) -> Response:
        """Do not wait any more for routers that were asked to let go of a roll-out and do not answer."""
        caller = await self.registry.caller(request, "rollout.lead")
        asked = await read(request, self.registry.settings, Quit)
        found = await self._rollout(request, caller, "rollout.lead")
        pdids = {full_name(found.account, name) for name in asked.routers}
        return answer(shown(await in_thread(self.fleet.rollouts.quit, found.id, pdids, caller.who)))

    async def _lead(self, request: Request, what: Lead, action: Action) -> Response:
        caller = await self.registry.caller(request, action)
        found = await self._rollout(request, caller, action)
        return answer(shown(await in_thread(self.fleet.rollouts.lead, found.id, what, caller.who)))

    async def _member(self, request: Request, *, joins: bool) -> Response:
        caller = await self.registry.caller(request, "group.change")
        group = await self._group(caller, "group.change", request.path_params["group"])
        router = await self.registry.router(caller, "group.change", request.path_params["router"])
        if router.account != group.account:
            raise Refused(409, f"{router.pdid} is no router of {group.account}; a group has routers of one account")
        if joins or router.group == group.name:
            await in_thread(self.fleet.groups.set_group, router, group.name if joins else "", caller.who)
        return answer(None, 204)

    async def _whose(self, caller: Caller, wish: Wish) -> tuple[str, str]:
        """Return account and group that a roll-out is for."""
        if wish.group:
            group = await self._group(caller, "rollout.lead", wish.group)
            return group.account, group.name
        name = wish.account or caller.account
        found = await in_thread(self.registry.accounts.find, name) if names.is_good("account", name) else None
        if found is None or not caller.may("rollout.lead", found[0].name):
            raise Refused(404, f"there is no account {names.shown(wish.account)}, or it is not yours")
        return found[0].name, ""

    async def _group(self, caller: Caller, action: Action, text: str) -> Group:
        account, name = await self._name(caller, action, text)
        found = await in_thread(self.fleet.groups.find, account, name) if names.is_good("group", name) else None
        if found is None:
            raise Refused(404, f"there is no group {names.shown(text)}, or it is not yours; see: paradrop fleet groups")
        return found

    async def _name(self, caller: Caller, action: Action, text: str) -> tuple[str, str]:
        """Return account and name of a group: NAME is one's own, ACCOUNT.NAME anybody's.

        :raises Refused: nothing may be done with that account (404)
        """
        account, dot, name = text.rpartition(".")
        if not dot:
            return caller.account, text
        found = await in_thread(self.registry.accounts.find, account) if names.is_good("account", account) else None
        if found is None or not caller.may(action, found[0].name):
            raise Refused(404, f"there is no group {names.shown(text)}, or it is not yours; see: paradrop fleet groups")
        return found[0].name, name

    async def _rollout(self, request: Request, caller: Caller, action: Action) -> Rollout:
        text = request.path_params["rollout"]
        good = text.isascii() and text.isdigit() and len(text) < 10
        found = await in_thread(self.fleet.rollouts.find, int(text)) if good else None
        if found is None or not caller.may(action, found.account):
            raise Refused(404, f"there is no roll-out {names.shown(text)}, or it is not yours; "
                               "see: paradrop fleet rollout list")
        return found


def _own(caller: Caller, action: Action) -> str | None:
    """Return the account whose things somebody may see, None for all."""
    return caller.account if caller.reach(action) == "own" else None


def _after(request: Request) -> str:
    after = request.query_params.get("after", "")
    if after and not names.is_good("pdid", after):
        raise bad("after must be a pdid")
    return after


def _check(wish: Wish) -> None:
    if wrong := problem(wish.plan):
        raise bad(wrong)
    if wish.group and wish.account:
        raise bad("name a group (ACCOUNT.NAME) or an account, not both")
    try:
        windows.parse(wish.window)
    except ValueError as error:
        raise bad(f"the window can't be used: {error}") from error
    try:
        ZoneInfo(wish.zone or "UTC")
    except (OSError, LookupError, ValueError) as error:
        raise bad(f"there is no time zone {names.shown(wish.zone)}; write for example Europe/Berlin") from error


def shown(one: Rollout) -> dict[str, Any]:
    """Return a roll-out as it is told; ``counts`` are of all steps together, ``by_step`` of each."""
    found = msgspec.structs.asdict(one)
    counts = found.pop("counts")
    return {**found, "steps": len(one.plan.steps), "counts": one.total._asdict(),
            "by_step": [counts[step]._asdict() if step in counts else None for step in range(len(one.plan.steps))]}
