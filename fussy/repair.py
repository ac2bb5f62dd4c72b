"""Mends what fussy.check found broken: from what is on the disk already, then from the channel's parts.

A manifest comes first, for it tells what the rest should be. A file's content is taken from any whole file of the
target that has it, or else from the part of the release (see fussy.channel) that holds it: only such parts are fetched,
or the full bundle where the channel has no parts of it.
It is written aside, compared with its digest, and given all the places where it was broken by renames (fussy.disk.put),
so a power cut leaves each place broken or mended, and files that releases shared are shared again. Nothing is shared
with the failsafe release.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from fussy import bundle, check, disk, manifest, share
from fussy.channel import Offer
from fussy.check import Fault
from fussy.errors import BadBundle, FussyError, NoSpace, full, is_full
from fussy.frames import blocks
from fussy.install import ready
from fussy.stage import Stage, blocks_of
from fussy.tarball import members
from fussy.target import Target

log = logging.getLogger(__name__)


class Channel(Protocol):
    """Where parts come from (fussy.updating.fetching)."""

    def offers(self) -> list[Offer]:
        """Return all that is offered."""

    def fetch(self, offer: Offer) -> Path:
        """Return the file of OFFER; who has used it deletes it."""


def repair(
    target: Target, keyring: Path, faults: list[Fault], channel: Channel | None
) -> tuple[list[Fault], list[Fault], str]:
    """Mend FAULTS; return all that were found on the way, those that are left, and why the channel did not help.

    :param channel: None: mend only from what is on the disk
    :raises NoSpace: the disk is full
    """
    manifests = [fault for fault in faults if fault.index < 0]
    left, why = _mend(target, keyring, manifests, channel)
    mended = {fault.release for fault in manifests} - {fault.release for fault in left}
    hidden = check.examine(target, sorted(mended))
    files = [fault for fault in faults if fault.index >= 0] + hidden
    more, why_files = _mend(target, keyring, files, channel)
    return faults + hidden, left + more, why or why_files


def _mend(target: Target, keyring: Path, faults: list[Fault], channel: Channel | None) -> tuple[list[Fault], str]:
    """Mend FAULTS; return those that are left, and why."""
    if not faults:
        return [], ""
    with ready(target.root) as held:
        left = _from_disk(held, check.still(faults))
    try:
        if left and channel:
            for offer, wanted in _parts(channel.offers(), left):
                file = channel.fetch(offer)
                try:
                    with ready(target.root) as held:
                        _from_part(held, file, keyring, check.still(wanted))
                finally:
                    file.unlink(missing_ok=True)
    except NoSpace:
        raise
    except FussyError as error:
        return check.still(left), str(error)
    return check.still(left), ""


def _parts(offered: list[Offer], faults: list[Fault]) -> Iterator[tuple[Offer, list[Fault]]]:
    """Yield the files of the channel that are needed, each with what it can mend."""
    waiting = [fault for fault in faults if fault.entry.type == "file"]
    while waiting:
        first = waiting[0]
        holding = [offer for offer in offered if _holds(offer, first)]
        offer = min(holding, key=lambda offer: offer.kind != "part", default=None)
        contents = {fault.entry.sha256 for fault in waiting if offer and _holds(offer, fault)} or {first.entry.sha256}
        wanted = [fault for fault in waiting if fault.entry.sha256 in contents]
        waiting = [fault for fault in waiting if fault.entry.sha256 not in contents]
        if offer:
            yield offer, [fault for fault in faults if fault in wanted or fault.entry.type == "hardlink"]


def _holds(offer: Offer, fault: Fault) -> bool:
    return offer.digest == fault.digest and (
        offer.kind == "full" or (offer.kind == "part" and offer.first <= fault.index <= offer.last))


def _from_disk(target: Target, faults: list[Fault]) -> list[Fault]:
    """Mend what needs no content, and files whose content is somewhere in TARGET; return what is left."""
    if not faults:
        return []
    with _Work(target) as work:
        for fault in faults:
            if fault.entry.type not in ("file", "hardlink"):
                work.restore(fault)
        wanted = {fault.entry.sha256 for fault in faults if fault.entry.type == "file"}
        for content, source in _copies(target, wanted):
            if content in wanted and work.write(content, _blocks_or_none(source), faults):
                wanted.remove(content)
        work.put()
        work.link(faults)
    return check.still(faults)


def _copies(target: Target, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield files, of TARGET mostly, that should have a content that is WANTED."""
    yield manifest.digest(b""), os.fsencode(os.devnull)
    for release in target.releases():
        root = os.fsencode(release) + b"/"
        yield manifest.digest(_read(root + manifest.PATH)), root + manifest.PATH
        try:
            yield from ((entry.sha256, root + entry.name) for entry in share.installed_entries(release)
                        if entry.type == "file" and entry.sha256 in wanted)
        except (BadBundle, OSError) as error:
            log.info("%s: %s", release, error)


