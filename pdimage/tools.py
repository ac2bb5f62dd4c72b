"""Starts the programs that a build needs (pip, apt-get, dpkg-deb) and tells how they failed."""

import logging
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from fussy.errors import SystemSetup
from pdimage.errors import PartFailed

log = logging.getLogger(__name__)

# Told in a few words what is being done.
Progress = Callable[[str], object]

# A package index that stopped answering must not hold a build for ever.
SECONDS = 1800.0
LINES = 15


def run(argv: Sequence[str | Path], *, what: str, cwd: Path | None = None) -> str:
    """Run a program to its end and return what it printed; WHAT completes "cannot …".

    :raises PartFailed: it failed; the message has the end of its output
    """
    code, output = attempt(argv, what=what, cwd=cwd)
    if code:
        raise PartFailed(f"cannot {what}: {argv[0]} ended with {code}:\n{last_lines(output)}")
    return output


def attempt(argv: Sequence[str | Path], *, what: str, cwd: Path | None = None) -> tuple[int, str]:
    """Run a program to its end, with messages in the C locale; return its exit code and what it printed.

    That is its stdout if it ended well, otherwise both outputs.

    :raises PartFailed: it took longer than half an hour
    :raises SystemSetup: it is not there
    """
    log.debug("running %s", " ".join(map(str, argv)))
    try:
        done = subprocess.run(argv, cwd=cwd, env={**os.environ, "LC_ALL": "C.UTF-8"}, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
    except FileNotFoundError as error:
        raise SystemSetup(f"cannot {what}: {argv[0]} is not there; install it") from error
    except subprocess.TimeoutExpired as error:
        raise PartFailed(f"cannot {what}: {argv[0]} did not end within {SECONDS:.0f} s") from error
    return done.returncode, done.stdout + (done.stderr if done.returncode else "")


def last_lines(output: str) -> str:
    """Return the end of a program's output, indented."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    return "\n".join(f"    {line}" for line in lines[-LINES:])
