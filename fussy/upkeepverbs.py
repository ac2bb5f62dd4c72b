"""The command lines that look after a target: ``fussy status``, ``fussy check``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fussy.commands import (
    as_json_option,
    command,
    keyring_option,
    logfile_option,
    start_logging,
    target_option,
    verbose_option,
)
from fussy.errors import DamagedRelease, SystemSetup
from fussy.target import Target, find

if TYPE_CHECKING:
    from fussy.channel import Offer

_settings = click.option("-s", "--settings", type=click.Path(path_type=Path), default="/etc/fussy/update.toml",
                         show_default=True, help="Settings of fussy update: its channel and its window.")


@command("status")
@target_option
@_settings
@as_json_option
@click.option("--prometheus", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write metrics to FILE (*.prom), for the textfile collector of Prometheus' node exporter.")
def status(target: Path, settings: Path, as_json: bool, prometheus: Path | None) -> None:
    """Show the current, previous and failsafe release, what is on trial, what failed and why, and what comes next."""
    import msgspec

    from fussy import metrics, uptime
    from fussy.status import lines
    from fussy.status import status as ask
    from fussy.trust import printable

    found = ask(find(target), settings)
    if prometheus:
        metrics.write(prometheus, found, uptime.now())
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    elif not prometheus:
        for line in lines(found):
            click.echo(printable(line))


@command("check")
@click.option("--repair", is_flag=True, help="Mend what is broken: from other files of the target, or from the channel "
              "by fetching only what is broken.")
@keyring_option
@target_option
@_settings
@as_json_option
@logfile_option
@verbose_option
def check(
    repair: bool, keyring: Path, target: Path, settings: Path, as_json: bool, logfile: Path, verbose: bool
) -> None:
    """Compare all installed releases with their manifests; exit code 24: something is broken.

    Made for cron: prints nothing when all is well, unless on a terminal.
    """
    import msgspec

    from fussy import check as checking
    from fussy import repair as mending

    start_logging(verbose, logfile)
    found = find(target)
    releases = found.releases()
    faults = checking.examine(found)
    left, why = faults, ""
    if faults and repair:
        faults, left, why = mending.repair(found, keyring, faults, _Channel(found, settings, keyring))
    report = checking.note(found, releases, faults, left, why)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
    elif faults or sys.stdout.isatty():
        click.echo(checking.line(report))
        for one in report.left:
            click.echo(f"  {one.release}/{one.path} {one.problem}")
    if left:
        hint = why or ("install the release again" if repair else "try fussy check --repair")
        count = "1 file is" if len(left) == 1 else f"{len(left)} files are"
        raise DamagedRelease(f"cannot vouch for {found.root}: {count} broken; {hint}")


class _Channel:
    """The channel that the device follows (fussy.repair.Channel); what it needs is loaded when it is asked."""

    def __init__(self, target: Target, settings: Path, keyring: Path) -> None:
        self._target, self._settings, self._keyring = target, settings, keyring

    def offers(self) -> "list[Offer]":
        from fussy.updating import fetching, settings

        try:
            return fetching.offers(self._target, settings.load(self._settings), self._keyring)
        except ModuleNotFoundError as error:
            raise SystemSetup(f"cannot ask the channel: the Python package {error.name} is missing; install "
                              "'fussy[update]'") from error

    def fetch(self, offer: "Offer") -> Path:
        from fussy.updating import fetching, settings

        return fetching.fetch(self._target, settings.load(self._settings), offer, self._keyring)
