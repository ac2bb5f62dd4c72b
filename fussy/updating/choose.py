"""Chooses what to install: a pure function of what is offered, what the device is, and what its owner wants."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from fussy import channel, manifest, moments, preflight, versions, windows
from fussy.channel import Offer
from fussy.errors import Incompatible
from fussy.updating.record import Outcome, Owner, current
from fussy.updating.settings import Settings


@dataclass(frozen=True)
class Found:
    """A file of the channel: its target path, length and SHA-256 as signed, and what it is."""

    path: str
    length: int
    sha256: str
    offer: Offer

    @property
    def place(self) -> str:
        """Where a source has it, by TUF's consistent snapshots."""
        directory, slash, name = self.path.rpartition("/")
        return f"targets/{directory}{slash}{self.sha256}.{name}"


class Device(msgspec.Struct, frozen=True):
    """What a choice depends on: the release in use (its digest and version), names of the board, the version below
    which none is accepted, digests of what failed here, digests of the releases that a delta can start from, and the id
    that roll-outs know."""

    digest: str = ""
    version: str = ""
    boards: tuple[str, ...] = ()
    floor: str = ""
    bad: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True)
class Choice:
    """What to do: OUTCOME with its REASON, and the files that make the chosen release, the cheapest first.

    ``available`` means: install it. ``opens`` is when that will be allowed (Unix time), if it is a matter of time.
    """

    outcome: Outcome
    reason: str
    ways: list[Found] = field(default_factory=list)
    opens: int = 0


def choose(found: Iterable[Found], device: Device, settings: Settings, owner: Owner, now: datetime, *,
           spoilt: Collection[str] = (), time_known: bool = True, insist: bool = False) -> Choice:
    """Return what to do with what a channel offers.

    The newest version that is for this device and newer than what it has; by the smallest file that makes it.

    :param now: local time; TIME_KNOWN is False when the clock is certainly wrong
    :param spoilt: SHA-256 of files that turned out to be unusable lately
    :param insist: the owner wants it now, whatever was set before and however far the roll-out is
    """
    releases: dict[str, list[Found]] = {}
    for file in found:
        if file.offer.kind in ("full", "delta") and newer(file.offer, device):
            releases.setdefault(file.offer.digest, []).append(file)
    ordered = sorted(releases.values(), key=lambda files: versions.key(files[0].offer.version), reverse=True)
    refused, unfit, later = "", "", None
    for files in ordered:
        offer = files[0].offer
        ways = usable(files, device, spoilt, settings.memory)
        if offer.digest in device.bad:
            refused = refused or f"{named(offer)} failed on this device before (see fussy status)"
        elif problem := _problem(offer, device):
            unfit = unfit or problem
        elif not ways:
            refused = refused or f"no usable bundle of {named(offer)} (see fussy log)"
        elif insist:
            return Choice("available", f"{named(offer)} is there", ways)
        elif not any(channel.takes_part(way.offer, device.id) for way in ways):
            later = later or Choice("roll-out", f"{named(offer)} waits: the roll-out has not reached this device", ways)
        else:
            return when(ways, settings, owner, now, time_known)
    if later:
        return later
    if refused:
        return Choice("refused", f"cannot update: {refused}; a newer release is needed")
    return Choice("nothing-new", f"nothing new{': ' + unfit if unfit else ''}")


def newer(offer: Offer, device: Device) -> bool:
    """Whether an offer is not what the device has, nor older: a downgrade is never made by itself."""
    return offer.digest != device.digest and versions.key(offer.version) > versions.key(device.version)


def named(offer: Offer) -> str:
    """What to call an offer's release."""
    return f"{offer.release} (version {offer.version})" if offer.version else offer.release


def _problem(offer: Offer, device: Device) -> str:
    """Return why the release is not for this device as it is, or an empty text."""
    described = manifest.Description(version=offer.version, compatible=offer.compatible, installer=offer.installer,
                                     upgrade_from=offer.upgrade_from)
    try:
        preflight.check_compatible(described, boards=device.boards, current=device.version, floor=device.floor)
    except Incompatible as error:
        return f"{named(offer)}: {str(error).removeprefix('cannot install: ')}"
    return ""


def usable(files: list[Found], device: Device, spoilt: Collection[str], memory: int) -> list[Found]:
    """Return the files that this device could use, the smallest first; what is larger than the full bundle is not, nor
    a delta that needs more than MEMORY MiB."""
    usable = [file for file in files if file.sha256 not in spoilt
              and (file.offer.kind == "full" or (file.offer.base in device.bases and file.offer.memory <= memory))]
    ordered = sorted(usable, key=lambda file: (file.length, file.offer.kind))
    full = next((i for i, file in enumerate(ordered) if file.offer.kind == "full"), len(ordered))
    return ordered[:full + 1]


def when(ways: list[Found], settings: Settings, owner: Owner, now: datetime, time_known: bool) -> Choice:
    """Return whether the release may be installed now: the owner's hold, postponement and window; then the
    publisher's window, which a security fault does not wait for."""
    offer, owner = ways[0].offer, current(owner, int(now.timestamp()))
    name = named(offer)
    if owner.held:
        until = f" until {moments.local(owner.held_until)}" if owner.held_until else ""
        why = f" ({owner.reason})" if owner.reason else ""
        return Choice("held", f"{name} waits: the owner holds updates{until}{why}", ways, owner.held_until)
    if owner.postponed:
        until = moments.local(owner.postponed)
        return Choice("postponed", f"{name} waits: postponed until {until}", ways, owner.postponed)
    if settings.mode == "notify":
        return Choice("notify-only", f"{name} is there: install it with fussy update --now", ways)
    window = settings.window or ("" if offer.security else offer.window)
    try:
        spans = windows.parse(window)
    except ValueError:  # the publisher's: an update must not be lost for it
        spans = []
    if spans and not time_known:
        return Choice("outside-window", f"{name} waits for its window ({window}): the clock is not set", ways)
    if (opens := windows.opens(spans, now)) > now:
        opening = int(opens.timestamp())
        line = f"{name} waits for its window, which opens {moments.local(opening)}"
        return Choice("outside-window", line, ways, opening)
    return Choice("available", f"{name} is there", ways)
