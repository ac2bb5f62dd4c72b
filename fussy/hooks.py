"""Runs a release's ``.pre-install`` and ``.post-install`` (fussy documents, section 4.2.1).

A hook is called with the path of the release and ``True`` when it runs to bring a release back, ``False`` otherwise.
Its environment is clean but for the facts of the transaction:

=========================  ===========================================================
``FUSSY_HOOK``             ``pre-install`` or ``post-install``
``FUSSY_ACTION``           ``install``, ``rollback`` or ``fallback``
``FUSSY_RELEASE``          path of the release
``FUSSY_VERSION``          its version ("" if it has none)
``FUSSY_TARGET``           the target directory
``FUSSY_PREVIOUS``         path of the release that is or was current, "" if none
``FUSSY_PREVIOUS_VERSION`` its version
``FUSSY_MANIFEST``         path of the manifest, with the free metadata in it
=========================  ===========================================================

Standard input is empty, the working directory is the release. What it prints goes to the log; a daemon that a hook
starts must have an output of its own, for the hook's ends with the hook.
"""

import logging
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from fussy.errors import HookFailed
from fussy.trust import printable

log = logging.getLogger(__name__)

PRE_INSTALL = ".pre-install"
POST_INSTALL = ".post-install"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# How long a hook that was told to stop may still tidy up.
_GRACE = 5.0


def run(release: Path, name: str, facts: Mapping[str, str], *, recovering: bool, limit: float) -> None:
    """Run the hook NAME of RELEASE, if it has one, for at most LIMIT seconds.

    :raises HookFailed: it could not be started, failed, or took too long (then all its processes are killed); the
        message ends with the last lines it printed
    """
    hook = release / name
    if not os.path.lexists(hook):
        return
    environment = {"PATH": SEARCH_PATH, "HOME": "/", "LANG": "C.UTF-8", "FUSSY_HOOK": name.lstrip("."),
                   **{f"FUSSY_{key}": value for key, value in facts.items()}}
    log.info("running %s", hook)
    try:
        process = subprocess.Popen(
            [hook, release, str(recovering)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, cwd=release, env=environment, start_new_session=True)
    except OSError as error:
        raise HookFailed(f"cannot start {hook}: {error.strerror}; a program or library that it needs may be missing "
                         "on this device") from error
    with process:
        said = _follow(process, name, time.monotonic() + limit)
    if said is None:
        raise HookFailed(f"cannot finish {hook}: it took longer than {limit:g} s and was killed")
    if process.returncode != 0:
        how = f"exit status {process.returncode}" if process.returncode > 0 else \
            f"killed by {signal.Signals(-process.returncode).name}"
        raise HookFailed(f"cannot finish {hook}: {how}" + (f": {' / '.join(said)}" if said else ""))


def check(release: Path, current: Path) -> None:
    """Refuse a release whose hooks can't be started, before anything depends on them.

    An interpreter below the link CURRENT is looked for in RELEASE, where the link will lead.

    :raises HookFailed: a hook is not executable, neither script nor program, or its interpreter is missing
    """
    for name in (PRE_INSTALL, POST_INSTALL):
        hook = release / name
        if not hook.exists():
            continue
        if problem := _unusable(hook, release, current):
            raise HookFailed(f"cannot install: its {name} can't be started: {problem}; "
                             "correct it and pack again")


def _unusable(hook: Path, release: Path, current: Path) -> str:
    """Return why a hook can't be started, or an empty text."""
    if not hook.is_file():
        return "it is not a file"
    if not os.access(hook, os.X_OK):
        return "it has no x bit"
    with hook.open("rb") as file:
        line = file.readline(256)
    if line.startswith(b"\x7fELF"):
        return ""
    if not line.startswith(b"#!") or not line[2:].split():
        return "it is neither a program nor a script with #! in its first line"
    interpreter = Path(os.fsdecode(line[2:].split()[0]))
    there = release / interpreter.relative_to(current) if interpreter.is_relative_to(current) else interpreter
    return "" if os.access(there, os.X_OK) else f"its interpreter {interpreter} is not on this device"


def _follow(process: "subprocess.Popen[bytes]", name: str, deadline: float) -> list[str] | None:
    """Log what the hook prints until it ends; return its last lines, or None when it was killed at the deadline."""
    assert process.stdout is not None
    output = process.stdout.fileno()
    os.set_blocking(output, False)
    last: deque[str] = deque(maxlen=3)
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        open_ = True
        while True:
            ended = process.poll() is not None
            if not ended and time.monotonic() > deadline:
                _kill(process)
                return None
            if open_:
                # a hook may leave daemons behind that hold the pipe, so its end is watched for beside the pipe's
                ready = selector.select(0 if ended else 0.05)
                block = _read(output) if ready else None
                if block == b"":
                    selector.unregister(output)
                    open_ = False
                elif block:
                    *lines, rest = (rest + block).split(b"\n")
                    for line in lines:
                        _note(line, name, last)
                    continue
            elif not ended:
                time.sleep(0.02)
            if ended:
                if rest:
                    _note(rest, name, last)
                return list(last)


def _read(descriptor: int) -> bytes | None:
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return None


def _note(line: bytes, name: str, last: deque[str]) -> None:
    text = printable(line[:500].decode(errors="backslashreplace").strip())
    if text:
        last.append(text)
        log.info("%s: %s", name, text)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the hook's process group: politely, then for good."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        log.warning("the hook does not stop; killing it")
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()
