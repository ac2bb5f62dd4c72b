"""The commands of a server's administrators: the accounts of others, and who changed what.

Whoever has the server's own directory has ``pdimage accounts`` for the same, without an account.
"""

from typing import Any

import click

from fussy.commands import Command
from fussy.moments import utc
from paradrop.tools import server, show
from paradrop.tools.client import Client, segment

ROLES = ("user", "viewer", "operator", "admin")

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_name = click.argument("name")


@click.group()
def accounts() -> None:
    """See and change the accounts of the server, as its administrator."""


@accounts.command("list", cls=Command)
@_json
@click.pass_context
def list_accounts(context: click.Context, as_json: bool) -> None:
    """List the accounts."""
    found = _client(context).ask("GET", "/accounts")["accounts"]
    rows = [{**one, "made": utc(one["made"], "minute"), "state": _state(one) or None} for one in found]
    click.echo(show.as_json(found) if as_json else show.table(rows, "name", "role", "made", "state"))


@accounts.command(cls=Command)
@_name
@click.argument("role", type=click.Choice(ROLES))
@click.pass_context
def role(context: click.Context, name: str, role: str) -> None:
    """Give an account another role; it counts at once."""
    _change(context, name, {"role": role})


def _lock(verb: str, locked: bool, text: str) -> None:
    @_name
    @click.pass_context
    def command(context: click.Context, name: str) -> None:
        _change(context, name, {"locked": locked})

    command.__doc__ = text
    accounts.command(verb, cls=Command)(command)


_lock("lock", True, "Lock an account: its logins and tokens end, and nobody can log in to it.")
_lock("unlock", False, "Unlock an account.")


def _code(verb: str, text: str) -> None:
    @_name
    @click.pass_context
    def command(context: click.Context, name: str) -> None:
        made = _client(context).ask("POST", f"/accounts/{segment(name)}/{verb}")
        click.echo(f"{made['code']}  (until {utc(made['expires'], 'minute')})")

    command.__doc__ = text
    accounts.command(verb, cls=Command)(command)


_code("reset", "Issue a code with which an account's password can be set once: paradrop reset.")
_code("invite", "Issue a code with which somebody can register a name: paradrop register --invited.")


@accounts.command(cls=Command)
@_name
@click.confirmation_option(prompt="Its groups and roll-outs go with it, and it does not come back. Delete it?")
@click.pass_context
def delete(context: click.Context, name: str) -> None:
    """Forget an account that has no routers, with its groups and roll-outs."""
    _client(context).ask("DELETE", f"/accounts/{segment(name)}")
    click.echo(f"{name} is deleted")


@click.command(cls=Command)
@click.option("-n", "--lines", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many lines.")
@_json
@click.pass_context
def audit(context: click.Context, lines: int, as_json: bool) -> None:
    """Show who changed what, the newest first: of the account, or of all for who may see them."""
    found = _client(context).ask("GET", f"/audit?limit={lines}")["entries"]
    rows = [{**one, "when": utc(one["time"], "minute"), "from": one["address"] or None, "of": one["subject"],
             "what": one["action"] + (f": {one['text']}" if one["text"] else "")} for one in found]
    click.echo(show.as_json(found) if as_json else show.table(rows, "when", "who", "from", "of", "what"))


COMMANDS: tuple[click.Command, ...] = (accounts, audit)


def _client(context: click.Context) -> Client:
    return server.client(server.logged_in(context.obj["token"]))


def _change(context: click.Context, name: str, wanted: dict[str, Any]) -> None:
    found = _client(context).ask("PUT", f"/accounts/{segment(name)}", wanted)
    state = _state(found)
    click.echo(f"{found['name']}: {found['role']}{', ' + state if state else ''}")


def _state(account: dict[str, Any]) -> str:
    return ", ".join(word for word in ("locked", "invited") if account[word])
