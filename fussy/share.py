"""Decides which files of a new release are already on the disk: by content, never by size and time.

A file of the current release serves when its content, mode, owner and extended attributes are those that the new
manifest asks for, wherever it lies in the release (a moved file is found too). Its time of modification is not part of
that: a file whose content did not change keeps its inode, and so its time.
"""

import os
import stat
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from fussy import checked, manifest, tree
from fussy.errors import BadBundle
from fussy.target import Target

# Debian's cron refuses a crontab with more than one name, for anybody could make the second one (crontab(1)).
_CRONTABS = (b"cron.d", b"crontabs")


def may_share(name: bytes) -> bool:
    """Whether the file NAME may be the same one in several releases: a crontab must have one name."""
    return name.rpartition(b"/")[0].rpartition(b"/")[2] not in _CRONTABS


@contextmanager
def read_ahead(release: Path | None) -> Iterator[None]:
    """Meanwhile, have the kernel read the facts of the files of RELEASE: a new one that shares them asks for them all.

    From a cold disk they take as long as verifying a bundle, which hardly needs the disk.
    """
    enough = threading.Event()

    def read() -> None:
        for path in checked.files(release) if release else ():
            if enough.is_set():
                return
            with suppress(OSError):
                os.lstat(path)

    reader = threading.Thread(target=read, name="read ahead")
    reader.start()
    try:
        yield
    finally:
        enough.set()
        reader.join()


def sources(
    entries: list[manifest.Entry], target: Target, kept: Collection[int], known: checked.Known
) -> dict[int, bytes]:
    """Return, for the index of each entry that the current release has already, the file to link to; KEPT need none.

    KNOWN gives what is known of files, see fussy.checked.
    Nothing is shared with the failsafe release, nor with one on another file system, and no crontab is. A file that was
    touched since it was checked is read and compared; one that does not fit is left out, so its content comes from the
    bundle.
    """
    base = target.current_release()
    if base is None or base == target.failsafe or os.stat(base).st_dev != os.stat(target.root).st_dev:
        return {}
    wanted: dict[bytes, list[int]] = {}
    contents = set[str]()
    for i, entry in enumerate(entries):
        if entry.type == "file" and i not in kept and may_share(entry.name):
            contents.add(entry.sha256)
            wanted.setdefault(entry.identity(), []).append(i)
    found: dict[int, bytes] = {}
    for old in installed_entries(base):
        if (old.sha256 in contents and may_share(old.name)
                and (indexes := wanted.pop(identity := old.identity(), None))):
            path = os.path.join(os.fsencode(base), old.name)
            if _serves(path, old, identity, known()):
                found.update(dict.fromkeys(indexes, path))
            else:
                wanted[identity] = indexes  # another file of the same content may serve
    return found


def installed_entries(release: Path) -> Iterator[manifest.Entry]:
    """Yield the entries of an installed release: from its manifest, or by reading it when it has none of use."""
    path = release / os.fsdecode(manifest.PATH)
    try:
        manifest.stored_description(path)
    except (FileNotFoundError, BadBundle):
        yield from (item.entry for item in tree.scan(os.fsencode(release)))
    else:
        yield from manifest.stored_entries(path)


def _serves(path: bytes, entry: manifest.Entry, identity: bytes, records: Mapping[int, checked.Record]) -> bool:
    """Whether the file at PATH is what ENTRY describes: noted as whole and untouched, or read and compared."""
    try:
        facts = os.lstat(path)
        if not stat.S_ISREG(facts.st_mode):
            return False
        known = records.get(facts.st_ino)
        if known and known.holds(facts):
            return known.identity == identity
        return not tree.differences(path, facts, entry)
    except OSError:
        return False
