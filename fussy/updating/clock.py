"""Which time expiry is judged by, for a router whose clock may be wrong.

TUF needs a clock only to notice that a source holds back newer metadata (a freeze attack): what expired is not
believed. Versions and signatures need none. So:

- The time is never earlier than the newest time that is *known*: when this program was built, when the keyring was
  made, and the clock of the last check whose metadata was all valid. A router that boots in 1970 judges by that time:
  it updates, and a source can replay to it at most what was valid then; older versions are refused as ever.
- A known time comes from a check only while nothing signed had expired by it, so it can't run ahead of what the
  publisher signed, however wrong the clock was: a clock in 2100 makes each check fail, and nothing is kept of it.
- A clock that is ahead looks exactly like a source that replays the past. Nothing on the device can tell the two apart
  (the Date of an HTTP answer is anybody's word), so an expired channel is refused, and the message shows the clock.
  Uptane asks a signed time server for this; here the owner sets the clock, or NTP does.
- Times of files are no proof when they lie beyond the expiry of the shipped root: whoever wrote them had a wrong clock.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from fussy.moments import utc


@dataclass(frozen=True)
class Clock:
    """The machine's clock and the newest time that is known, both in Unix seconds."""

    now: float
    known: float

    @property
    def behind(self) -> bool:
        """Whether the clock is certainly wrong: earlier than a time that has been."""
        return self.now < self.known

    @property
    def time(self) -> float:
        """The time to judge by."""
        return max(self.now, self.known)

    @property
    def reference(self) -> datetime:
        """The time to judge by, as TUF wants it."""
        return datetime.fromtimestamp(self.time, UTC)

    def note(self) -> str:
        """What to say about a clock that is behind, or an empty text."""
        if not self.behind:
            return ""
        return f"the clock shows {utc(self.now, 'day')}, so expiry is judged as of {utc(self.known, 'day')}"


def newest_known(files: list[float], latest: float, checked: float) -> float:
    """Return the newest time that is known.

    :param files: times of files that came with the firmware; those after LATEST, the shipped root's expiry, don't count
    :param checked: the clock at the last check that found everything valid
    """
    return max([checked, *(time for time in files if time <= latest)])
