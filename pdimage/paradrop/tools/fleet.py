"""``paradrop fleet``: groups of routers, how they are, and roll-outs of releases to them, on the server."""

import time
from typing import Any

import click

from fussy.commands import Command
from fussy.moments import utc
from paradrop.tools import server, show
from paradrop.tools.client import Client, segment
from paradrop.tools.errors import ToolError

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_group = click.argument("group", metavar="GROUP")
_number = click.argument("number", metavar="ID", type=click.IntRange(1, 999_999_999))
_LOOK_SECONDS = 2.0


@click.group()
def fleet() -> None:
    """Lead many routers: groups, how they are, roll-outs of releases.

    A group is named NAME; that of another account, for who may lead it, ACCOUNT.NAME.
    """


@fleet.command(cls=Command)
@click.argument("group", metavar="[GROUP]", default="")
@_json
@click.pass_context
def status(context: click.Context, group: str, as_json: bool) -> None:
    """Show what routers run, when they were there last, and how their last update ended."""
    found = _client(context).ask("GET", "/fleet" + (f"?group={segment(group)}" if group else ""))["routers"]
    click.echo(show.as_json(found) if as_json else standing(found))


@fleet.command(cls=Command)
@_json
@click.pass_context
def groups(context: click.Context, as_json: bool) -> None:
    """List the groups."""
    found = _client(context).ask("GET", "/groups")["groups"]
    click.echo(show.as_json(found) if as_json else show.table(found, "account", "name", "routers", "note"))


@fleet.command(cls=Command)
@_json
@click.pass_context
def releases(context: click.Context, as_json: bool) -> None:
    """List the releases that can be rolled out."""
    found = _client(context).ask("GET", "/releases")["releases"]
    click.echo(show.as_json(found) if as_json else show.table(
        [{**one, "release": one["id"]} for one in found], "release", "version", "size"))


@fleet.group()
def group() -> None:
    """Make groups, and put routers into them."""


@group.command(cls=Command)
@_group
@click.option("--note", default="", help="What the group is for.")
@click.pass_context
def make(context: click.Context, group: str, note: str) -> None:
    """Make a group, or change its note."""
    made = _client(context).ask("PUT", f"/groups/{segment(group)}", {"note": note})
    click.echo(f"{made['account']}.{made['name']} has {made['routers']} routers")


def _members(verb: str, method: str, done: str, text: str) -> None:
    @_group
    @click.argument("routers", metavar="ROUTER...", nargs=-1, required=True)
    @click.pass_context
    def command(context: click.Context, group: str, routers: tuple[str, ...]) -> None:
        client, through = _client(context), []
        try:
            for router in routers:
                client.ask(method, f"/groups/{segment(group)}/routers/{segment(router)}")
                through.append(router)
        finally:  # also of those before one that is refused
            if through:
                click.echo(f"{', '.join(through)}: {done.format(group)}")

    command.__doc__ = text
    group.command(verb, cls=Command)(command)


_members("add", "PUT", "now in {}", "Put routers into a group, out of the one in which they are.")
_members("remove", "DELETE", "not in {} any more", "Take routers out of a group.")


@group.command(cls=Command)
@_group
@click.pass_context
def delete(context: click.Context, group: str) -> None:
    """Forget a group; its routers stay."""
    _client(context).ask("DELETE", f"/groups/{segment(group)}")
    click.echo(f"{group} is deleted")


@fleet.group()
def rollout() -> None:
    """Roll a release out, step by step, and watch it."""


@rollout.command(cls=Command)
@click.argument("release")
@click.option("-g", "--group", default="", help="The group; without it all routers of the account.")
@click.option("--account", default="", help="Whose routers, without a group; one's own by default.")
@click.option("--steps", default="10,50,100", show_default=True, help="Percent of the routers that each step reaches.")
@click.option("--failures", type=click.FloatRange(0, 100), default=20, show_default=True,
              help="It stops when more percent of a step's routers failed ...")
@click.option("--least", type=click.IntRange(1, 1_000_000), default=2, show_default=True,
              help="... and at least so many.")
@click.option("--success", type=click.FloatRange(0, 100), default=50, show_default=True,
              help="Percent of a step's routers that must succeed before the next step.")
@click.option("--seconds", type=click.FloatRange(0, 31_536_000), default=0, show_default=True,
              help="The least time before the next step.")
@click.option("--window", default="", help="When routers may install, such as 02:00-05:00 or Sat,Sun 22:00-04:00.")
@click.option("--zone", default="", help="Time zone of the window, such as Europe/Berlin; the server's by default.")
@click.option("--attempt", is_flag=True, help="Let devices ask their users, if they have any (hawkBit's `attempt`).")
@click.option("--confirm", is_flag=True, help="Have somebody at each device agree first (hawkBit's confirmation).")
@click.option("--approval", is_flag=True, help="Have a second person approve it before it begins.")
@_json
@click.pass_context
def start(context: click.Context, /, release: str, group: str, account: str, steps: str, attempt: bool, confirm: bool,
          approval: bool, window: str, zone: str, as_json: bool, **plan: float) -> None:
    """Roll out RELEASE, a name that the list of releases shows."""
    try:
        percents = [float(step) for step in steps.split(",")]
    except ValueError as error:
        raise click.BadParameter("write percents with commas, such as 10,50,100", param_hint="--steps") from error
    made = _client(context).ask("POST", "/rollouts", {
        "release": release, "group": group, "account": account, "plan": {"steps": percents, **plan}, "window": window,
        "zone": zone, "forced": not attempt, "confirm": confirm, "approval": approval})
    click.echo(show.as_json(made) if as_json else described(made))


