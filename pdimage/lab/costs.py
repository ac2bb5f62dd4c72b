"""What the lab's work cost in this process: seconds to build systems, to boot machines, to go back to snapshots."""

import contextlib
import statistics
import time
from collections.abc import Iterator

_seconds: dict[str, list[float]] = {}


def note(what: str, seconds: float) -> None:
    """Add one measurement of WHAT."""
    _seconds.setdefault(what, []).append(seconds)


@contextlib.contextmanager
def measured(what: str) -> Iterator[None]:
    """Measure the time that the context takes, unless it fails."""
    begun = time.monotonic()
    yield
    note(what, time.monotonic() - begun)


def lines() -> Iterator[str]:
    """Yield a line for each thing measured: how often, the middle one in seconds, the quickest and the slowest."""
    if _seconds:
        yield f"{'':44} {'times':>5} {'median':>8} {'least':>8} {'most':>8}"
    for what, seconds in _seconds.items():
        yield (f"{what:44} {len(seconds):5} {statistics.median(seconds):7.2f}s {min(seconds):7.2f}s "
               f"{max(seconds):7.2f}s")
