"""The log of the server, as text for people or as JSON for machines, one line for each event."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from pdimage.server.settings import Settings

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonLines(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message``, ``traceback``, and what else is known."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def start(settings: Settings, *, verbose: bool) -> None:
    """Let the log go to stderr: warnings, with VERBOSE also what goes well, and accesses if they are to be logged."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if settings.log_format == "json" else logging.Formatter(
        "%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    for noisy in ("huey", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("gnupg").setLevel(logging.ERROR)  # it warns of every empty keyring
    if settings.log_access:
        logging.getLogger("pdimage.server.metrics").setLevel(logging.INFO)
