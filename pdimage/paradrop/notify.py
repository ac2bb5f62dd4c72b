"""Telling the service manager how the daemon is: the protocol of sd_notify(3), over a datagram socket."""

import os
import socket


def notify(state: str) -> bool:
    """Send a state, such as ``READY=1``. Returns False if nobody manages this process or hears it."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(state.encode(), "\0" + place[1:] if place.startswith("@") else place)
        except OSError:
            return False
    return True


def watchdog_seconds() -> float | None:
    """Return how often ``WATCHDOG=1`` is due at the latest, None if nobody waits for it."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(os.environ["WATCHDOG_USEC"]) / 1e6
    except (KeyError, ValueError):
        return None
