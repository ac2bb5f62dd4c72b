"""How the link is, for those who look at the router: ``RUNTIME_HOME_DIR/link.json``."""

import time
from pathlib import Path
from typing import Literal

import msgspec

from fussy import disk
from paradrop.lib import settings
from paradrop.lib.utils import pdosq

Word = Literal["off", "connecting", "connected", "refused", "clone", "certificate"]


class State(msgspec.Struct, frozen=True):
    """``state`` since a time (Unix seconds) with a ``server``; ``line`` says the same to people.

    off: there is no server, or the daemon ends; refused: the server does not know the router, or not any more; clone:
    another router uses the same identity; certificate: what answers is not the server that it was.
    """

    state: Word
    since: float
    server: str
    line: str


def read() -> State:
    """Return how the link is."""
    try:
        return msgspec.json.decode(_place().read_bytes(), type=State)
    except (OSError, msgspec.MsgspecError):
        return State("off", 0.0, "", "This router belongs to no server.")


def write(word: Word, server: str, line: str) -> None:
    """Say how the link is; as long as word and line stay, so does ``since``."""
    now = read()
    if (now.state, now.server, now.line) == (word, server, line):
        return
    since = now.since if (now.state, now.server) == (word, server) else time.time()
    pdosq.makedirs(_place().parent)
    disk.replace_file(_place(), msgspec.json.encode(State(word, since, server, line)), durable=False)


def _place() -> Path:
    return Path(settings.RUNTIME_HOME_DIR) / "link.json"
