"""Which router a command is for: the one at HOST and PORT, or one of the server's by name (``-r NAME``)."""

import functools
from collections.abc import Callable
from typing import Any

import click

from fussy.commands import Command
from paradrop.tools import server, tokens
from paradrop.tools.client import Client, router_at

_BY_NAME = "paradrop.by-name"
_HERE = ("host", "port")

host = click.argument("host")
port = click.argument("port", type=click.IntRange(1, 65535))
_router = click.option("-r", "--router", metavar="NAME", help="In place of HOST PORT: a router of the server, by name.")


class RouterCommand(Command):
    """A command that takes HOST PORT, or instead of them ``-r NAME``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = args[:args.index("--")] if "--" in args else args
        ctx.meta[_BY_NAME] = any(word.startswith(("--router", "-r")) for word in words)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [one for one in super().get_params(ctx) if not (ctx.meta.get(_BY_NAME) and one.name in _HERE)]

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        pieces = [piece for piece in super().collect_usage_pieces(ctx) if piece not in ("HOST", "PORT")]
        return [pieces[0], "{HOST PORT | -r NAME}", *pieces[1:]]


def on_router(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument ``client``, which asks the router that its user names; for a RouterCommand."""
    @functools.wraps(function)
    def command(*, router: str | None, host: str = "", port: int = 0, **more: Any) -> None:
        context = click.get_current_context()
        client = through_server(context, router) if router is not None else directly(context, host, port)
        function(client=client, **more)

    for option in (_router, port, host):
        option(command)
    return command


def directly(context: click.Context, host: str, port: int) -> Client:
    """Return what asks a router at a host and port."""
    return Client(router_at(host, port), context.obj["token"] or tokens.find(host, port))


def through_server(context: click.Context, name: str) -> Client:
    """Return what asks a router by name, through the server that knows it.

    Raises:
        NotAllowed: nobody is logged in there.
    """
    return server.router(server.logged_in(context.obj["token"]), name)
