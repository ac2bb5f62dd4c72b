"""Fetches a file of the channel onto the target's disk: resumed where it was interrupted, verified before it is used.

In its directory a file is called by its SHA-256: with ``.part`` while it is fetched, and ``.from`` beside it says
which source it came from in which state. Without ``.part`` it is whole and verified.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from fussy import disk, recycle
from fussy.errors import Busy, FussyError, NoSpace, TooSlow, Unreachable, UntrustedChannel, full, is_full
from fussy.target import hold
from fussy.updating.choose import Found
from fussy.updating.sources import Missing, Source

log = logging.getLogger(__name__)

# Directories of what is fetched: bundles for updates, and files for others, which must not end an update half fetched.
UPDATES, OTHERS = "downloads", "parts"

_IDLE_TRIES = 3
_PAUSE = 1.0
_RESERVE = 4 << 20

Progress = Callable[[int, int], object]


class _Origin(msgspec.Struct, frozen=True):
    """Where the bytes of an unfinished file came from."""

    source: str = ""
    validator: str = ""


def fetch(place: Path, file: Found, sources: list[Source], *, progress: Progress | None = None,
          troubles: list[FussyError] | None = None, name: str = UPDATES) -> Path:
    """Return FILE, whole and verified, on the disk; from the first of SOURCES that gives it.

    :param place: the updater's directory; its lock is held
    :param name: of the directory there; other files in it are deleted
    :param troubles: gets what was wrong with the sources that were passed over
    :raises UntrustedChannel: no source gave it, and one gave something else instead
    :raises TooSlow: no source gave it in time
    :raises Unreachable: no source gave it
    :raises NoSpace: it does not fit
    """
    directory = place / name
    directory.mkdir(mode=0o700, exist_ok=True)
    final = directory / file.sha256
    if final.is_file() and _is(final, file):
        return final
    forget(place, keep=file.sha256, name=name)
    found: list[FussyError] = []
    for source in sources:
        try:
            _Part(directory, file, progress).fill(source)
            return final
        except (Unreachable, TooSlow, UntrustedChannel) as error:
            log.info("%s: %s", file.path, error)
            found.append(error)
            if troubles is not None:
                troubles.append(error)
        except OSError as error:
            if is_full(error):
                forget(place, name=name)
                raise NoSpace(f"cannot fetch {file.path}: {full(directory, error)}; run fussy-clean or make room"
                              ) from error
            raise
    raise worst(found)


def worst(errors: list[FussyError]) -> FussyError:
    """Return the error that says most about why every source failed: an attack, then slowness, then absence."""
    for kind in (UntrustedChannel, TooSlow):
        if of_kind := [str(error) for error in errors if isinstance(error, kind)]:
            return kind(f"cannot update: {'; '.join(of_kind)}")
    reasons = "; ".join(map(str, errors)) or "no directory that `sources` names holds one now (with metadata/ in it)"
    return Unreachable(f"cannot reach a source of the channel: {reasons}")


def forget(place: Path, keep: str = "", name: str = UPDATES) -> None:
    """Delete what was downloaded, save what belongs to the file with the SHA-256 KEEP."""
    directory = place / name
    for path in directory.iterdir() if directory.is_dir() else ():
        if not keep or not path.name.startswith(keep):
            path.unlink()


def _give_up_spare(place: Path) -> bool:
    """Delete the spare of the target that the updater's directory PLACE belongs to; return whether that was done."""
    if not (place.parent / "spare").is_dir():
        return False
    try:
        with hold(place.parent.parent) as target:
            return recycle.give_up(target)
    except Busy:
        return False


def _is(path: Path, file: Found) -> bool:
    """Whether the content of PATH is that of FILE."""
    if path.stat().st_size != file.length:
        return False
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256


