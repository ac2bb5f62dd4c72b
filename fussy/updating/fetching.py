"""For those who need files of the channel for something other than an update, such as self-repair."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fussy import cronlock
from fussy.channel import Offer
from fussy.errors import Busy, FussyError, SystemSetup, TooSlow, Unreachable, UntrustedChannel, is_full
from fussy.target import Target
from fussy.updating import apart, device, downloads, record, sources, trusted
from fussy.updating.choose import Found
from fussy.updating.clock import Clock
from fussy.updating.pace import Limits
from fussy.updating.settings import Settings

KEYRING = Path("/etc/fussy/keys")


@contextmanager
def locked(target: Target) -> Iterator[Path]:
    """Hold the lock of the updater; give its directory.

    :raises Busy: another updater works
    :raises SystemSetup: the target can't be written
    """
    place = record.place(target)
    try:
        target.private.mkdir(mode=0o700, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)
        lock = cronlock.Flock(place / "lock")
        lock.__enter__()
    except cronlock.Busy as error:
        raise Busy(f"cannot update {target.root}: another updater works on it ({error}); wait for it to end") from error
    except OSError as error:
        if is_full(error):
            raise
        raise SystemSetup(f"cannot update {target.root}: {error.strerror}: {error.filename}; make it "
                          "writable, or run as root") from error
    try:
        yield place
    finally:
        lock.__exit__(None, None, None)


def limits(settings: Settings, seconds: float) -> Limits:
    """Return what a source is allowed, if all must be over in so many SECONDS."""
    return Limits(settings.patience, settings.lowest_speed, settings.bandwidth, time.monotonic() + seconds)


def route(settings: Settings) -> sources.Route:
    """Return how web servers are reached."""
    return sources.Route(settings.proxy, settings.authority)


def refresh(place: Path, settings: Settings, root: bytes, clock: Clock,
            troubles: list[FussyError]) -> tuple[sources.Source, list[Found]]:
    """Return the source with the newest metadata that can be believed, and what it offers; the lock is held.

    :param troubles: gets what was wrong with others
    :raises UntrustedChannel: none can, and one lied
    :raises TooSlow: none can, and one is too slow
    :raises Unreachable: none can be reached
    """
    own: list[FussyError] = []
    for name in _newest_first(settings, own):
        source = sources.connect(name, limits(settings, settings.check_deadline), route(settings))
        try:
            with trusted.named(source):
                found = apart.call(trusted.refresh, place, root, source, clock, settings.product)
        except (Unreachable, TooSlow, UntrustedChannel) as error:
            own.append(error)
            continue
        troubles += own
        return source, found
    troubles += own
    raise downloads.worst(own)


def stamps(settings: Settings, troubles: list[FussyError]) -> dict[str, bytes]:
    """Return the timestamp.json of each source that has one, not verified; TROUBLES gets what was wrong with others."""
    found = {}
    for name in sources.present(settings.sources):
        source = sources.connect(name, limits(settings, settings.check_deadline), route(settings))
        try:
            found[name] = sources.read(source, trusted.TIMESTAMP, trusted.MOST_TIMESTAMP)
        except (Unreachable, TooSlow, UntrustedChannel) as error:
            troubles.append(error)
    return found


def _newest_first(settings: Settings, troubles: list[FussyError]) -> list[str]:
    """Return the sources by the version that they claim to have, so that one that is behind hides no newer one.

    A claim proves nothing: what is fetched then must be believed, or the next source is asked.
    """
    names = sources.present(settings.sources)
    if len(names) < 2:
        return names
    found = stamps(settings, troubles)
    return sorted(found, key=lambda name: trusted.claimed(found[name]), reverse=True)


def offers(target: Target, settings: Settings, keyring: Path = KEYRING) -> list[Offer]:
    """Return all that the channel offers for the product of this device.

    :raises FussyError: see :func:`refresh`
    """
    with locked(target) as place:
        return [found.offer for found in _found(target, place, settings, keyring)]


def fetch(target: Target, settings: Settings, offer: Offer, keyring: Path = KEYRING) -> Path:
    """Return the file of OFFER, whole and verified, on the target's disk. Who has used it deletes it.

    :raises SystemSetup: the channel does not offer it any more
    :raises FussyError: see :func:`refresh` and :func:`fussy.updating.downloads.fetch`
    """
    with locked(target) as place:
        wanted = next((found for found in _found(target, place, settings, keyring) if found.offer == offer), None)
        if wanted is None:
            raise SystemSetup(f"cannot fetch {offer.release}: the channel does not offer it any more")
        return download(place, settings, wanted, name=downloads.OTHERS)


def download(place: Path, settings: Settings, wanted: Found, *, progress: downloads.Progress | None = None,
             troubles: list[FussyError] | None = None, name: str = downloads.UPDATES) -> Path:
    """Return a file of the channel on the target's disk, from the first source that has it; the lock is held."""
    allowed = limits(settings, settings.deadline)
    there = [sources.connect(name, allowed, route(settings)) for name in sources.present(settings.sources)]
    return downloads.fetch(place, wanted, there, progress=progress, troubles=troubles, name=name)


def _found(target: Target, place: Path, settings: Settings, keyring: Path) -> list[Found]:
    root = device.shipped_root(keyring)
    _, found = refresh(place, settings, root, device.clock(target, keyring, root, time.time()), [])
    return found
