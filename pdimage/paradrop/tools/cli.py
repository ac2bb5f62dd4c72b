"""The ``paradrop`` command.

It talks to a router directly, by host and port, without an account anywhere else; accounts and routers by name are on
a server (:mod:`.account`).
"""

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click

import fussy
from fussy.commands import Command
from paradrop.lib import settings
from paradrop.tools import account, show, tokens
from paradrop.tools.client import Client, Result, router_at, segment
from paradrop.tools.display import Display
from paradrop.tools.errors import ToolError

_DOING = {"install": "Installing", "update": "Updating", "delete": "Removing", "start": "Starting", "stop": "Stopping",
          "restart": "Restarting", "roll back": "Rolling back", "configure": "Configuring"}

_host = click.argument("host")
_port = click.argument("port", type=click.IntRange(1, 65535))
_follow = click.option("-f", "--follow", is_flag=True, help="Go on as more comes.")
_tail = click.option("-n", "--lines", type=click.IntRange(0, 10000), default=200, show_default=True,
                     help="How many lines to begin with.")
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


for _command in account.COMMANDS:
    main.add_command(_command)


@main.group()
def chute() -> None:
    """Install, start, stop, watch and remove chutes."""


@chute.command(cls=Command)
@_host
@_port
@click.argument("path", type=click.Path(path_type=Path))
@click.pass_context
def install(context: click.Context, host: str, port: int, path: Path) -> None:
    """Install the chute that PATH describes, a config.yaml or paradrop.yaml."""
    _send_project(context, host, port, path, "install")


@chute.command(cls=Command)
@_host
@_port
@click.argument("path", type=click.Path(path_type=Path))
@click.pass_context
def update(context: click.Context, host: str, port: int, path: Path) -> None:
    """Replace a chute by the version that PATH describes."""
    _send_project(context, host, port, path, "update")


def _by_name(verb: str, text: str) -> None:
    @_host
    @_port
    @click.argument("name")
    @click.pass_context
    def command(context: click.Context, host: str, port: int, name: str) -> None:
        _show(context, verb, _client(context, host, port).documented(verb, {"name": name}))

    command.__doc__ = text
    chute.command(verb, cls=Command)(command)


_by_name("delete", "Remove a chute and its data.")
_by_name("start", "Start a chute.")
_by_name("stop", "Stop a chute.")


@chute.command(cls=Command)
@_host
@_port
@click.argument("name")
@click.pass_context
def restart(context: click.Context, host: str, port: int, name: str) -> None:
    """Restart a chute."""
    _show(context, "restart", _client(context, host, port).change("POST", f"{_place(name)}/restart", {}))


@chute.command(cls=Command)
@_host
@_port
@click.argument("name")
@click.pass_context
def rollback(context: click.Context, host: str, port: int, name: str) -> None:
    """Bring back the version of a chute that was there before the last update."""
    _show(context, "roll back", _client(context, host, port).change("POST", f"{_place(name)}/rollback"))


@chute.command("list", cls=Command)
@_host
@_port
@_json
@click.pass_context
def list_chutes(context: click.Context, host: str, port: int, as_json: bool) -> None:
    """List the chutes of a router, and how their containers are."""
    chutes = _client(context, host, port).ask("GET", "/api/v1/chutes")
    click.echo(show.as_json(chutes) if as_json else show.chutes(chutes))


@chute.command("logs", cls=Command)
@_host
@_port
@click.argument("name")
@_follow
@_tail
@click.pass_context
def chute_logs(context: click.Context, host: str, port: int, name: str, follow: bool, lines: int) -> None:
    """Show what a chute has written."""
    _copy(_client(context, host, port).text(f"{_place(name)}/logs?tail={lines}&follow={str(follow).lower()}"))


@main.command(cls=Command)
@_host
@_port
@_follow
@_tail
@click.pass_context
def logs(context: click.Context, host: str, port: int, follow: bool, lines: int) -> None:
    """Show the log of a router's daemon."""
    found = _client(context, host, port).text(f"/api/v1/logs?tail={lines}&follow={str(follow).lower()}")
    _copy(show.log_line(line) for line in found)


