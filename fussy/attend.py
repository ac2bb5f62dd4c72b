"""Attends to a trial from beginning to end, the watchdog held all the time: ``fussy trial --hold``.

Between two rounds the target is not locked, so the trial can be ended by hand. A device that freezes is reset by its
watchdog, and that counts as a boot.
"""

import logging
from pathlib import Path
from threading import Event

from fussy import confirm, enable, watchdog
from fussy.errors import Busy
from fussy.install import ready
from fussy.state import Trial
from fussy.target import Target

log = logging.getLogger(__name__)


def attend(root: Path, enough: Event, pause: float = 60.0) -> None:
    """Ask the checks of the release on trial every PAUSE seconds until its trial has ended, or it is ENOUGH.

    :raises FussyError: as fussy.confirm.examine
    """
    with ready(root) as held:
        on = confirm.examine(held)
    if on is None:
        return
    device, seconds = _vigil(held, on)
    with watchdog.held(device, pause + seconds) as prolong:
        while not enough.wait(pause):
            prolong(pause + seconds)
            try:
                with ready(root) as held:
                    if confirm.examine(held) is None:
                        return
            except Busy as error:
                log.info("%s", error)


def _vigil(target: Target, on: Trial) -> tuple[str, float]:
    return enable.vigil(target, target.release(on.release), target.release(on.previous) if on.previous else None)
