"""The command ``paradrop-image``, for the hooks and the health check of a release.

Exit codes: 0 it is done, 1 it could not be, 40 the system did not let it (as in fussy.errors); one line says why.
"""

from pathlib import Path
from typing import Any

import click

import fussy
from fussy.commands import Command, Failure, start_logging
from paradrop.lib import settings
from paradrop.lib.errors import ParadropError

_release = click.argument("release", type=click.Path(path_type=Path))


class _Command(Command):
    """A command that tells the runtime's errors as it tells the others."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ParadropError as error:
            raise Failure(ctx.command_path, error, 1) from error


@click.group("paradrop-image", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("-v", "--verbose", is_flag=True, help="Show more of what is done.")
@click.version_option(fussy.__version__, prog_name="paradrop-image")
def main(verbose: bool) -> None:
    """Care for what belongs to a release of the firmware: its chutes, their images, and what lasts beside it."""
    settings.updateSettings()
    start_logging(verbose)


@main.command(cls=_Command)
@_release
def snapshot(release: Path) -> None:
    """Keep the chute store, chutes' data, UCI files and keys for RELEASE, the directory of the release that is left.

    The runtime must not run; chutes are stopped. Snapshots of releases that are gone are removed.
    """
    from paradrop.image import applying, snapshots

    applying.forget()
    click.echo(snapshots.snapshot(release.absolute()))


@main.command(cls=_Command)
@_release
def restore(release: Path) -> None:
    """Bring back what was kept for RELEASE, by its path or name.

    The runtime must not run; chutes are stopped. If nothing was kept, or what is there is its own, nothing changes.
    """
    from paradrop.image import applying, snapshots

    applying.forget()
    if snapshots.restore(release.name):
        click.echo(f"what {release.name} had is back")
    else:
        click.echo(f"nothing to bring back for {release.name}; all stays as it is")


@main.command(cls=_Command)
@click.argument("target", type=click.Path(path_type=Path, exists=True, file_okay=False))
def prune(target: Path) -> None:
    """Remove what was kept for releases that are not in TARGET any more."""
    from paradrop.image import snapshots

    for name in snapshots.prune(target):
        click.echo(name)


@main.command(cls=_Command)
@_release
def load(release: Path) -> None:
    """Load the container images that RELEASE, a directory, carries into the Docker engine, those that are new."""
    from paradrop.lib.utils import carried, dockerbuild, dockerclient

    for image in carried.images(release / "share/oci"):
        if dockerbuild.load(dockerclient.connect(), image, lambda text: click.echo(text, nl=False)).fresh:
            click.echo(f"{image.reference} is loaded")


@main.command(cls=_Command)
@_release
@click.option("-t", "--timeout", type=click.FloatRange(0), default=300.0, show_default=True, metavar="SECONDS",
              help="How long the runtime may take.")
def apply(release: Path, timeout: float) -> None:
    """Wait until the runtime has brought about the chutes of RELEASE, a directory, and say whether they run.

    The runtime does it by itself whenever it starts. Fit to be a health check of the release.
    """
    from paradrop.image import applying

    applying.wait(release / "share/chutes", timeout)
    click.echo("the chutes of the release are as they should be")
