"""Keeps what lasts together with the release that is left, and brings it back with that release.

::

    CONFIG_HOME_DIR/snapshots/          mode 0700
        RELEASE~N                       complete; the highest N is the newest
            record.json, 0/, 1/, …      what the places were, and their entries
        .owner                          the release whose state the router has (see paradrop.image.kept)
        .new~                           being made, or left by one that was killed
        .restoring                      a restore that is decided on and must be finished
    PLACE/.restore~/new, old            what a restore puts in place, and what was there

Files are copied by ``cp --reflink=auto``: where the file system can share (btrfs, xfs) a snapshot costs nothing.

A snapshot has its name once it is complete and on disk. A restore prepares all copies, then writes ``.restoring``: a
kill before leaves everything as it was, after it the next finish(), which the runtime calls before it reads anything,
does the rest. So nobody ever sees half of it.

A snapshot stays until its release is left again or deleted, also when it was brought back: a power cut may come before
the release is in use again, and the one that is left may run on what was brought back; or the release fails, gives way
once more, and comes back later. But what a release has made since it runs is newer than its snapshot, so nothing is
brought back while the router's state is its own. A snapshot ends that: whose runtime begins next takes over. Where a
runtime begins on what was brought back for another release, the state is nobody's, and either gets its snapshot.

The runtime must not run meanwhile. Containers are stopped: their data shall be whole; the runtime starts them again.
"""

import logging
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from fussy import disk
from paradrop.backend.fc import journal
from paradrop.image import kept
from paradrop.image.places import WORKSHOP, Place, Root, own_paths
from paradrop.lib import settings
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import containers, pdosq
from paradrop.lib.utils.dockerclient import DockerError
from paradrop.lib.utils.storage import PDStorage

log = logging.getLogger(__name__)

_NEW, _RESTORING, _RECORD = ".new~", ".restoring", "record.json"
_AT_ONCE = 500


class SnapshotFailed(ParadropError):
    """What lasts could not be kept or brought back; it is as it was."""


class Record(msgspec.Struct, frozen=True):
    """What a snapshot holds: ``places[i]`` are in the directory ``i``."""

    format: int
    release: str
    places: tuple[Place, ...]


class Swap(msgspec.Struct, frozen=True):
    """What is left to do in one directory: names come from new, gone are to go."""

    directory: str
    names: tuple[str, ...]
    gone: tuple[str, ...]


class Restoring(msgspec.Struct, frozen=True):
    """A restore that is decided on. chutes: those whose containers may differ from what the store says then."""

    release: str
    swaps: tuple[Swap, ...]
    chutes: tuple[str, ...]


def stop_containers() -> None:
    """Stop the containers of all chutes. An engine that is not there runs none."""
    try:
        for container in containers.ours():
            containers.stop(container["Id"])
    except DockerError as error:
        log.warning("cannot stop the chutes: %s", error.message)


def snapshot(release: Path, quiet: Callable[[], None] = stop_containers) -> Path:
    """Keep what lasts for RELEASE, a directory whose name is the release's. Return the snapshot.

    An older one of that release goes first, and those of releases that are no longer beside it go last.

    :raises SnapshotFailed: there is no room, or something can't be read; nothing is kept of that release then
    """
    finish()
    root = Root.here()
    root.snapshots.mkdir(mode=0o700, parents=True, exist_ok=True)
    quiet()
    new = root.snapshots / _NEW
    kept.remove(new)
    older = kept.of(root, release.name)
    for one in older:
        kept.discard(root, one)  # also if this fails: what it had long ago must not come back then
    kept.own(root, kept.NOBODY)
    new.mkdir(mode=0o700)
    try:
        record = Record(1, release.name, tuple(root.places(release)))
        for number, place in enumerate(record.places):
            (new / str(number)).mkdir(mode=0o700)
            _copy(Path(place.directory), place.names, new / str(number))
        (new / _RECORD).write_bytes(msgspec.json.encode(record))
        final = root.snapshots / kept.next_name(older, release.name)
        disk.publish(new, final)
    except BaseException:
        kept.remove(new)
        raise
    if release.is_dir():
        prune(release.parent)
    return final


def restore(release: str, quiet: Callable[[], None] = stop_containers) -> bool:
    """Bring back what lasted when RELEASE, by name, was left. False: nothing changes.

    That is so when nothing is kept of it, or when what is there is its own.

    :raises SnapshotFailed: there is no room, or the snapshot can't be read; everything is as it was then
    """
    finish()
    root = Root.here()
    snapshots = kept.of(root, release)
    if not snapshots or kept.owner(root) == release:
        return False
    newest = snapshots[-1]
    try:
        record = msgspec.json.decode((newest / _RECORD).read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError) as error:
        raise SnapshotFailed(f"cannot bring back {newest}: {error}; delete it to go on without") from error
    quiet()
    swaps = []
    try:
        for number, place in enumerate(record.places):
            swaps.append(_prepare(root, place, newest / str(number)))
        chutes = sorted({*_chutes(Path(settings.FC_CHUTESTORAGE_SAVE_PATH)), *_kept_chutes(record, newest)})
        for directory in _file_systems(swap.directory for swap in swaps):
            disk.sync_filesystem(directory)
        decided = msgspec.json.encode(Restoring(release, tuple(swaps), tuple(chutes)))
        pdosq.replaceFile(root.snapshots / _RESTORING, decided)
    except BaseException:
        for place in record.places:
            kept.remove(Path(place.directory, WORKSHOP))
        raise
    finish()
    return True