@rollout.command("list", cls=Command)
@_json
@click.pass_context
def list_rollouts(context: click.Context, as_json: bool) -> None:
    """List roll-outs, the newest first."""
    found = _client(context).ask("GET", "/rollouts")["rollouts"]
    rows = [{**one, "of": f"{one['account']}.{one['group']}" if one["group"] else one["account"],
             "at step": f"{one['step'] + 1} of {one['steps']}", "routers": counted(one["counts"])} for one in found]
    click.echo(show.as_json(found) if as_json else show.table(
        rows, "id", "state", "at step", "of", "title", "version", "routers"))


@rollout.command("show", cls=Command)
@_number
@click.option("--routers", is_flag=True, help="Show each router, too.")
@_json
@click.pass_context
def show_rollout(context: click.Context, number: int, routers: bool, as_json: bool) -> None:
    """Show a roll-out: how far it is, and why it stands."""
    client = _client(context)
    found = client.ask("GET", f"/rollouts/{number}")
    each = _routers(client, number) if routers else []
    if as_json:
        click.echo(show.as_json({**found, "routers": each} if routers else found))
        return
    click.echo(described(found))
    if routers:
        click.echo(show.table([{**one, "step": one["step"] + 1, "router": one["pdid"], "reason": one["reason"] or None}
                               for one in each], "router", "step", "state", "reason"))


@rollout.command(cls=Command)
@_number
@click.pass_context
def wait(context: click.Context, number: int) -> None:
    """Wait until a roll-out has ended: exit code 0 if it reached all, 1 if it was stopped or cancelled."""
    client = _client(context)
    while (found := client.ask("GET", f"/rollouts/{number}"))["state"] in ("proposed", "running", "paused"):
        time.sleep(_LOOK_SECONDS)
    click.echo(described(found))
    if found["state"] != "finished":
        context.exit(ToolError.exit_code)


def _lead(verb: str, text: str) -> None:
    @_number
    @click.pass_context
    def command(context: click.Context, number: int) -> None:
        click.echo(described(_client(context).ask("POST", f"/rollouts/{number}/{verb}")))

    command.__doc__ = text
    rollout.command(verb, cls=Command)(command)


_lead("approve", "Approve a roll-out that somebody else proposed; it begins.")
_lead("pause", "Begin it on no more routers, until it is resumed.")
_lead("resume", "Go on with a roll-out that was paused.")
_lead("cancel", "End a roll-out; routers that are at it are asked to let go.")


@rollout.command("quit", cls=Command)
@_number
@click.argument("routers", metavar="[ROUTER]...", nargs=-1)
@click.pass_context
def quit_rollout(context: click.Context, number: int, routers: tuple[str, ...]) -> None:
    """Do not wait any more for routers that were asked to let go and do not answer: these, or all of them."""
    click.echo(described(_client(context).ask("POST", f"/rollouts/{number}/quit", {"routers": routers})))


def counted(counts: dict[str, int]) -> str:
    """Return how many routers are in each state.

    >>> counted({"waiting": 0, "running": 2, "done": 5, "failed": 1})
    '2 running, 5 done, 1 failed'
    """
    return ", ".join(f"{many} {state}" for state, many in counts.items() if many) or "none yet"


def described(one: dict[str, Any]) -> str:
    """Return a roll-out as text for people."""
    whom = f"group {one['account']}.{one['group']}" if one["group"] else f"all routers of {one['account']}"
    lines = [f"roll-out {one['id']}: {one['title']} {one['version']} to {whom}".replace("  ", " "),
             _state(one["state"], one["reason"]),
             f"step {one['step'] + 1} of {one['steps']} ({_percents(one['plan']['steps'])} %); routers: "
             f"{counted(one['counts'])}"]
    if one["window"]:
        lines.append(f"installed in {one['window']} ({one['zone'] or 'time of the server'})")
    if one["confirm"]:
        lines.append("begun on a router when somebody there has confirmed it")
    lines.append(f"made {utc(one['made'], 'minute')} by {one['made_by']}"
                 + (f", approved by {one['approved_by']}" if one["approved_by"] else "")
                 + (f", ended {utc(one['ended'], 'minute')}" if one["ended"] else ""))
    return "\n".join(lines)


def _state(state: str, reason: str) -> str:
    """Return a roll-out's state with its reason: who ended it, or why it ended by itself."""
    return f"{state}{'' if reason.startswith('by ') or not reason else ':'} {reason}".rstrip()


def standing(routers: list[dict[str, Any]]) -> str:
    """Return how routers are, as a table."""
    rows = [{"router": one["pdid"], "group": one["group"] or None, "awake": "yes" if one["awake"] else "no",
             "last there": utc(one["seen"], "minute") if one["seen"] else None,
             "runs": f"{one['release']} {one['version']}".strip() or None,
             "last update": _last(one)} for one in routers]
    return show.table(rows, "router", "group", "awake", "last there", "runs", "last update")


def _last(one: dict[str, Any]) -> str | None:
    """Return how the last update went: what a roll-out does with the router, otherwise what its updater told."""
    action, outcome = one["action"], one["outcome"]
    if action:
        return f"{action['state']}{': ' + action['reason'] if action['reason'] else ''}"
    return str(outcome.get("line")) if isinstance(outcome, dict) and outcome.get("line") else None


def _percents(steps: list[float]) -> str:
    return ", ".join(f"{step:g}" for step in steps)


def _routers(client: Client, number: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    here = f"/rollouts/{number}/routers?after="
    while more := client.ask("GET", here + (found[-1]["pdid"] if found else ""))["routers"]:
        found += more
    return found


def _client(context: click.Context) -> Client:
    return server.client(server.logged_in(context.obj["token"]))
