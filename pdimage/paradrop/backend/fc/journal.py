"""The chutes that an update is at work on, kept on disk, so that a start after a crash knows them.

A chute is written down before the first plan runs, and crossed out once the update is done or taken back completely.
The file holds ``{name: [directories that the update may make]}``.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

from paradrop.lib import settings
from paradrop.lib.utils import pdosq

log = logging.getLogger(__name__)


def path() -> Path:
    """Return the journal's file: it lies beside the chute store."""
    return Path(f"{settings.FC_CHUTESTORAGE_SAVE_PATH}.journal")


def begin(name: str, directories: Iterable[str] = ()) -> None:
    """Write down a chute, and which directories are not there yet: they are to go if the chute does not come about.

    Raises:
        OSError: it cannot be made to last; then the update must not begin.
    """
    _write({**unfinished(), name: list(directories)})


def end(name: str) -> None:
    """Cross out a chute."""
    _write({other: directories for other, directories in unfinished().items() if other != name})


def unfinished() -> dict[str, list[str]]:
    """Return the chutes that were not crossed out, with the directories written down for each."""
    try:
        return msgspec.json.decode(path().read_bytes(), type=dict[str, list[str]])
    except FileNotFoundError:
        return {}
    except msgspec.MsgspecError as error:
        log.error("cannot read %s: %s", path(), error)
        return {}


def _write(entries: dict[str, list[str]]) -> None:
    if entries != unfinished():
        pdosq.makedirs(path().parent)
        pdosq.replaceFile(path(), msgspec.json.encode(entries))
