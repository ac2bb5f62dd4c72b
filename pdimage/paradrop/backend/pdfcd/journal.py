"""The daemon's log: one JSON object a line, in a file of bounded size and to whoever follows.

::

    LOG_PATH/log, log.1, log.2     1 MiB each, the newest first
        {"time": Unix seconds, "level": "INFO", "module": "paradrop.…", "line": 12, "message": "…"}
"""

import contextlib
import json
import logging
import sys
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from paradrop.lib import settings
from paradrop.lib.api.feed import Feed
from paradrop.lib.utils import pdosq

Subscriber = Callable[[dict[str, Any]], None]

BYTES, FILES = 1 << 20, 2


class Journal(logging.Handler):
    """Takes every record of the log, holds the latest for readers, and tells subscribers."""

    def __init__(self) -> None:
        super().__init__()
        self.feed = Feed(256 << 10)
        self._subscribers: list[Subscriber] = []
        self.setFormatter(JsonLines())

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record. A subscriber that raises is told nothing more."""
        line = self.format(record)
        self.feed.write(line + "\n")
        for subscriber in list(self._subscribers):
            try:
                subscriber(json.loads(line))
            except Exception:
                self.removeSubscriber(subscriber)
                self.handleError(record)

    def left_out(self, number: int) -> str:
        """Return the record that stands for others, which a reader was too slow for."""
        text = f"{number} records are left out here: they came faster than they were read"
        return self.format(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (), None)) + "\n"

    def addSubscriber(self, subscriber: Subscriber) -> None:
        """Call a function with each record from now on, in the thread that logs."""
        self._subscribers.append(subscriber)

    def removeSubscriber(self, subscriber: Subscriber) -> None:
        """Stop calling a function; nothing happens if it was not called."""
        with contextlib.suppress(ValueError):
            self._subscribers.remove(subscriber)

    def getLogsSince(self, target: float) -> list[dict[str, Any]]:
        """Return the records held that are younger than a time (Unix seconds), the oldest first."""
        records = [json.loads(line) for line in self.feed.pieces()]
        return [record for record in records if record["time"] >= target]


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        return json.dumps({"time": round(record.created, 3), "level": record.levelname, "module": record.name,
                           "line": record.lineno, "message": message})


def start_logging() -> Journal:
    """Send the log of everything to LOG_PATH, to stderr and to the journal returned, and nowhere else.

    Where the file cannot be written, the log goes on without it and says so.
    """
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if settings.VERBOSE else logging.INFO)
    for handler in list(root.handlers):
        root.removeHandler(handler)
    journal = Journal()
    root.addHandler(journal)
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root.addHandler(console)
    try:
        pdosq.makedirs(settings.LOG_PATH)
        file = RotatingFileHandler(Path(settings.LOG_PATH) / "log", maxBytes=BYTES, backupCount=FILES)
    except OSError as error:
        logging.getLogger(__name__).warning("cannot write the log to %s: %s", settings.LOG_PATH, error)
    else:
        file.setFormatter(JsonLines())
        root.addHandler(file)
    # A follower of the log through the link would have a record of each message that carries one.
    for chatty in ("urllib3", "docker", "asyncio", "uvicorn", "websockets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return journal
