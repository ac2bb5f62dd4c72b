"""Ending processes together with everything they have started."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

GRACE = 1.0
"""Seconds which a process gets between SIGTERM and SIGKILL."""
PATIENCE = 5.0
"""Seconds after which processes that not even SIGKILL ends (uninterruptible I/O) are given up."""


@dataclass(frozen=True)
class Seen:
    """One process as /proc/PID/stat (proc(5)) shows it; number and start time together tell it from all others."""

    pid: int
    started: int
    parent: int = field(compare=False)
    session: int = field(compare=False)
    dead: bool = field(compare=False)


def look(pid: int) -> Seen | None:
    """Return what /proc says about a process, or None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name in parentheses may hold spaces and parentheses itself: the fields start after the last one.
    fields = stat[stat.rindex(b")") + 2:].split()
    return Seen(pid, int(fields[19]), int(fields[1]), int(fields[3]), fields[0] in (b"Z", b"X"))


def family(roots: Iterable[int]) -> set[Seen]:
    """Return `roots`, their descendants, and the members of the sessions which the roots lead, zombies included.

    A descendant which has both made its own session and lost its parent is not found.
    """
    wanted = set(roots)
    seen = [process for entry in os.listdir("/proc") if entry.isdigit() if (process := look(int(entry)))]
    leaders = {process.pid for process in seen if process.pid in wanted and process.session == process.pid}
    found: set[Seen] = set()
    more = {process for process in seen if process.pid in wanted or process.session in leaders}
    while more:
        found |= more
        parents = {process.pid for process in more}
        more = {process for process in seen if process.parent in parents} - found
    return found


def end(roots: Iterable[int]) -> None:
    """End `roots`, which must be unreaped children of this process, and all they have started.

    SIGTERM first; what is still there after GRACE seconds gets SIGKILL. The roots stay to be reaped by the caller.
    """
    roots = set(roots)
    known: set[Seen] = set()
    asked: set[Seen] = set()
    start = time.monotonic()
    while time.monotonic() - start < GRACE + PATIENCE:
        known = _alive(known)
        known |= {process for process in family(roots | {process.pid for process in known}) if not process.dead}
        if not known:
            return
        force = time.monotonic() - start >= GRACE
        for process in known if force else known - asked:
            _send(process.pid, signal.SIGKILL if force else signal.SIGTERM)
            _send(process.pid, signal.SIGCONT)
        asked |= known
        time.sleep(0.005)


def reap(popen: subprocess.Popen[bytes]) -> None:
    """Collect the exit code of a process that has ended, or was killed; one that cannot be killed is given up."""
    with suppress(subprocess.TimeoutExpired):
        popen.wait(GRACE)


def _alive(known: set[Seen]) -> set[Seen]:
    return {before for before in known if (now := look(before.pid)) and now.started == before.started and not now.dead}


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # gone already, or another user's by now (sudo)
        os.kill(pid, number)