def _read(file: bytes) -> bytes:
    return b"".join(_blocks_or_none(file))


def _blocks_or_none(file: bytes) -> Iterator[bytes]:
    """Yield the content of a file, as far as it can be read."""
    try:
        yield from blocks_of(file)
    except OSError as error:
        log.info("%s: %s", os.fsdecode(file), error.strerror)


def _from_part(target: Target, file: Path, keyring: Path, faults: list[Fault]) -> None:
    """Mend FAULTS with the files in a part of the channel, or in a full bundle."""
    contents = {fault.entry.name: fault.entry.sha256 for fault in faults if fault.entry.type == "file"}
    with _Work(target) as work:
        with bundle.opened(file, keyring) as (signer, source):
            log.info("%s: signed by %s", file, signer.fingerprint)
            for member in members(blocks(source, lambda first, count: True)):
                if content := contents.get(member.name.partition(b"/")[2]):
                    work.write(content, member.data, faults)
        work.put()
        work.link(faults)


class _Work:
    """Files being made in the staging directory of a locked target; a context manager."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._stage = Stage(os.fsencode(target.staging))
        self._made: list[tuple[Path, Path]] = []
        self._count = 0

    def __enter__(self) -> "_Work":
        disk.empty(self._target.staging)
        self._target.staging.mkdir(mode=0o700, exist_ok=True)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        disk.empty(self._target.staging)
        if is_full(error):
            raise NoSpace(f"cannot repair: {full(self._target.root, error)}; run fussy-clean --no-spare or make room"
                          ) from error

    def write(self, content: str, data: Iterable[bytes | memoryview], faults: list[Fault]) -> bool:
        """Write the file with CONTENT (a SHA-256) from DATA; return whether DATA has it.

        One file serves all FAULTS that are to share it: same content, owner, mode and attributes, unless in failsafe or
        a crontab.
        """
        groups: dict[tuple[Path | None, bytes], list[Fault]] = {}
        for fault in faults:
            if fault.entry.type == "file" and fault.entry.sha256 == content:
                shared = fault.release != self._target.failsafe and share.may_share(fault.entry.name)
                apart = None if shared else fault.file
                groups.setdefault((apart, fault.entry.identity()), []).append(fault)
        source: Iterable[bytes | memoryview] = data
        for group in groups.values():
            made = self._new()
            entry = msgspec.structs.replace(group[0].entry, path=made.name, raw_path="")
            if self._stage.write(entry, source) != content:
                made.unlink()
                return False
            source = blocks_of(os.fsencode(made))
            self._made += [(made, fault.file) for fault in group]
        return bool(groups)

    def restore(self, fault: Fault) -> None:
        """Bring back a directory, symbolic link, fifo or device node, and all that the manifest says of it."""
        entry = fault.entry
        if check.leads_away(fault.file):
            return
        if entry.type == "directory" and fault.file.is_dir() and not fault.file.is_symlink():
            self._stage.dress(os.fsencode(fault.file), entry)
            return
        made = self._new()
        renamed = msgspec.structs.replace(entry, path=made.name, raw_path="")
        if entry.type == "directory":
            self._stage.make_directory(renamed)
            self._stage.dress(os.fsencode(made), entry)
        else:
            self._stage.make_special(renamed)
        self._make_room(fault.file, entry)
        disk.put([(made, fault.file)], self._aside)

    def put(self) -> None:
        """Give the files that were written their places."""
        self._place(self._made)
        self._made = []

    def link(self, faults: list[Fault]) -> None:
        """Make the further names of files anew that are broken, or whose file was."""
        pairs = [(fault.release / os.fsdecode(fault.entry.link), fault.file) for fault in faults
                 if fault.entry.type == "hardlink"]
        self._place([(first, place) for first, place in pairs if first.is_file() and not first.is_symlink()])

    def _place(self, pairs: list[tuple[Path, Path]]) -> None:
        safe = [(made, place) for made, place in pairs if not check.leads_away(place)]
        for _, place in safe:
            self._make_room(place)
        disk.put(safe, self._aside)

    def _make_room(self, place: Path, entry: manifest.Entry | None = None) -> None:
        """Remove a directory where a file belongs, and a file where a directory does: no rename replaces them."""
        is_directory = place.is_dir() and not place.is_symlink()
        if is_directory or (entry and entry.type == "directory" and os.path.lexists(place)):
            disk.discard(place, self._target.trash)

    def _new(self) -> Path:
        self._count += 1
        return self._target.staging / str(self._count)

    @property
    def _aside(self) -> Path:
        return self._target.staging / "aside"
