"""Asks a release whether it is well: the health checks of its manifest (see fussy.manifest.Check)."""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from fussy.errors import UnhealthyRelease
from fussy.manifest import Check

log = logging.getLogger(__name__)

_PAUSE = 0.25


def check(release: Path, checks: Sequence[Check]) -> None:
    """Wait until every check passes, each within its own time.

    :raises UnhealthyRelease: one did not; the message says what it last showed
    """
    for item in checks:
        deadline = time.monotonic() + item.seconds
        while problem := _ask(release, item, max(0.1, deadline - time.monotonic())):
            if time.monotonic() + _PAUSE > deadline:
                raise UnhealthyRelease(f"cannot accept {release.name}: health check {item.name!r} did not pass within "
                                       f"{item.seconds:g} s: {problem}")
            time.sleep(_PAUSE)
        log.info("health check %r passes", item.name)


def _ask(release: Path, item: Check, limit: float) -> str:
    """Return what is wrong, or an empty text."""
    answer, problem = _command(release, item.command, limit) if item.command else _http(item.http, limit)
    if not problem and item.contains not in answer:
        problem = f"{item.contains!r} is not in the answer"
    return problem


def _command(release: Path, command: Sequence[str], limit: float) -> tuple[str, str]:
    try:
        process = subprocess.Popen(command, cwd=release, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, start_new_session=True)
    except OSError as error:
        return "", f"cannot start {command[0]}: {error.strerror}"
    with process:
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return "", "no answer"
    text = output.decode(errors="backslashreplace")
    if process.returncode:
        return text, f"exit status {process.returncode}: {text.strip()[-200:]}"
    return text, ""


def _http(address: str, limit: float) -> tuple[str, str]:
    import urllib.error
    import urllib.request

    # without the proxies of the environment: a health check asks this device
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=limit) as answer:
            return answer.read(1 << 20).decode(errors="backslashreplace"), ""
    except urllib.error.HTTPError as error:
        return "", f"HTTP status {error.code}"
    except (urllib.error.URLError, OSError, ValueError) as error:
        return "", str(getattr(error, "reason", error))
