"""Restarting the router itself."""

import logging
import subprocess
from pathlib import Path

from paradrop.lib.errors import ParadropError

log = logging.getLogger(__name__)


def reboot() -> None:
    """Have the system restart this machine; it goes down in its own time, services first.

    Raises:
        ParadropError: it refuses.
    """
    command = ["systemctl", "reboot"] if Path("/run/systemd/system").is_dir() else ["reboot"]
    log.warning("told to restart the router")
    advice = "switch the router off and on again"
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
                              check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ParadropError(f"cannot restart the router: {error}; {advice}") from error
    if done.returncode:
        raise ParadropError(f"cannot restart the router: {done.stderr.strip() or done.returncode}; {advice}")
