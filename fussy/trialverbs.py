"""The command lines around trials: ``fussy recover``, ``trial``, ``confirm``, ``reject``."""

import signal
from pathlib import Path
from threading import Event

import click

from fussy.commands import command, logfile_option, start_logging, target_option, verbose_option
from fussy.install import ready
from fussy.target import hold as lock


@command("recover")
@click.option("--early", is_flag=True, help="Only count the boot, and lead current back where a release has booted too "
              "often; leave hooks and checks to fussy trial. For a place in the boot before the firmware's services.")
@target_option
@logfile_option
@verbose_option
def recover(early: bool, target: Path, logfile: Path, verbose: bool) -> None:
    """Finish or undo what a power cut interrupted, count the boots of a release on trial, and take it back when it has
    had too many, or its time. For the boot; needs no network.
    """
    from fussy.recover import count_boot

    start_logging(verbose, logfile)
    if early:
        with lock(target) as held:
            count_boot(held)
        return
    with ready(target):
        pass


@command("trial")
@click.option("--hold", is_flag=True, help="Go on until the trial has ended, with the watchdog held; for a service.")
@click.option("--pause", type=click.FloatRange(0.1), default=60.0, show_default=True, metavar="SECONDS",
              help="How long to wait between two rounds of checks, with --hold.")
@target_option
@logfile_option
@verbose_option
def trial(hold: bool, pause: float, target: Path, logfile: Path, verbose: bool) -> None:
    """Do what fussy recover does, and ask the health checks of a release on trial; for cron, and late in the boot.

    They confirm it when it waits for a boot and there was one. If one fails the release is taken back (exit code 3).
    """
    from fussy.attend import attend
    from fussy.confirm import examine

    start_logging(verbose, logfile)
    if hold:
        enough = Event()
        # whoever stops this on purpose wants no reset: the watchdog is stopped too
        signal.signal(signal.SIGTERM, lambda *_: enough.set())
        attend(target, enough, pause)
        return
    with ready(target) as held:
        examine(held)


@command("confirm")
@target_option
@logfile_option
@verbose_option
def confirm(target: Path, logfile: Path, verbose: bool) -> None:
    """Accept the release on trial: it stays."""
    from fussy import confirm as verbs

    start_logging(verbose, logfile)
    with ready(target) as held:
        click.echo(verbs.confirm(held))


@command("reject")
@click.option("-r", "--reason", default="", metavar="TEXT", help="What fussy status shall say about it.")
@target_option
@logfile_option
@verbose_option
def reject(reason: str, target: Path, logfile: Path, verbose: bool) -> None:
    """Take the release on trial back, with the hooks of the release before it; print what is in use then."""
    from fussy import confirm as verbs

    start_logging(verbose, logfile)
    with ready(target) as held:
        click.echo(verbs.reject(held, reason))
