"""The commands for an account on the server: register, log in and out, password, tokens, and making routers by name.

A password is asked for, or comes from PARADROP_PASSWORD; it is never an argument, which others could see.
"""

import os
from typing import Any
from urllib.parse import urlsplit

import click

from fussy.commands import Command
from fussy.moments import utc
from paradrop.backend.pdfcd.apiutils import isLoopback
from paradrop.tools import server, show
from paradrop.tools.client import segment

_server = click.option("-s", "--server", "url", metavar="URL", help="The server (also PARADROP_SERVER); it is kept.")
_name = click.option("-u", "--user", "name", prompt="Name", help="Name of the account; asked for if it is not given.")


@click.command(cls=Command)
@_server
@_name
@click.option("--invited", is_flag=True, help="Ask for the code of an invitation, too.")
def register(url: str | None, name: str, invited: bool) -> None:
    """Make an account on the server, and log in."""
    known = _trusted(url, anew=False)
    code = {"invitation": _secret("Code of the invitation", "PARADROP_CODE")} if invited else {}
    password = _new_password()
    made = server.client(known).ask("POST", "/accounts", {"name": name, "password": password, **code})
    click.echo(f"The account {made['name']} is made")
    _log_in(known, name, password)


@click.command(cls=Command)
@_server
@_name
@click.option("--new-certificate", is_flag=True, help="Accept that the server's certificate was changed.")
def login(url: str | None, name: str, new_certificate: bool) -> None:
    """Log in on the server, so that this computer may act for an account for some weeks."""
    _log_in(_trusted(url, anew=new_certificate), name, _secret("Password", "PARADROP_PASSWORD"))


@click.command(cls=Command)
def logout() -> None:
    """Log out: the server and this computer forget the login."""
    known = server.logged_in()
    try:
        server.client(known).ask("POST", "/logout")
    finally:
        server.keep(server.Known(known.url, known.certificate, known.account))
    click.echo("Logged out")


@click.command(cls=Command)
@click.pass_context
def password(context: click.Context) -> None:
    """Change the password of the account; all other logins and tokens end."""
    known = _account(context)
    answer = server.client(known).ask("PUT", "/account/password", {
        "old": _secret("Old password", "PARADROP_OLD_PASSWORD"), "new": _new_password()})
    server.keep(server.Known(known.url, known.certificate, answer["name"], answer["token"]))
    click.echo("The password is changed; all other logins have ended")


@click.command(cls=Command)
@_server
@_name
def reset(url: str | None, name: str) -> None:
    """Set a new password with the code that an administrator issued, and log in."""
    known = _trusted(url, anew=False)
    code, new = _secret("Code", "PARADROP_CODE"), _new_password()
    server.client(known).ask("POST", "/reset", {"name": name, "code": code, "password": new})
    _log_in(known, name, new)


@click.command("router-create", cls=Command)
@click.argument("name")
@click.pass_context
def router_create(context: click.Context, name: str) -> None:
    """Make a router by NAME on the server; it is empty until a device is provisioned as it."""
    made = server.client(_account(context)).ask("POST", "/routers", {"name": name})
    click.echo(f"{made['pdid']} is made; give it to a device with: paradrop router-provision {name} HOST PORT")


@click.command("router-delete", cls=Command)
@click.argument("name")
@click.confirmation_option(prompt="The router will have to be provisioned again to come back. Delete it?")
@click.pass_context
def router_delete(context: click.Context, name: str) -> None:
    """Forget a router on the server; the device goes on by itself."""
    server.client(_account(context)).ask("DELETE", f"/routers/{segment(name)}")
    click.echo(f"{name} is deleted")


@click.command("router-clear", cls=Command)
@click.argument("name")
@click.pass_context
def router_clear(context: click.Context, name: str) -> None:
    """Forget the incident that the list shows for a router, once somebody has seen to it."""
    server.client(_account(context)).ask("DELETE", f"/routers/{segment(name)}/incident")
    click.echo(f"{name} has no incident")


@click.group()
def tokens() -> None:
    """See and end logins, and make tokens for programs."""


@tokens.command("list", cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_tokens(context: click.Context, as_json: bool) -> None:
    """List the logins and tokens of the account."""
    found = server.client(_account(context)).ask("GET", "/tokens")["tokens"]
    rows = [{**token, "reads only": "yes" if token["read"] else "no", "until": utc(token["expires"], "day")}
            for token in found]
    click.echo(show.as_json(found) if as_json else show.table(rows, "id", "kind", "label", "reads only", "until"))


@tokens.command("make", cls=Command)
@click.argument("label")
@click.option("--read", is_flag=True, help="A token that only reads.")
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long it is good.")
@click.pass_context
def make_token(context: click.Context, label: str, read: bool, days: int) -> None:
    """Make a token for a program, which gives it in PARADROP_TOKEN. It is shown this once."""
    made = server.client(_account(context)).ask("POST", "/tokens", {"label": label, "read": read, "days": days})
    click.echo(made["token"])


@tokens.command("end", cls=Command)
@click.argument("number", metavar="ID")
@click.pass_context
def end_token(context: click.Context, number: str) -> None:
    """End a login or token, by the ID that the list shows."""
    server.client(_account(context)).ask("DELETE", f"/tokens/{segment(number)}")
    click.echo(f"{number} has ended")


COMMANDS: tuple[click.Command, ...] = (
    register, login, logout, password, reset, tokens, router_create, router_delete, router_clear)


def _account(context: click.Context) -> server.Known:
    return server.logged_in(context.obj["token"])


def _trusted(url: str | None, *, anew: bool) -> server.Known:
    """Return the server, after a person looked at a certificate that nobody vouches for and that is not known yet."""
    known = server.chosen(url)
    parts = urlsplit(known.url)
    if parts.scheme == "http" and parts.hostname != "localhost" and not isLoopback(parts.hostname or ""):
        click.echo(f"{known.url} is not encrypted: others on the way can read the password", err=True)
    if known.certificate and not anew:
        return known
    return server.Known(known.url, server.trust(known.url, _confirm))


def _confirm(fingerprint: str, why: str) -> bool:
    click.echo(f"The server's certificate is not vouched for by anybody ({why}). Its fingerprint (SHA-256) is\n"
               f"  {fingerprint}")
    return click.confirm("Is it the one that whoever runs the server gave you?")


def _log_in(known: server.Known, name: str, password: str) -> None:
    answer: dict[str, Any] = server.client(known).ask("POST", "/login", {"name": name, "password": password})
    server.keep(server.Known(known.url, known.certificate, answer["name"], answer["token"]))
    click.echo(f"Logged in as {answer['name']} ({answer['role']}) until {utc(answer['expires'], 'day')}")


def _secret(what: str, variable: str) -> str:
    return os.environ.get(variable) or str(click.prompt(what, hide_input=True))


def _new_password() -> str:
    return os.environ.get("PARADROP_PASSWORD") or str(click.prompt(
        "New password", hide_input=True, confirmation_prompt=True))
