"""Takes back database migrations that an older release does not know, before it becomes current.

South was the migration mechanism of Django; since Django 1.7 it is part of Django itself, as the command ``migrate``.
Only the newer release has the code that takes its migrations back, so this runs while that one is still current: in
the ``.pre-install`` of the release that is to come::

    DJANGO_SETTINGS_MODULE=site.settings fussy-southrollback -f "$1" -p site/chutes/migrations -a chutes

The migrations of the coming release are compared with those of the current one, which is what the link ``current``
beside it leads to, by the sorted names of their files. A migration must never be renamed. The histories must have no
branches: taking back to the last common migration leaves those of another branch, which is found and told afterwards.
"""

import fnmatch
import logging
import os
import re
import subprocess
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import click

from fussy.commands import command, start_logging
from fussy.errors import FussyError, SystemSetup

log = logging.getLogger(__name__)

#: What Django calls the state before the first migration.
ZERO = "zero"

_PATTERN = "????_*.py"
_APPLIED = re.compile(r"^ *\[X\] (\S+)", re.MULTILINE)


def find_reverse_upgrades(
    final_target: str | os.PathLike[str], relative_path: str | os.PathLike[str], migration_pattern: str = _PATTERN
) -> str | None:
    """Return the migration to go back to before the release FINAL_TARGET becomes current, or None to stay.

    RELATIVE_PATH leads from a release to its migrations. The answer is :data:`ZERO` when the releases have no migration
    in common. Without a current release, or if it does not have the path, there is nothing to take back.

    :raises SystemSetup: neither release has the path, or one of them can't be read.
    """
    return last_common(*_histories(final_target, relative_path, migration_pattern))


def _histories(
    final_target: str | os.PathLike[str], relative_path: str | os.PathLike[str], pattern: str
) -> tuple[list[str], list[str]]:
    """Return the migrations of the current release and those of FINAL_TARGET."""
    coming = Path(os.path.abspath(final_target))
    if not coming.is_dir():
        raise SystemSetup(f"cannot find migrations: the release {coming} is not a directory; check --final_target")
    if os.path.isabs(relative_path):
        raise SystemSetup(f"cannot find migrations: {relative_path} is not relative to a release; check --path")
    old, new = coming.parent / "current" / relative_path, coming / relative_path
    if not old.is_dir() and not new.is_dir():
        raise SystemSetup(f"cannot find migrations: neither {old} nor {new} is a directory; check --path")
    return _migrations(old, pattern), _migrations(new, pattern)


def _migrations(directory: Path, pattern: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SystemSetup(f"cannot find migrations: {directory}: {error.strerror}; check --path") from error
    return sorted(name.removesuffix(".py") for name in fnmatch.filter(names, pattern))


def last_common(current: Sequence[str], coming: Sequence[str]) -> str | None:
    """Return the last migration before the first difference of two sorted lists, None if COMING has all of CURRENT.

    >>> last_common(["0001_initial", "0002_ssid", "0003_vlan"], ["0001_initial", "0002_ssid"])
    '0002_ssid'
    >>> last_common(["0001_initial"], ["0001_initial", "0002_ssid"])
    >>> last_common(["0001_initial"], ["0001_other"])
    'zero'
    """
    if set(current) <= set(coming):
        return None
    common = [old for old, new in takewhile(lambda pair: pair[0] == pair[1], zip(current, coming, strict=False))]
    return common[-1] if common else ZERO


def roll_back(
    final_target: str | os.PathLike[str], relative_path: str | os.PathLike[str], app: str,
    django_admin: str = "django-admin", *, zero: bool = False,
) -> str | None:
    """Take back the migrations of APP that FINAL_TARGET does not know; return the one gone back to, None if none was.

    :param zero: take back even all of them. That drops every table of the app, and a release that was packed without
        its migrations, or whose first one was renamed, looks just like one that never had the app.
    :raises SystemSetup: see :func:`find_reverse_upgrades`; or DJANGO_SETTINGS_MODULE is not set.
    :raises FussyError: Django failed, or it would take ZERO, or some migrations are on a branch and still applied.
    """
    current, coming = _histories(final_target, relative_path, _PATTERN)
    migration = last_common(current, coming)
    if migration is None:
        return None
    if migration == ZERO and not zero:
        raise FussyError(f"cannot take back the migrations of {app}: {final_target} has none in common with the "
                         "current release, so this would drop all its tables; use --zero if that is meant")
    _django(django_admin, "migrate", "--noinput", app, migration)
    applied = _APPLIED.findall(_django(django_admin, "showmigrations", "--list", app))
    if left := sorted(set(applied) & set(current) - set(coming)):
        raise FussyError(f"cannot take back all migrations of {app}: {', '.join(left)} do not depend on {migration}; "
                         "take them back with django-admin migrate")
    return migration


def _django(django_admin: str, *arguments: str) -> str:
    """Run django-admin and return what it printed."""
    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        raise SystemSetup("cannot run Django: DJANGO_SETTINGS_MODULE is not set; set it to the settings of the current "
                          "release")
    try:
        done = subprocess.run([django_admin, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="backslashreplace", check=False)
    except OSError as error:
        raise SystemSetup(f"cannot run {django_admin}: {error.strerror}; name it with --django-admin") from error
    for line in (done.stdout + done.stderr).splitlines():
        log.info("%s: %s", django_admin, line)
    if done.returncode != 0:
        reason = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise FussyError(f"cannot take back migrations: {django_admin} {' '.join(arguments)} ended with "
                         f"{done.returncode}: {reason}")
    return done.stdout


@command("fussy-southrollback")
@click.option("-f", "--final_target", "--final-target", required=True, type=click.Path(),
              help="Release that is to become current.")
@click.option("-p", "--path", "relative_path", required=True, type=click.Path(),
              help="Path from a release to the app's migrations.")
@click.option("-a", "--app", required=True, help="Django's label of the app.")
@click.option("-d", "--django-admin", default="django-admin", show_default=True, help="Program that runs Django.")
@click.option("--zero", is_flag=True, help="Drop all tables of the app if the releases have no migration in common.")
@click.option("-v", "--verbose", is_flag=True, help="Show what Django says.")
def south_rollback_command(
    final_target: str, relative_path: str, app: str, django_admin: str, zero: bool, verbose: bool
) -> None:
    """Take back the database migrations that an older release does not know, before it becomes current.

    Run it while the newer release is current, with DJANGO_SETTINGS_MODULE set.
    """
    start_logging(verbose)
    migration = roll_back(final_target, relative_path, app, django_admin, zero=zero)
    click.echo(f"{app}: back to {migration}" if migration else f"{app}: nothing to take back")


def get_options() -> click.Command:
    """Return the command line of ``fussy-southrollback``."""
    return south_rollback_command


def main() -> None:
    """Run ``fussy-southrollback``: parse the arguments, take back migrations."""
    get_options()()