def begin(release: Path) -> None:
    """Finish what was decided on, and note that the runtime of RELEASE works on what lasts; it has read nothing yet."""
    finish()
    root = Root.here()
    owner = kept.owner(root)
    if not root.snapshots.is_dir() or owner == release.name:
        return
    try:
        kept.own(root, kept.SEVERAL if owner else release.name)
    except OSError as error:
        log.warning("cannot note that %s runs: %s; when it comes back it may get what it had earlier",
                    release.name, error)


def finish() -> None:
    """Finish a restore that was decided on, and remove what one that was not has left. May itself be cut short."""
    root = Root.here()
    decision = root.snapshots / _RESTORING
    try:
        restoring = msgspec.json.decode(decision.read_bytes(), type=Restoring)
    except FileNotFoundError:
        for path in own_paths():
            if path.is_dir():
                kept.remove(path / WORKSHOP)
        return
    except msgspec.MsgspecError as error:
        raise SnapshotFailed(f"cannot finish the restore in {decision}: {error}; delete it to go on without") from error
    log.info("bringing back what %s had", restoring.release)
    for swap in restoring.swaps:
        _carry_out(swap)
    for chute in restoring.chutes:
        journal.begin(chute)
    for swap in restoring.swaps:
        kept.remove(Path(swap.directory, WORKSHOP))
    kept.own(root, restoring.release)
    decision.unlink()
    disk.sync_directory(root.snapshots)


def prune(target: Path) -> list[str]:
    """Remove the snapshots of releases that are not in TARGET any more; return their releases' names."""
    root = Root.here()
    gone = [path for path in kept.everything(root) if not (target / kept.release_of(path)).is_dir()]
    for path in gone:
        kept.discard(root, path)
    return sorted({kept.release_of(path) for path in gone})


def _prepare(root: Root, place: Place, snapshot: Path) -> Swap:
    """Copy what was kept of a place beside it; return what is to be done."""
    directory = Path(place.directory)
    workshop = directory / WORKSHOP
    kept.remove(workshop)
    (workshop / "new").mkdir(mode=0o700, parents=True)
    (workshop / "old").mkdir(mode=0o700)
    _copy(snapshot, place.names, workshop / "new")
    gone = tuple(name for name in root.present(directory, place.only) if name not in place.names)
    return Swap(place.directory, place.names, gone)


def _carry_out(swap: Swap) -> None:
    """Exchange the entries of a directory. Those that were exchanged already stay."""
    directory = Path(swap.directory)
    new, old = directory / WORKSHOP / "new", directory / WORKSHOP / "old"
    for name in swap.names:
        if os.path.lexists(new / name):
            if os.path.lexists(directory / name):
                kept.remove(old / name)
                (directory / name).rename(old / name)
            (new / name).rename(directory / name)
    for name in swap.gone:
        if os.path.lexists(directory / name):
            (directory / name).rename(old / name)
    disk.sync_directory(directory)


def _copy(source: Path, names: Iterable[str], target: Path) -> None:
    """Copy entries of a directory with all they have: modes, owners, times, hard links, extended attributes."""
    paths = [source / name for name in names]
    for start in range(0, len(paths), _AT_ONCE):
        done = subprocess.run(["cp", "-a", "--reflink=auto", "--", *paths[start:start + _AT_ONCE], target],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            why = (done.stderr.strip().splitlines() or [f"cp ended with {done.returncode}"])[-1]
            raise SnapshotFailed(f"cannot copy what is in {source} to {target}: {why}")


class _Names(PDStorage):
    """Reads the names in a chute store, wherever it lies."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), None, 0)
        self.names: list[str] = []
        if path.is_file():
            self.loadFromDisk()

    def setAttr(self, attr: list[str]) -> None:
        self.names = attr

    def getAttr(self) -> list[str]:
        return self.names

    def attrSaveable(self) -> bool:
        return False

    def importAttr(self, pyld: dict[str, object]) -> list[str]:
        return list(pyld)


def _chutes(store: Path) -> list[str]:
    return _Names(store).names


def _kept_chutes(record: Record, snapshot: Path) -> list[str]:
    """Return the chutes of the store in a snapshot."""
    store = Path(settings.FC_CHUTESTORAGE_SAVE_PATH)
    for number, place in enumerate(record.places):
        if store.is_relative_to(place.directory):
            return _chutes(snapshot / str(number) / store.relative_to(place.directory))
    return []


def _file_systems(directories: Iterable[str]) -> list[Path]:
    return list({os.stat(directory).st_dev: Path(directory) for directory in directories}.values())
