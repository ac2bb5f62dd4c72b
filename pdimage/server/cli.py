"""The verbs ``pdimage serve``, ``pdimage worker`` and ``pdimage flush``."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fussy.commands import command

if TYPE_CHECKING:
    from pdimage.server.settings import Settings

config_option = click.option("-c", "--config", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
                              envvar="PDIMAGE_SERVER_CONFIG",
                              help="Settings (TOML); pdimage/server/README.rst lists them.")
data_option = click.option("-d", "--data", metavar="DIR", help="Directory of the server.  [default: build-server]")
_verbose = click.option("-v", "--verbose", is_flag=True, help="Show the log on stderr, not only warnings.")


def read_settings(config: Path | None, verbose: bool, **given: Any) -> "Settings":
    """Return the settings, after the log has been started as they say."""
    from pdimage.server import logs
    from pdimage.server.settings import load

    settings = load(config, given)
    logs.start(settings, verbose=verbose)
    return settings


@command("serve")
@config_option
@data_option
@click.option("-l", "--listen", metavar="HOST:PORT", help="Where to listen.  [default: 127.0.0.1:8000]")
@click.option("--catalogue", metavar="FILE", help="What can be built.  [default: an example]")
@click.option("--no-worker", is_flag=True, help="Build nothing: workers run elsewhere (pdimage worker).")
@_verbose
def serve_command(
    config: Path | None, data: str | None, listen: str | None, catalogue: str | None, no_worker: bool, verbose: bool,
) -> None:
    """Build firmware on demand for routers that ask for it (HTTP), until stopped.

    Without settings it is complete: a database and a store in the directory, a worker, a key that signs.
    """
    from pdimage.server.serving import serve

    settings = read_settings(config, verbose, data=data, listen=listen, catalogue=_absolute(catalogue))
    serve(settings, work=not no_worker, ready=_say("answers on "))


@command("worker")
@config_option
@data_option
@_verbose
def worker_command(config: Path | None, data: str | None, verbose: bool) -> None:
    """Build what the server that has the same settings was asked for, until stopped."""
    from pdimage.server.serving import work_only

    work_only(read_settings(config, verbose, data=data), _say("builds as "))


@command("flush")
@config_option
@data_option
@click.argument("request_hash", default="")
def flush_command(config: Path | None, data: str | None, request_hash: str) -> None:
    """Forget failures, of REQUEST_HASH or all, so that they are built when they are asked for again."""
    from pdimage.server import tables
    from pdimage.server.requests import Requests

    settings = read_settings(config, False, data=data)
    engine = tables.connect(settings.database_url)
    click.echo(f"{Requests(engine, settings).flush(request_hash)} forgotten")


@command("backup")
@config_option
@data_option
@click.option("--images", is_flag=True, help="Back up the images too; without them they are built when asked for.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def backup_command(config: Path | None, data: str | None, images: bool, file: Path) -> None:
    """Write the server's database and signing keys to FILE, which only its owner can read. The server may run."""
    from pdimage.server.backup import backup

    backup(read_settings(config, False, data=data), file, images=images)
    click.echo(f"{file}: {file.stat().st_size} bytes; it holds the signing keys, keep it as safe as they are")


@command("restore")
@config_option
@data_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def restore_command(config: Path | None, data: str | None, file: Path) -> None:
    """Put what `pdimage backup` wrote to FILE into a server's directory that is empty."""
    from pdimage.server.backup import restore

    settings = read_settings(config, False, data=data)
    restore(settings, file)
    click.echo(f"{settings.root}")


def _say(what: str) -> Callable[[str], object]:
    return lambda text: click.echo(what + text)


def _absolute(path: str | None) -> str | None:
    """Return a path of the command line in full: those in settings are relative to the server's directory."""
    return str(Path(path).absolute()) if path else None