@main.group()
def router() -> None:
    """See how a router is, and log in."""


@router.command(cls=Command)
@_host
@_port
@_json
@click.pass_context
def status(context: click.Context, host: str, port: int, as_json: bool) -> None:
    """Show how a router is."""
    found = _client(context, host, port).ask("GET", "/api/v1/status")
    click.echo(show.as_json(found) if as_json else show.status(found))


@router.command(cls=Command)
@_host
@_port
@click.argument("file", required=False)
@_json
@click.pass_context
def config(context: click.Context, host: str, port: int, file: str | None, as_json: bool) -> None:
    """Show a router's configuration, or one FILE of it (network, wireless, firewall, dhcp)."""
    client = _client(context, host, port)
    found = client.ask("GET", f"/api/v1/config/{segment(file)}" if file else "/api/v1/config")
    files = {file: found} if file else found
    if as_json:
        click.echo(show.as_json(files))
        return
    for name, sections in files.items():
        click.echo((f"# {name}\n" if len(files) > 1 else "") + show.configuration(sections), nl=False)


@router.command("set-config", cls=Command)
@_host
@_port
@click.argument("file")
@click.argument("path", type=click.Path(path_type=Path))
@click.pass_context
def set_config(context: click.Context, host: str, port: int, file: str, path: Path) -> None:
    """Replace a router's own sections of FILE by those in PATH, in the form that ``router config`` shows.

    Sections that belong to chutes stay as they are on the router. If any section fails, the old ones come back.
    """
    from paradrop.tools import project

    body = {"sections": project.read_sections(path)}
    _show(context, "configure", _client(context, host, port).change("PUT", f"/api/v1/config/{segment(file)}", body),
          "router")


@router.command(cls=Command)
@_host
@_port
@_json
@click.pass_context
def changes(context: click.Context, host: str, port: int, as_json: bool) -> None:
    """List what was asked of a router, and how it ended."""
    found = _client(context, host, port).ask("GET", "/api/v1/changes")
    click.echo(show.as_json(found) if as_json else show.table(found, "id", "kind", "chute", "state", "message"))


@router.command(cls=Command)
@_host
@_port
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
@_host
@_port
@click.pass_context
def logout(context: click.Context, host: str, port: int) -> None:
    """Log out: the router and this computer forget the token."""
    try:
        _client(context, host, port).ask("POST", "/api/v1/logout")
    finally:
        tokens.keep(host, port, None)
    click.echo("Logged out")


@router.command(cls=Command)
@_host
@_port
@click.argument("user", default="admin")
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]))
@click.option("--password", prompt=True, hide_input=True, confirmation_prompt=True, envvar="PARADROP_PASSWORD",
              help="Asked for if it is not given (also PARADROP_PASSWORD).")
@click.pass_context
def password(context: click.Context, host: str, port: int, user: str, role: str | None, password: str) -> None:
    """Set the password of USER (admin), who is made if he is not there. The first one is set on the router itself."""
    wanted = role or ("admin" if user == "admin" else None)
    answer = _client(context, host, port).ask("PUT", f"/api/v1/users/{segment(user)}",
                                              {"password": password, "role": wanted})
    click.echo(f"{answer['name']} may log in as {answer['role']}")


def _client(context: click.Context, host: str, port: int) -> Client:
    return Client(router_at(host, port), context.obj["token"] or tokens.find(host, port))


def _place(name: str) -> str:
    return f"/api/v1/chutes/{segment(name)}"


def _send_project(context: click.Context, host: str, port: int, path: Path, verb: str) -> None:
    from paradrop.tools import project

    found, client = project.read(path), _client(context, host, port)
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


def _copy(lines: Iterator[str]) -> None:
    with suppress(KeyboardInterrupt):
        for line in lines:
            click.echo(line)