class _Part:
    """An unfinished file."""

    def __init__(self, directory: Path, file: Found, progress: Progress | None) -> None:
        self._file = file
        self._final = directory / file.sha256
        self._path = directory / f"{file.sha256}.part"
        self._note = directory / f"{file.sha256}.from"
        self._progress = progress
        self._hash = hashlib.sha256()
        self._size = 0
        #: Whether all bytes came from the source at hand, in this run.
        self._own = False

    def fill(self, source: Source) -> None:
        """Fetch what is missing from SOURCE, and give the file its final name.

        A connection that breaks is made anew as long as it brings something. Bytes of an earlier run or of another
        source are kept until the end shows whether they were right; if not, this source gives everything.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as part:
            self._begin(part)
            self._check_space()
            while True:
                self._fetch_rest(part, source)
                if self._hash.hexdigest() == self._file.sha256:
                    break
                own = self._own
                self._restart(part)
                if own:
                    raise UntrustedChannel(f"{source.name}: {self._file.path} is not what was signed: wrong hash "
                                           "(arbitrary software attack)")
            os.fsync(part.fileno())
        self._path.rename(self._final)
        self._note.unlink(missing_ok=True)
        disk.sync_directory(self._final.parent)

    def _begin(self, part: BinaryIO) -> None:
        """Take over what is there already."""
        if os.fstat(part.fileno()).st_size > self._file.length:
            part.truncate(0)
        while chunk := part.read(1 << 20):
            self._hash.update(chunk)
            self._size += len(chunk)
        self._own = self._size == 0

    def _restart(self, part: BinaryIO) -> None:
        part.seek(0)
        part.truncate()
        self._hash, self._size, self._own = hashlib.sha256(), 0, True

    def _check_space(self) -> None:
        needed, free = self._file.length - self._size + _RESERVE, disk.free(self._path)
        if needed > free and _give_up_spare(self._path.parent.parent):
            free = disk.free(self._path)
        if needed > free:
            raise NoSpace(f"cannot fetch {self._file.path}: it needs {needed / 1e6:.1f} MB in {self._path.parent}, "
                          f"{free / 1e6:.1f} MB are free; run fussy-clean or make room")

    def _fetch_rest(self, part: BinaryIO, source: Source) -> None:
        idle = 0
        while self._size < self._file.length:
            before = self._size
            try:
                self._fetch_some(part, source)
                problem = Unreachable(f"{source.name}: {self._file.path} ended early")
            except Missing:
                if not before:
                    raise
                # no such place in the file: it is a shorter one
                self._restart(part)
                continue
            except Unreachable as error:
                problem = error
            if self._size >= self._file.length:
                break
            idle = 0 if self._size > before else idle + 1
            if idle == _IDLE_TRIES:
                raise problem
            log.info("%s; going on at %d of %d bytes", problem, self._size, self._file.length)
            time.sleep(_PAUSE * idle)

    def _fetch_some(self, part: BinaryIO, source: Source) -> None:
        """Fetch until the end or until the connection breaks."""
        origin = self._origin()
        validator = origin.validator if origin.source == source.name else ""
        with source.open(self._file.place, self._size, validator) as body:
            if body.total not in (-1, self._file.length):
                raise UntrustedChannel(f"{source.name}: {self._file.path} has {body.total} bytes, signed are "
                                       f"{self._file.length}: wrong length (arbitrary software attack)")
            if body.start != self._size:
                self._restart(part)
            if body.validator != validator:
                self._note.write_bytes(msgspec.json.encode(_Origin(source.name, body.validator)))
            for chunk in body.chunks:
                if self._size + len(chunk) > self._file.length:
                    self._restart(part)
                    raise UntrustedChannel(f"{source.name}: {self._file.path} does not end after the "
                                           f"{self._file.length} bytes that were signed (endless data attack)")
                rest = memoryview(chunk)
                while rest:
                    rest = rest[part.write(rest):]
                self._hash.update(chunk)
                self._size += len(chunk)
                if self._progress:
                    self._progress(self._size, self._file.length)

    def _origin(self) -> _Origin:
        try:
            return msgspec.json.decode(self._note.read_bytes(), type=_Origin)
        except (OSError, msgspec.MsgspecError):
            return _Origin()
