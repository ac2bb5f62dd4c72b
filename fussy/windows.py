"""Maintenance windows: when an update may be installed, in the router's local time.

``02:00-05:00`` is every night, ``Sat,Sun 22:00-04:00`` the two nights that begin on these days; several windows are
separated by ``;``. An empty text is always.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?:([A-Za-z]{3}(?:\s*,\s*[A-Za-z]{3})*)\s+)?(\d\d?):(\d\d)\s*-\s*(\d\d?):(\d\d)")


@dataclass(frozen=True)
class Window:
    """Begins ``start`` minutes after midnight on each of ``days`` (0 is Monday) and lasts ``length`` minutes."""

    days: frozenset[int]
    start: int
    length: int


def parse(text: str) -> list[Window]:
    """Read windows; none means always.

    >>> parse("Sat,Sun 22:00-04:00")
    [Window(days=frozenset({5, 6}), start=1320, length=360)]

    :raises ValueError: it can't be read; the message says which part
    """
    return [_parse(part.strip()) for part in text.split(";") if part.strip()]


def _parse(text: str) -> Window:
    match = _WINDOW.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no window: write 02:00-05:00, or Sat,Sun 22:00-04:00")
    names = [name.strip().lower() for name in (match[1] or ",".join(DAYS)).split(",")]
    if unknown := [name for name in names if name not in DAYS]:
        raise ValueError(f"{unknown[0]!r} in {text!r} is no day: write {', '.join(DAYS)}")
    hours, minutes = (int(match[2]), int(match[4])), (int(match[3]), int(match[5]))
    start, end = (60 * hour + minute for hour, minute in zip(hours, minutes, strict=True))
    if start >= 24 * 60 or end > 24 * 60 or max(minutes) > 59:
        raise ValueError(f"{text!r} has a time that no day has")
    return Window(frozenset(map(DAYS.index, names)), start, (end - start) % (24 * 60) or 24 * 60)


def opens(windows: list[Window], now: datetime) -> datetime:
    """Return NOW (local time) if it lies in a window or there is none; otherwise when the next one opens.

    >>> opens(parse("02:00-05:00"), datetime(2026, 11, 28, 15, 0))
    datetime.datetime(2026, 11, 29, 2, 0)
    """
    if not windows:
        return now
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    coming = []
    for window in windows:
        for shift in range(-1, 8):
            day = midnight + timedelta(days=shift)
            start = day + timedelta(minutes=window.start)
            if day.weekday() in window.days and now < start + timedelta(minutes=window.length):
                coming.append(max(now, start))
    return min(coming)
