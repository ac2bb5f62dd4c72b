"""What happened, one line of JSON each in ``history.jsonl``, the newest last; shown by ``fussy log``.

A check that finds nothing new leaves no line, and something that waits leaves one when it begins to wait. The file is
cut to its newest half when it has 1,000 lines.
"""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fussy import disk
from fussy.updating.record import Outcome

if TYPE_CHECKING:
    import click

log = logging.getLogger(__name__)

_MOST = 1000


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run that is worth telling: when it ended (Unix time), how, what it said, and from which version to which."""

    at: int
    outcome: Outcome
    line: str
    exit_code: int = 0
    source: str = ""
    from_version: str = ""
    to_version: str = ""
    downloaded: int = 0
    problems: list[str] = []


def append(place: Path, event: Event) -> None:
    """Add an event; durable when this returns. What a power cut left of a line is passed over when reading."""
    path = place / "history.jsonl"
    lines = _lines(path)
    line = msgspec.json.encode(event)
    if len(lines) >= _MOST:
        disk.replace_file(path, b"\n".join([*lines[-_MOST // 2:], line]) + b"\n")
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        file.write(b"\n" * torn + line + b"\n")
        os.fsync(descriptor)
    if not lines:
        disk.sync_directory(place)


def read(place: Path, most: int = _MOST) -> list[Event]:
    """Return the newest events, the oldest first."""
    found = []
    for line in _lines(place / "history.jsonl"):
        try:
            found.append(msgspec.json.decode(line, type=Event))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.info("passing over a line of the history: %s", error)
    return found[-most:] if most else []


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        return []


def get_options() -> "click.Command":
    """Return the command line of ``fussy log``."""
    from fussy.updating.verbs import log_command

    return log_command
