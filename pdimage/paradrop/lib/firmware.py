"""The firmware that this runtime is part of: its state, and commands of fussy that outlive this process.

A command that changes the firmware stops the runtime in its hooks, and starts the next one. So it runs in a session of
its own, under systemd in a scope of its own, and what it says goes to a file, not to us::

    RUNTIME_HOME_DIR/firmware/output    what the last command has said
"""

import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fussy import target as targets
from fussy.target import Target
from paradrop.lib import settings
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import pdosq

if TYPE_CHECKING:
    from fussy.status import Status
    from fussy.updating.settings import Settings

log = logging.getLogger(__name__)

_SYSTEMD = Path("/run/systemd/system")
_SCOPE = ("systemd-run", "--scope", "--quiet", "--collect")
_SHOWN = 4096


@dataclass
class Work:
    """A command of fussy that was started. ``exit_code`` is None while it runs; ``said`` is the end of its output."""

    verb: str
    exit_code: int | None = None
    said: str = ""
    ended: threading.Event = field(default_factory=threading.Event)


def target() -> Target | None:
    """Return where the releases of this router lie (the setting FIRMWARE_TARGET); None if it has none."""
    place = Path(str(settings.FIRMWARE_TARGET))
    return targets.find(place) if (place / targets.PRIVATE).is_dir() else None


def status() -> "Status | None":
    """Return what ``fussy status --json`` says; None if this router has no releases.

    Raises:
        FussyError: the directory of the releases is not as it should be.
    """
    from fussy import status as statuses  # not needed by a router that nobody asks

    found = target()
    return statuses.status(found, owner_file()) if found else None


def owner_file() -> Path:
    """Return the file with the updater's settings, which need not be there."""
    return Path(str(settings.FIRMWARE_SETTINGS))


def owner_settings() -> "Settings | None":
    """Return the updater's settings; None if there is no such file.

    Raises:
        FussyError: it has mistakes.
    """
    from fussy.updating import settings as owners

    return owners.load(owner_file()) if owner_file().is_file() else None


def program() -> str | None:
    """Return the fussy command of this release, or of the Python that runs this; None if there is none."""
    beside = Path(sys.executable).with_name("fussy")
    return shutil.which("fussy") or (str(beside) if os.access(beside, os.X_OK) else None)


def update_command(insist: bool = False) -> list[str]:
    """Return the command that looks for an update and installs it; INSIST: whatever hold, window and mode say."""
    owner = owner_settings()
    on_demand = owner is not None and bool(owner.on_demand.server) and not owner.sources
    return ["update", "--settings", str(settings.FIRMWARE_SETTINGS), "--keyring", str(settings.FIRMWARE_KEYRING),
            "--no-delay", "--verbose", *(["--now"] if insist else []), *(["--on-demand"] if on_demand else [])]


_last: Work | None = None
_starting = threading.Lock()


def last() -> Work | None:
    """Return the command that was started last since this process began, None if there was none."""
    return _last


def start(arguments: Sequence[str]) -> Work:
    """Start a command of fussy on the target, to go on when this process ends.

    Raises:
        ParadropError: another one that was started here still runs; or there is no fussy, or no target.
    """
    global _last
    with _starting:
        if _last is not None and _last.exit_code is None:
            raise ParadropError(f"cannot start fussy {arguments[0]}: fussy {_last.verb} is not done yet; wait for it")
        found, fussy = target(), program()
        if found is None or fussy is None:
            what = "fussy" if found else f"firmware in {settings.FIRMWARE_TARGET}"
            raise ParadropError(f"cannot start fussy {arguments[0]}: this router has no {what}")
        command = [*(_SCOPE if _SYSTEMD.is_dir() else ()), fussy, *arguments, "--target", str(found.root)]
        output = _output()
        pdosq.makedirs(output.parent)
        with output.open("wb") as file:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                                       cwd="/", start_new_session=True)
        _last = work = Work(arguments[0])
        log.info("started fussy %s", " ".join(arguments))
        threading.Thread(target=_await, args=(process, work), daemon=True, name="firmware").start()
    return work


def said() -> str:
    """Return the end of what the last command has said, also one that this process did not start."""
    try:
        return _output().read_bytes()[-_SHOWN:].decode(errors="replace")
    except FileNotFoundError:
        return ""


def _output() -> Path:
    return Path(settings.RUNTIME_HOME_DIR, "firmware", "output")


def _await(process: "subprocess.Popen[bytes]", work: Work) -> None:
    code = process.wait()
    work.said = said()
    work.exit_code = code
    work.ended.set()
    log.info("fussy %s ended with %d", work.verb, code)
