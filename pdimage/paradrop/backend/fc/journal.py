"""The names of the chutes that an update is at work on, kept on disk, so that a start after a crash knows them.

A name is written down before the first plan runs, and crossed out once the update is done or taken back completely.
"""

import json
import logging
from pathlib import Path

from paradrop.lib import settings
from paradrop.lib.utils import pdosq

log = logging.getLogger(__name__)


def path() -> Path:
    """Return the journal's file: it lies beside the chute store."""
    return Path(f"{settings.FC_CHUTESTORAGE_SAVE_PATH}.journal")


def begin(name: str) -> None:
    """Write down the name of a chute.

    Raises:
        OSError: it cannot be made to last; then the update must not begin.
    """
    _write(unfinished() | {name})


def end(name: str) -> None:
    """Cross out the name of a chute."""
    _write(unfinished() - {name})


def unfinished() -> set[str]:
    """Return the names that were not crossed out."""
    try:
        names = json.loads(path().read_bytes())
    except FileNotFoundError:
        return set()
    except ValueError as error:
        log.error("cannot read %s: %s", path(), error)
        return set()
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def _write(names: set[str]) -> None:
    if names != unfinished():
        pdosq.makedirs(path().parent)
        pdosq.replaceFile(path(), json.dumps(sorted(names)).encode())
