"""Times for people. Everywhere else a time is Unix seconds."""

from datetime import UTC, datetime, tzinfo
from typing import Literal

To = Literal["day", "minute", "second"]
_FORMS: dict[To, str] = {"day": "%Y-%m-%d", "minute": "%Y-%m-%d %H:%M", "second": "%Y-%m-%d %H:%M:%S"}


def utc(at: float, to: To = "second") -> str:
    """Return a time in UTC, up to its day, minute or second; what no calendar has, as a number.

    >>> utc(1795975200), utc(1795975200, "minute"), utc(1795975200, "day"), utc(10**18)
    ('2026-11-29 18:00:00Z', '2026-11-29 18:00Z', '2026-11-29', '1000000000000000000')
    """
    return _written(at, UTC, _FORMS[to] + ("" if to == "day" else "Z"))


def local(at: float) -> str:
    """Return a time by this machine's clock and zone, as its owner sets windows and holds; what no calendar has, as a
    number."""
    return _written(at, None, f"{_FORMS['minute']} %Z")


def _written(at: float, zone: tzinfo | None, form: str) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).astimezone(zone).strftime(form)
    except (OverflowError, ValueError, OSError):
        return str(at)
