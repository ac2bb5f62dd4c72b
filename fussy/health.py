"""Asks a release whether it is well: the health checks of its manifest and of the device's owner.

What a check can ask is told at :class:`fussy.manifest.Check`. Some are about what worked before: these are asked before
the swap too (:func:`before`), and only what worked then must work after it.
"""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path

from fussy import behind, probes
from fussy.errors import UnhealthyRelease
from fussy.hooks import SEARCH_PATH
from fussy.manifest import Check
from fussy.trust import printable

log = logging.getLogger(__name__)

_PAUSE = 0.25
# How long one question may take before the swap, when nothing is waited for.
_GLANCE = 10.0
_PAGE = 1 << 20

# What worked before a swap: names of checks, each with the lines that it showed.
Worked = Mapping[str, list[str]]


def check(release: Path, checks: Sequence[Check], worked: Worked | None = None, seconds: float = inf) -> None:
    """Wait until every check passes, each within its own time, and all within SECONDS.

    Of those that are about what WORKED before, only those in it are asked.

    :raises UnhealthyRelease: one did not; the message says what it last showed
    """
    end = time.monotonic() + seconds
    for item in checks:
        if _compared(item) and item.name not in (worked or {}):
            continue
        start = time.monotonic()
        deadline = min(start + item.seconds, end)
        while problem := _problem(release, item, worked or {}, max(0.1, deadline - time.monotonic())):
            if time.monotonic() + _PAUSE > deadline:
                raise UnhealthyRelease(f"cannot accept {release.name}: health check {item.name!r} did not pass within "
                                       f"{round(max(0.0, deadline - start), 1):g} s: {problem}")
            time.sleep(_PAUSE)
        log.info("health check %r passes", item.name)


def before(release: Path, checks: Sequence[Check]) -> dict[str, list[str]]:
    """Return what works now, before the swap to RELEASE, of what must still work after it."""
    worked = {}
    for item in checks:
        if _compared(item):
            answer, problem = _ask(release, item, min(item.seconds, _GLANCE))
            log.info("before the swap, %r %s", item.name, f"fails: {problem}" if problem else "passes")
            if not problem:
                worked[item.name] = _lines(answer) if item.lines else []
    return worked


def _compared(item: Check) -> bool:
    return item.kept or bool(item.lines)


def _lines(text: str) -> list[str]:
    return sorted({line.strip() for line in text.splitlines() if line.strip()})


def _problem(release: Path, item: Check, worked: Worked, limit: float) -> str:
    """Return what is wrong, or an empty text."""
    answer, problem = _ask(release, item, limit)
    if not problem and item.lines:
        missing = sorted({*worked[item.name]} - {*_lines(answer)})
        problem = f"there before and now missing: {', '.join(missing)}" if missing else ""
    return problem


def _ask(release: Path, item: Check, limit: float) -> tuple[str, str]:
    """Return the answer of a check and what is wrong with it, or an empty text."""
    answer = ""
    if item.http:
        found: list[str] = []
        problem = probes.within(limit, lambda: _http(item.http, limit, found))
        answer = "".join(found)
    elif command := _command_of(item):
        answer, problem = _command(release, command, limit)
    else:
        question = _question(item, limit)
        problem = probes.within(limit + 1, question)
    if not problem and item.contains not in answer:
        problem = f"{item.contains!r} is not in the answer"
    return answer, problem


def _command_of(item: Check) -> list[str]:
    if item.unit:
        return ["systemctl", "is-active", item.unit]
    if item.route:
        return ["ip", "route", "get", *item.route.split()]
    return item.command or item.lines


def _question(item: Check, limit: float) -> Callable[[], str]:
    if item.dhcp:
        return lambda: probes.dhcp(item.dhcp, limit)
    if item.dns:
        return lambda: probes.dns(item.dns, limit)
    if item.tcp:
        return lambda: probes.tcp(item.tcp, limit)
    if item.nat:
        return lambda: behind.nat(item.nat, limit)
    return lambda: "this fussy does not know what it asks"


def _command(release: Path, command: Sequence[str], limit: float) -> tuple[str, str]:
    # cron has a shorter path than those who administrate
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{SEARCH_PATH}".lstrip(":")}
    try:
        process = subprocess.Popen(command, cwd=release, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, start_new_session=True, env=environment)
    except OSError as error:
        return "", f"cannot start {command[0]}: {error.strerror}"
    with process:
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its output is not read to the end: a daemon may still have it
            return "", "no answer"
    text = output.decode(errors="backslashreplace")
    if process.returncode:
        said = printable(" / ".join(text.strip().splitlines()[-3:]))[-200:]
        return text, f"exit status {process.returncode}{f': {said}' if said else ''}"
    return text, ""


def _http(address: str, limit: float, page: list[str]) -> str:
    """Fetch a page into PAGE; return what is wrong."""
    import urllib.error
    import urllib.request

    # without the proxies of the environment: a health check asks this device
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=limit) as answer:
            page.append(answer.read(_PAGE).decode(errors="backslashreplace"))
            return ""
    except urllib.error.HTTPError as error:
        return f"HTTP status {error.code}"
