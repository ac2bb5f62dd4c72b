"""Puts updates off for some days; then they are installed (command ``fussy postpone``)."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from fussy import target as targets
from fussy.errors import FussyError
from fussy.updating import record
from fussy.updating.record import Owner

if TYPE_CHECKING:
    import click

MOST_DAYS = 30


def postpone(target: Path, days: float) -> Owner:
    """Install nothing for so many days. It takes the place of a hold.

    :raises FussyError: fewer than none, or more than 30: for that there is ``fussy hold``
    """
    if not 0 < days <= MOST_DAYS:
        raise FussyError(f"cannot postpone by {days:g} days: at most {MOST_DAYS} are possible; fussy hold has no end, "
                         "fussy hold --release ends both")
    found = targets.find(target)
    owner = Owner(postponed=int(time.time() + days * 86400))
    record.save_owner(found, owner)
    return owner


def get_options() -> "click.Command":
    """Return the command line of ``fussy postpone``."""
    from fussy.updating.verbs import postpone_command

    return postpone_command
