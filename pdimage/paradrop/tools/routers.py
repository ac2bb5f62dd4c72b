"""The commands for the routers of an account: give a device its identity, list them, follow a router's log."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import click

from fussy.commands import Command
from fussy.moments import utc
from paradrop.tools import server, show, tokens
from paradrop.tools.client import Client, router_at, segment
from paradrop.tools.onrouter import directly, host, port, through_server

follow_option = click.option("-f", "--follow", is_flag=True, help="Go on as more comes.")
lines_option = click.option("-n", "--lines", type=click.IntRange(0, 10000), default=200, show_default=True,
                            help="How many lines to begin with.")


@click.command("router-provision", cls=Command)
@click.argument("name")
@host
@port
@click.option("--again", is_flag=True, help="Also if the device, or the router NAME, is provisioned already.")
@click.pass_context
def router_provision(context: click.Context, name: str, host: str, port: int, again: bool) -> None:
    """Make the device at HOST PORT the router NAME, which ``router-create`` has made.

    The server gives a secret, which is good once and soon; the device makes its own keys and asks the server with it.
    """
    known = server.logged_in(context.obj["token"])
    order = server.client(known).ask("POST", f"/routers/{segment(name)}/provision")
    device = Client(router_at(host, port), tokens.find(host, port))  # the token of the options is for the server
    made = device.ask("POST", "/api/v1/provision", {
        "server": order["server"], "secret": order["secret"],
        "server_certificate": order["server_certificate"] or known.certificate or None, "again": again})
    click.echo(f"The router at {host} port {port} is {made['pdid']}")
    for note in made["notes"]:
        click.echo(note)


@click.command("list", cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_routers(context: click.Context, as_json: bool) -> None:
    """List the routers of the account: whether they are awake, and how their last update ended."""
    found = server.client(server.logged_in(context.obj["token"])).ask("GET", "/routers")["routers"]
    if as_json:
        click.echo(show.as_json(found))
        return
    click.echo("routers")
    width = max((len(router["pdid"]) for router in found), default=0)
    for router in found:
        click.echo(f"  {router['pdid']:{width}}  {_presence(router)}{_outcome(router['outcome'])}")
        if router["incident"]:
            click.echo(f"    {router['incident']}")


@click.command(cls=Command)
@click.argument("where", nargs=-1, metavar="NAME | HOST PORT")
@click.option("-r", "--router", metavar="NAME", help="As NAME: a router of the server.")
@click.option("-f/-F", "--follow/--no-follow", default=None,
              help="Go on as more comes; a router by NAME is followed unless this says no.")
@lines_option
@click.pass_context
def logs(context: click.Context, where: tuple[str, ...], router: str | None, follow: bool | None, lines: int) -> None:
    """Show the log of a router's daemon: of the router NAME, while it is awake, or of the one at HOST PORT."""
    named = [*where, *([router] if router is not None else [])]
    if len(named) == 1:
        client = through_server(context, named[0])
        goes_on = follow is not False
    elif len(where) == 2 and router is None:
        client = directly(context, where[0], port_number(context, where[1]))
        goes_on = follow is True
    else:
        raise click.UsageError("write NAME, or HOST PORT", context)
    found = client.text(f"/api/v1/logs?tail={lines}&follow={str(goes_on).lower()}")
    copy(show.log_line(line) for line in found)


def port_number(context: click.Context, text: str) -> int:
    """Return the number of a port. UsageError if it is none."""
    return int(click.IntRange(1, 65535)(text, None, context))


def copy(lines: Iterator[str]) -> None:
    """Print lines as they come, until there are no more or the user has enough."""
    with suppress(KeyboardInterrupt):
        for line in lines:
            click.echo(line)


def _presence(router: dict[str, Any]) -> str:
    if router["awake"]:
        return "awake"
    if router["provisioned"] is None:
        return "not provisioned"
    seen = router["seen"]
    return "asleep" + (f" since {utc(seen, 'minute')}" if seen else "")


def _outcome(outcome: dict[str, Any] | None) -> str:
    return f"  {outcome['outcome']}: {outcome['line']}" if outcome else ""


COMMANDS: tuple[click.Command, ...] = (router_provision, list_routers, logs)
