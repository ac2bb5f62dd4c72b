"""The command line of the build side: ``pdimage`` with its verbs.

Verbs are loaded when they run. Results go to stdout, progress and errors to stderr.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from fussy import __version__
from fussy.commands import command

_description = click.argument("description", type=click.Path(path_type=Path, dir_okay=False), metavar="IMAGE.yaml")
_board = click.option("-b", "--board", metavar="NAME", help="Board that the image is for, one of the description's.")
_define = click.option("-D", "--define", multiple=True, metavar="NAME=VALUE",
                       help="Set a variable of the description (repeatable).")


def _variables(given: Sequence[str]) -> Mapping[str, str]:
    """Return variables from the command line.

    :raises click.UsageError: one is not NAME=VALUE
    """
    for item in given:
        if not re.match(r"[A-Za-z_]\w*=", item):
            raise click.UsageError(f"{item!r} is not NAME=VALUE")
    return dict(item.split("=", 1) for item in given)


@command("check")
@_description
@_board
@_define
def check_command(description: Path, board: str | None, define: Sequence[str]) -> None:
    """Find all mistakes of a description, of its chutes, templates and overlays, without building anything.

    Without --board every board of the description is checked.
    """
    from pdimage.check import check, check_boards

    variables = _variables(define)
    images = [check(description, board, variables)] if board else check_boards(description, variables)
    for image in images:
        where = f" for {image.board}" if image.board else ""
        click.echo(f"{description}: good ({image.name}, version {image.version}{where}, {len(image.chutes)} chutes)")


@click.group("pdimage", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def pdimage_command() -> None:
    """Build the firmware of routers from one description."""


for _verb in (check_command,):
    pdimage_command.add_command(_verb)


def main() -> None:
    """Run ``pdimage``."""
    pdimage_command(prog_name="pdimage")
