"""Keeps the updater from installing anything, and lets it go on (command ``fussy hold``)."""

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fussy import target as targets
from fussy.errors import FussyError
from fussy.updating import record
from fussy.updating.record import Owner

if TYPE_CHECKING:
    import click


def hold(target: Path, until: str = "", reason: str = "") -> Owner:
    """Install nothing until a local time (ISO 8601), or without one until :func:`release`.

    It takes the place of a postponement.

    :raises FussyError: that is no time, or one that is over
    """
    try:
        end = int(datetime.fromisoformat(until).timestamp()) if until else 0
    except ValueError as error:
        raise FussyError(f"cannot hold until {until!r}: write 2026-12-24 or 2026-12-24T18:00") from error
    if end and end <= time.time():
        raise FussyError(f"cannot hold until {until}: by this router's clock that is over; it shows "
                         f"{datetime.now():%Y-%m-%d %H:%M}")
    owner = Owner(held=True, held_until=end, reason=reason)
    record.save_owner(targets.find(target), owner)
    return owner


def release(target: Path) -> Owner:
    """End a hold, and a postponement too."""
    record.save_owner(targets.find(target), Owner())
    return Owner()


def get_options() -> "click.Command":
    """Return the command line of ``fussy hold``."""
    from fussy.updating.verbs import hold_command

    return hold_command
