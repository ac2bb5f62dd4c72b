"""The command line of the build side: ``pdimage`` with its verbs.

Verbs are loaded when they run. Results go to stdout, progress and errors to stderr.
"""

import importlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fussy import __version__
from fussy.commands import command, start_logging
from pdimage.server.cli import backup_command, flush_command, restore_command, serve_command, worker_command
from pdimage.server.registry.cli import accounts_group

if TYPE_CHECKING:
    from pdimage.diff import Change

_description = click.argument("description", type=click.Path(path_type=Path, dir_okay=False), metavar="IMAGE.yaml")
_board = click.option("-b", "--board", metavar="NAME", help="Board that the image is for, one of the description's.")
_define = click.option("-D", "--define", multiple=True, metavar="NAME=VALUE",
                       help="Set a variable of the description (repeatable).")
_cache = click.option("--cache", type=click.Path(path_type=Path, file_okay=False), envvar="PDIMAGE_CACHE",
                      help="Directory for what the next build can use again.  [default: ~/.cache/pdimage]")
_engine = click.option("--engine", metavar="URL", help="Docker engine that builds containers (default: DOCKER_HOST, or "
                       "the usual socket if there is one).")
_verbose = click.option("-v", "--verbose", is_flag=True, help="Show the log on stderr.")


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


@command("build")
@_description
@_board
@_define
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="TREE",
              help="Directory to make (default: named as the image, here). A tree of pdimage there is replaced.")
@_cache
@_engine
@_verbose
def build_command(
    description: Path, board: str | None, define: Sequence[str], output: Path | None, cache: Path | None,
    engine: str | None, verbose: bool,
) -> None:
    """Build the tree of an image, and print its name."""
    from pdimage.build import build
    from pdimage.check import check

    _start_logging(verbose)
    image = check(description, board, _variables(define))
    with _progress() as show:
        built = build(image, output or Path(image.name), cache=cache or _default_cache(), engine=engine, progress=show)
    click.echo(built.tree)


@command("pack")
@_description
@_board
@_define
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=".", show_default=True,
              help="Directory for the bundle.")
@click.option("-e", "--encrypt-for", multiple=True, metavar="KEY",
              help="Encrypt for this key: id, fingerprint or unique e-mail (repeatable).")
@click.option("-k", "--key", "sign_with", metavar="KEY", help="Sign with this key instead of gpg's default key.")
@click.option("-z", "--compress", type=click.Choice(["gzip", "zstd"]), default="zstd", show_default=True,
              help="gzip bundles open with the oldest tools.")
@click.option("-p", "--passphrase-file", type=click.Path(path_type=Path, dir_okay=False),
              help="Read the key's pass-phrase from this file instead of asking for it.")
@_cache
@_engine
@_verbose
def pack_command(
    description: Path, board: str | None, define: Sequence[str], output: Path, encrypt_for: Sequence[str],
    sign_with: str | None, compress: str, passphrase_file: Path | None, cache: Path | None, engine: str | None,
    verbose: bool,
) -> None:
    """Build an image and pack it into a signed bundle; print the bundle's name.

    Keys come from $GNUPGHOME. What the bundle is made of is written beside it.
    """
    from fussy import progress
    from pdimage.check import check
    from pdimage.pack import pack

    _start_logging(verbose)
    image = check(description, board, _variables(define))
    with _progress() as tell, progress.bar("packing") as show:
        bundle = pack(image, output, cache=cache or _default_cache(), engine=engine, encrypt_for=encrypt_for,
                      sign_with=sign_with, compress=compress, passphrase_file=passphrase_file,
                      building=tell, packing=show)
    click.echo(bundle)


@command("diff")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("-f", "--files", is_flag=True, help="List every file that differs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff_command(before: Path, after: Path, files: bool, as_json: bool) -> None:
    """Show what changes from one image to another: components, chutes, files, sizes.

    BEFORE and AFTER are trees, or installed releases.
    """
    import msgspec

    from pdimage.diff import diff

    found = diff(before, after)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
        return
    for change in (*found.components, *found.chutes, *(found.files if files else ())):
        click.echo(f"{_mark(change)} {change.kind} {change.name}{_versions(change)}")
    click.echo(f"{len(found.files)} files differ, {found.written / 1e6:.1f} MB are new or changed; "
               f"{found.size_before / 1e6:.1f} MB became {found.size_after / 1e6:.1f} MB")


def _mark(change: "Change") -> str:
    return "+" if not change.before else "-" if not change.after else "*"


def _versions(change: "Change") -> str:
    """Return what a change is from and to, for people."""
    unit = " bytes" if change.kind == "file" else ""
    if change.kind == "chute" or (change.before == change.after):
        return ""
    return f": {' -> '.join(f'{one}{unit}' for one in (change.before, change.after) if one)}"


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pdimage"


def _start_logging(verbose: bool) -> None:
    """Send the log of all our packages to stderr: warnings, or everything if VERBOSE."""
    start_logging(verbose)
    ours = logging.getLogger("fussy")
    for name in ("pdimage", "paradrop"):
        logging.getLogger(name).handlers = ours.handlers
        logging.getLogger(name).setLevel(ours.level)


@contextmanager
def _progress() -> Iterator[Callable[[str], object]]:
    """Give a function that tells people on a terminal which step is being done; elsewhere it says nothing."""
    if not sys.stderr.isatty():
        yield lambda step: None
        return
    try:
        yield lambda step: click.echo(f"\r\x1b[Kbuilding: {step}", err=True, nl=False)
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)


class _Verbs(click.Group):
    """The verbs of the build side, and those of the layers above it, which are loaded when they are used."""

    elsewhere = {"lab": "pdimage.lab.cli"}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*self.commands, *self.elsewhere])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.elsewhere:
            return super().get_command(ctx, cmd_name)
        get_options: Callable[[], click.Command] = importlib.import_module(self.elsewhere[cmd_name]).get_options
        return get_options()


@click.group("pdimage", cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def pdimage_command() -> None:
    """Build the firmware of routers from one description."""


for _verb in (accounts_group, backup_command, build_command, check_command, diff_command, flush_command, pack_command,
              restore_command, serve_command, worker_command):
    pdimage_command.add_command(_verb)


def main() -> None:
    """Run ``pdimage``."""
    pdimage_command(prog_name="pdimage")
