"""The ``paradrop`` command.

It talks to a router directly, by host and port, without an account anywhere else; or by its name (``-r NAME``), through
the server that has accounts and knows routers (:mod:`.account`, :mod:`.routers`).
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

import fussy
from fussy.commands import Command
from paradrop.lib import settings
from paradrop.tools import account, accounts, fleet, routers, show, tokens
from paradrop.tools.client import Client, Result, router_at, segment
from paradrop.tools.display import Display
from paradrop.tools.errors import ToolError
from paradrop.tools.onrouter import RouterCommand, directly, host, on_router, port
from paradrop.tools.routers import copy, follow_option, lines_option

_DOING = {"install": "Installing", "update": "Updating", "delete": "Removing", "start": "Starting", "stop": "Stopping",
          "restart": "Restarting", "roll back": "Rolling back", "configure": "Configuring"}

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("paradrop", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("-v", "--verbose", is_flag=True, help="Show every line of progress, also on a terminal.")
@click.option("--token", envvar="PARADROP_TOKEN", help="Token to prove who asks (also PARADROP_TOKEN).")
@click.version_option(fussy.__version__, prog_name="paradrop")
@click.pass_context
def main(context: click.Context, verbose: bool, token: str | None) -> None:
    """Install and watch chutes, the apps of a router.

    Exit codes: 0 it is done, 1 the router could not do it, 2 wrong usage, 3 the chute's files are wrong, 4 the router
    does not answer, 5 the router wants a password or token.
    """
    settings.updateSettings()
    context.obj = {"verbose": verbose, "token": token}


for _command in (*account.COMMANDS, *accounts.COMMANDS, *routers.COMMANDS, fleet.fleet):
    main.add_command(_command)


@main.group()
def chute() -> None:
    """Install, start, stop, watch and remove chutes."""


@chute.command(cls=RouterCommand)
@on_router
@click.argument("path", type=click.Path(path_type=Path))
@click.pass_context
def install(context: click.Context, client: Client, path: Path) -> None:
    """Install the chute that PATH describes, a config.yaml or paradrop.yaml."""
    _send_project(context, client, path, "install")


@chute.command(cls=RouterCommand)
@on_router
@click.argument("path", type=click.Path(path_type=Path))
@click.pass_context
def update(context: click.Context, client: Client, path: Path) -> None:
    """Replace a chute by the version that PATH describes."""
    _send_project(context, client, path, "update")


def _by_name(verb: str, text: str) -> None:
    @on_router
    @click.argument("name")
    @click.pass_context
    def command(context: click.Context, client: Client, name: str) -> None:
        _show(context, verb, client.documented(verb, {"name": name}))

    command.__doc__ = text
    chute.command(verb, cls=RouterCommand)(command)


_by_name("delete", "Remove a chute and its data.")
_by_name("start", "Start a chute.")
_by_name("stop", "Stop a chute.")


@chute.command(cls=RouterCommand)
@on_router
@click.argument("name")
@click.pass_context
def restart(context: click.Context, client: Client, name: str) -> None:
    """Restart a chute."""
    _show(context, "restart", client.change("POST", f"{_place(name)}/restart", {}))


@chute.command(cls=RouterCommand)
@on_router
@click.argument("name")
@click.pass_context
def rollback(context: click.Context, client: Client, name: str) -> None:
    """Bring back the version of a chute that was there before the last update."""
    _show(context, "roll back", client.change("POST", f"{_place(name)}/rollback"))


@chute.command("list", cls=RouterCommand)
@on_router
@_json
def list_chutes(client: Client, as_json: bool) -> None:
    """List the chutes of a router, and how their containers are."""
    chutes = client.ask("GET", "/api/v1/chutes")
    click.echo(show.as_json(chutes) if as_json else show.chutes(chutes))


@chute.command("logs", cls=RouterCommand)
@on_router
@click.argument("name")
@follow_option
@lines_option
def chute_logs(client: Client, name: str, follow: bool, lines: int) -> None:
    """Show what a chute has written."""
    copy(client.text(f"{_place(name)}/logs?tail={lines}&follow={str(follow).lower()}"))


@main.group()
def router() -> None:
    """See how a router is, and log in."""


@router.command(cls=RouterCommand)
@on_router
@_json
def status(client: Client, as_json: bool) -> None:
    """Show how a router is."""
    found = client.ask("GET", "/api/v1/status")
    click.echo(show.as_json(found) if as_json else show.status(found))


@router.command(cls=RouterCommand)
@on_router
@click.argument("file", required=False)
@_json
def config(client: Client, file: str | None, as_json: bool) -> None:
    """Show a router's configuration, or one FILE of it (network, wireless, firewall, dhcp)."""
    found = client.ask("GET", f"/api/v1/config/{segment(file)}" if file else "/api/v1/config")
    files = {file: found} if file else found
    if as_json:
        click.echo(show.as_json(files))
        return
    for name, sections in files.items():
        click.echo((f"# {name}\n" if len(files) > 1 else "") + show.configuration(sections), nl=False)


