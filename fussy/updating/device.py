"""What a device is to a channel: gathered from its target, its settings and its firmware."""

import hashlib
import secrets
import time
from pathlib import Path

import fussy
from fussy import disk, enable, manifest, state
from fussy.errors import SystemSetup
from fussy.target import Target
from fussy.updating import record, trusted
from fussy.updating.choose import Device
from fussy.updating.clock import Clock, newest_known
from fussy.updating.settings import Settings

ROOT = "root.json"
_MACHINE_ID = Path("/etc/machine-id")


def device(target: Target, settings: Settings, now: state.State) -> Device:
    """Return the facts that a choice depends on."""
    current = target.current_release()
    digests = {release: digest for release in target.releases() if (digest := manifest.release_digest(release))}
    return Device(
        digest=digests.get(current, "") if current else "", version=enable.description(current).version,
        boards=tuple(settings.boards or target.boards()), floor=now.floor,
        bad=tuple(sorted(bad.digest for bad in now.bad if bad.digest and bad.refused)),
        bases=tuple(sorted(set(digests.values()))),
        id=settings.device or _own_id(target))


def version(target: Target) -> str:
    """Return the version of the release in use."""
    return enable.description(target.current_release()).version


def _own_id(target: Target) -> str:
    """Return the id of this machine for roll-outs: a digest of machine-id(5), or a random one that is kept."""
    try:
        text = _MACHINE_ID.read_text().strip()
    except OSError:
        text = ""
    if len(text) == 32:
        return hashlib.sha256(f"fussy roll-out {text}".encode()).hexdigest()
    path = record.place(target) / "id"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        made = secrets.token_hex(16)
        disk.replace_file(path, f"{made}\n".encode())
        return made


def shipped_root(keyring: Path) -> bytes:
    """Return the root that trust begins with.

    :raises SystemSetup: there is none
    """
    try:
        return (keyring / ROOT).read_bytes()
    except OSError as error:
        raise SystemSetup(f"cannot trust any channel: cannot read {keyring / ROOT}: {error.strerror}; copy the "
                          "channel's metadata/1.root.json there") from error


def clock_is_set() -> bool:
    """Whether the clock may be right: it is not earlier than the time of this program."""
    return time.time() >= Path(fussy.__file__).stat().st_mtime


def clock(target: Target, keyring: Path, root: bytes, now: float) -> Clock:
    """Return the clock, with the newest time that is known; see :mod:`fussy.updating.clock`."""
    files = [Path(fussy.__file__), keyring / ROOT, *keyring.glob("pubring.*")]
    times = [file.stat().st_mtime for file in files if file.exists()]
    checked = trusted.load_floor(record.place(target)).time
    return Clock(now, newest_known(times, trusted.root_expires(root), checked))
