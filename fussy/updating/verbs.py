"""The command lines of the updater: ``fussy-update``, ``fussy log``, ``fussy hold``, ``fussy postpone``."""

import random
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fussy import moments
from fussy.commands import KEYRING, TARGET, command, start_logging
from fussy.trust import printable

if TYPE_CHECKING:
    from fussy.updating.downloads import Progress
    from fussy.updating.record import Owner

SETTINGS = "/etc/fussy/update.toml"

_target = click.option("-t", "--target", type=click.Path(path_type=Path), default=TARGET, show_default=True,
                       help="Directory where releases live.")


@command("fussy-update")
@click.option("-s", "--settings", type=click.Path(path_type=Path), default=SETTINGS, show_default=True,
              help="What the owner has set.")
@click.option("-k", "--keyring", type=click.Path(path_type=Path), default=KEYRING, show_default=True,
              help="Key directory, with the channel's root.json.")
@_target
@click.option("--check", is_flag=True, help="Only look; exit code 10: an update is there, 11: it is there and waits.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@click.option("--now", "insist", is_flag=True,
              help="Install what is there, whatever mode, hold, window and roll-out say.")
@click.option("--no-delay", is_flag=True, help="Do not wait for a random time first. On a terminal nobody waits.")
@click.option("--on-demand", is_flag=True, help="Have the build server of the settings make an image for this router.")
@click.option("--add", multiple=True, metavar="PACKAGE", help="With --on-demand: a package that is wanted from now on.")
@click.option("--remove", multiple=True, metavar="PACKAGE", help="With --on-demand: one that is wanted no more.")
@click.option("--page", is_flag=True, help="With --on-demand: decide on a page of the build server what is installed.")
@click.option("--json", "as_json", is_flag=True, help="Print what is recorded of this run.")
@click.option("-l", "--logfile", type=click.Path(path_type=Path), help="File that the log is appended to.")
@click.option("-v", "--verbose", is_flag=True, help="Show the log on stderr, and the outcome also in cron.")
@click.pass_context
def update_command(
    context: click.Context, settings: Path, keyring: Path, target: Path, check: bool, dry_run: bool, insist: bool,
    no_delay: bool, on_demand: bool, add: tuple[str, ...], remove: tuple[str, ...], page: bool, as_json: bool,
    logfile: Path | None, verbose: bool,
) -> None:
    """Look for a newer release in the channel and install it.

    Made for cron: waits for a random time, says nothing unless something happened that a person should know, and never
    runs twice at once. On a terminal it starts at once and says how it ended in one line.
    """
    import msgspec

    from fussy import target as targets
    from fussy.updating import record, update
    from fussy.updating import settings as owners

    if (add or remove or page) and not on_demand:
        raise click.UsageError("--add, --remove and --page go with --on-demand")
    if page and (add or remove or check or dry_run):
        raise click.UsageError("with --page everything is decided on the page")

    start_logging(verbose, logfile)
    wanted = owners.load(settings)
    found = targets.find(target)
    watched = sys.stdout.isatty() or verbose or as_json or check or dry_run or insist
    if not (watched or no_delay or page):
        time.sleep(random.uniform(0, wanted.random_delay))
    old = record.load(found)
    wish = update.Wish(check, dry_run, insist)
    if page:
        from fussy.updating import led

        new = led.run(found.root, wanted, keyring, wish, bar=_bar, tell=_tell)
    elif on_demand:
        from fussy.updating import demand

        new = demand.run(found.root, wanted, keyring, wish, add=add, remove=remove, bar=_bar,
                         tell=_tell if sys.stdout.isatty() or verbose else lambda text: None)
    else:
        new = update.run(found.root, wanted, keyring, wish, bar=_bar)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(new), indent=2))
    elif watched or update.should_tell(old, new):
        click.echo(f"{context.command_path}: {printable(new.line)}", err=new.exit_code not in (0, 10, 11, 12))
        if not watched:
            update.told(found, new)
    context.exit(new.exit_code)


def _bar(label: str) -> "AbstractContextManager[Progress | None]":
    from fussy import progress

    return progress.bar(label)


def _tell(text: str) -> None:
    click.echo(text)


@command("log")
@_target
@click.option("-n", "--lines", type=click.IntRange(1), default=20, show_default=True, help="How many of the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one event a line.")
def log_command(target: Path, lines: int, as_json: bool) -> None:
    """Show what the updater did, the newest last."""
    import msgspec

    from fussy import target as targets
    from fussy.updating import history, record

    for event in history.read(record.place(targets.find(target)), lines):
        if as_json:
            click.echo(msgspec.json.encode(event))
        else:
            click.echo(f"{moments.local(event.at)}  {event.outcome:14} {printable(event.line)}")


@command("hold")
@_target
@click.option("--until", default="", metavar="WHEN", help="End by itself: 2026-12-24, or 2026-12-24T18:00.")
@click.option("--reason", default="", help="Shown where the hold is.")
@click.option("--release", is_flag=True, help="End the hold (and a postponement).")
def hold_command(target: Path, until: str, reason: str, release: bool) -> None:
    """Keep fussy update from installing anything; it goes on looking.

    Of holds and postponements the last one counts.
    """
    from fussy.updating import hold

    if release and (until or reason):
        raise click.UsageError("--release ends a hold; --until and --reason begin one")
    _say(hold.release(target) if release else hold.hold(target, until, reason))


@command("postpone")
@click.argument("days", type=float)
@_target
def postpone_command(days: float, target: Path) -> None:
    """Put updates off for DAYS days, at most 30; fussy hold --release ends that.

    Of holds and postponements the last one counts.
    """
    from fussy.updating import postpone

    _say(postpone.postpone(target, days))


def _say(owner: "Owner") -> None:
    if owner.held:
        click.echo(f"updates are held{f' until {moments.local(owner.held_until)}' if owner.held_until else ''}")
    elif owner.postponed:
        click.echo(f"updates are postponed until {moments.local(owner.postponed)}")
    else:
        click.echo("updates go on")


def main() -> None:
    """Run ``fussy-update``."""
    update_command()