@router.command("set-config", cls=RouterCommand)
@on_router
@click.argument("file")
@click.argument("path", type=click.Path(path_type=Path))
@click.pass_context
def set_config(context: click.Context, client: Client, file: str, path: Path) -> None:
    """Replace a router's own sections of FILE by those in PATH, in the form that ``router config`` shows.

    Sections that belong to chutes stay as they are on the router. If any section fails, the old ones come back.
    """
    from paradrop.tools import project

    body = {"sections": project.read_sections(path)}
    _show(context, "configure", client.change("PUT", f"/api/v1/config/{segment(file)}", body), "router")


@router.command(cls=RouterCommand)
@on_router
@_json
def changes(client: Client, as_json: bool) -> None:
    """List what was asked of a router, and how it ended."""
    found = client.ask("GET", "/api/v1/changes")
    click.echo(show.as_json(found) if as_json else show.table(found, "id", "kind", "chute", "state", "message"))


@router.command(cls=Command)
@host
@port
@click.option("-u", "--user", default="admin", show_default=True)
@click.option("--password", prompt=True, hide_input=True, envvar="PARADROP_PASSWORD",
              help="Asked for if it is not given (also PARADROP_PASSWORD).")
@click.pass_context
def login(context: click.Context, host: str, port: int, user: str, password: str) -> None:
    """Log in, so that this computer may use a router for thirty days."""
    answer = Client(router_at(host, port)).ask("POST", "/api/v1/login", {"username": user, "password": password})
    place = tokens.keep(host, port, answer["token"])
    click.echo(f"Logged in as {answer['role']}; the token is in {place}")


@router.command(cls=Command)
@host
@port
@click.pass_context
def logout(context: click.Context, host: str, port: int) -> None:
    """Log out: the router and this computer forget the token."""
    try:
        directly(context, host, port).ask("POST", "/api/v1/logout")
    finally:
        tokens.keep(host, port, None)
    click.echo("Logged out")


@router.command(cls=Command)
@host
@port
@click.argument("user", default="admin")
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]))
@click.option("--password", prompt=True, hide_input=True, confirmation_prompt=True, envvar="PARADROP_PASSWORD",
              help="Asked for if it is not given (also PARADROP_PASSWORD).")
@click.pass_context
def password(context: click.Context, host: str, port: int, user: str, role: str | None, password: str) -> None:
    """Set the password of USER (admin), who is made if he is not there. The first one is set on the router itself."""
    wanted = role or ("admin" if user == "admin" else None)
    answer = directly(context, host, port).ask("PUT", f"/api/v1/users/{segment(user)}",
                                              {"password": password, "role": wanted})
    click.echo(f"{answer['name']} may log in as {answer['role']}")


def _place(name: str) -> str:
    return f"/api/v1/chutes/{segment(name)}"


def _send_project(context: click.Context, client: Client, path: Path, verb: str) -> None:
    from paradrop.tools import project

    found = project.read(path)
    if found.archive is None:
        kind = "create" if verb == "install" else verb
        steps = client.documented(kind, {"config": found.config})
    elif verb == "install":
        steps = client.change("POST", "/api/v1/projects", found.archive, "application/x-tar")
    else:
        steps = client.change("PUT", f"/api/v1/projects/{segment(found.name)}", found.archive, "application/x-tar")
    _show(context, verb, steps)


def _show(context: click.Context, verb: str, steps: Iterator[str | Result], what: str = "chute") -> None:
    """Show the progress of an operation and its outcome in the documented words."""
    click.echo(f"{_DOING[verb]} {what}...")
    display = Display(sys.stdout, sys.stdout.isatty() and not context.obj["verbose"])
    result = Result(False, "")
    with display.running():
        for step in steps:
            if isinstance(step, Result):
                result = step
            else:
                display.line(step)
    if not result.success:
        display.failed()
        click.echo(f"ERROR: Failed to {verb} {what}.({result.message})", err=True)
        context.exit(ToolError.exit_code)
    click.echo(result.message if display.shown else f"\n{result.message}")
