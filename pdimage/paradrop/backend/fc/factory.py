"""Factory reset: the router forgets its owner, and is as on the day its firmware was installed.

::

    decide()  ->  CONFIG_HOME_DIR/factory-reset     from here on it is decided on
    finish()      deletes what lasts, notes the chutes for the update journal, deletes the file last

``decide`` writes one file; the reset itself is done by the next start of the daemon, before it has read anything. A
kill or a loss of power in the middle is no harm: the file is still there, and each step may be done again.

What is deleted: all in CONFIG_HOME_DIR (chutes with their data, accounts, identity, snapshots, logs) and in
UCI_CONFIG_DIR, what of the runtime the settings put elsewhere, hold and postponement of updates; and the containers,
images and networks of all chutes, by the update journal, which waits for the Docker engine. Releases and failsafe stay,
as do keyring and the updater's settings but for what provisioning wrote into them, since without them nothing could be
upgraded; and links to files of the release, and what a release itself wants kept (``.fussy/persistent``).
"""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from fussy import disk
from fussy.updating import record
from paradrop.backend.fc import journal
from paradrop.image import kept
from paradrop.lib import firmware, settings
from paradrop.lib.config.dockerconfig import retired
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import containers, pdosq
from paradrop.lib.utils.dockerclient import LABEL, DockerError
from paradrop.lib.utils.dockerspec import data_dir, system_dir

log = logging.getLogger(__name__)


class Decision(msgspec.Struct, frozen=True):
    """A reset that is to be finished: the names of all chutes that may have left something in the Docker engine."""

    chutes: tuple[str, ...]


def marker() -> Path:
    """Return the file that says that a reset is decided on."""
    return Path(settings.CONFIG_HOME_DIR, "factory-reset")


def decide(stored: Iterable[str]) -> None:
    """Decide on a reset; the next start carries it out. ``stored`` are the chutes of the store.

    Raises:
        OSError: it cannot be written down; then nothing happens.
    """
    names = {*stored, *journal.unfinished()}
    try:
        names |= {str(item["Labels"][LABEL]) for item in containers.ours()}
    except DockerError as error:
        log.warning("%s; the chutes are those of the store", error.message)
    pdosq.makedirs(marker().parent)
    pdosq.replaceFile(marker(), msgspec.json.encode(Decision(tuple(sorted(names)))))
    log.warning("a factory reset is decided on; the next start carries it out")


def decided() -> bool:
    """Return True if the next start will reset the router."""
    return marker().exists()


def finish() -> bool:
    """Carry out a reset that was decided on. Return False if there was none.

    Raises:
        ParadropError: the file cannot be read, or something cannot be deleted; the next start tries again.
    """
    try:
        decision = msgspec.json.decode(marker().read_bytes(), type=Decision)
    except FileNotFoundError:
        return False
    except msgspec.MsgspecError as error:
        raise ParadropError(f"cannot finish the factory reset: {marker()} is damaged ({error}); write "
                            '{"chutes": []} into it to reset, or delete it to go on without') from error
    from paradrop.backend.link import provisioning  # not needed by other starts

    try:
        provisioning.forget()  # also takes back what it wrote into the updater's settings and keyring
    except ParadropError as error:
        log.warning("%s; the identity goes all the same", error.message)
    try:
        for path in _doomed(decision.chutes):
            kept.remove(path)
        _forget_owner()
        for name in decision.chutes:
            journal.begin(name)
        for directory in (settings.CONFIG_HOME_DIR, settings.UCI_CONFIG_DIR):
            if Path(directory).is_dir():
                disk.sync_filesystem(Path(directory))
        marker().unlink()
        pdosq.syncDir(marker().parent)
    except OSError as error:
        raise ParadropError(f"cannot finish the factory reset: {error}; the next start tries again") from error
    log.warning("the factory reset is done")
    return True


def _doomed(chutes: Iterable[str]) -> Iterator[Path]:
    """Yield what is to be deleted. The directories that are emptied may be mounts, and stay."""
    for directory in (settings.CONFIG_HOME_DIR, settings.UCI_CONFIG_DIR, settings.UCI_BACKUP_DIR, settings.LOG_PATH):
        if Path(directory).is_dir():
            yield from sorted(item for item in Path(directory).iterdir()
                              if item != marker() and not _is_release_s(item))
    store = Path(settings.FC_CHUTESTORAGE_SAVE_PATH)
    if store.parent.is_dir():
        yield from store.parent.glob(f"{store.name}*")
    for name in chutes:
        for path in (Path(data_dir(name)), Path(system_dir(name))):
            yield from (one for one in (path, retired(path)) if os.path.lexists(one))


def _is_release_s(path: Path) -> bool:
    """Return True for a link that the release has put there (fussy-link-tree)."""
    return path.is_symlink() and Path(os.readlink(path)).is_relative_to(settings.FIRMWARE_TARGET)


def _forget_owner() -> None:
    target = firmware.target()
    if target is not None:
        record.save_owner(target, record.Owner())
