"""Makes a new release out of what is left of an old one, so that only what differs is written.

Made of links alone, a release has each of its directories and names written anew, though nearly all are those of the
release before. So ``fussy-clean`` does not delete the youngest release that nothing needs any more, but makes it the
spare, ``.fussy/spare``, less the files that no other release shares (:func:`keep`, :func:`strip`). The next install
compares it with the new manifest, which changes nothing (:func:`reuse`), renames it into the staging, and changes there
what differs. A spare is no release, and nothing depends on what it holds: half changed or half deleted it serves as far
as it goes, and what interrupts an install has the next run remove the staging and work with links.

The files of the spare are also those of releases, so none is written to or given other facts: names are taken away and
made. A file stays only if it is known to be whole (see fussy.checked) and is what the new manifest asks for; what the
spare's own manifest said is never asked.
"""

import logging
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fussy import checked, disk, manifest, share, tree
from fussy.stage import Stage
from fussy.target import Target

log = logging.getLogger(__name__)

# With less than this part of its entries in place already, a release is made as quickly of links.
_WORTH = 0.5


@dataclass(frozen=True)
class Reuse:
    """How a release is made out of a spare.

    ``kept``: the entries that stay, by index; a file with its record if that still holds then. ``changed``: those of
    them that are directories and are given their facts anew in the end. ``gone``: names that go, each directory with
    what it holds.
    """

    spare: Path
    kept: Mapping[int, checked.Record | None]
    changed: Collection[int]
    gone: list[bytes]

    def begin(self, stage: Stage, entries: list[manifest.Entry]) -> None:
        """Make the spare the content of STAGE, and take away what does not stay."""
        self.spare.rename(os.fsdecode(stage.directory))
        for i in self.changed:
            os.chmod(stage.path(entries[i].name), 0o700)
        stage.remove(self.gone)


def keep(target: Target, release: Path) -> None:
    """Make RELEASE, which nothing needs, the spare of the locked TARGET in place of the one that is there."""
    if target.spare.is_dir():
        disk.discard(target.spare, target.trash)
    disk.withdraw(release, target.spare)


def give_up(target: Target) -> bool:
    """Delete the spare of the locked TARGET, to make room; return whether there was one."""
    if not target.spare.is_dir():
        return False
    with checked.kept(target):
        disk.discard(target.spare, target.trash)
    return True


def room(target: Target) -> int | None:
    """Return the bytes on the disk that only the spare holds; None: there is no spare."""
    if not target.spare.is_dir():
        return None
    facts, noted = os.lstat(target.spare), target.checked.stat().st_mtime_ns if target.checked.is_file() else 0
    return _held(os.fsencode(target.spare), facts.st_ino, facts.st_ctime_ns, noted)


@lru_cache(maxsize=1)  # some ask every few seconds; a spare changes only by commands that write `checked` as well
def _held(spare: bytes, *changes: int) -> int:
    blocks, inside = 0, [b""]
    try:
        for name, _, facts in _walk(spare, inside):
            if stat.S_ISDIR(facts.st_mode) and name != b".":
                inside.append(name + b"/")
            if stat.S_ISDIR(facts.st_mode) or facts.st_nlink == 1:
                blocks += facts.st_blocks
    except OSError as error:  # an install may be at work
        log.info("%s: %s", os.fsdecode(spare), error)
    return blocks * 512


def strip(target: Target) -> None:
    """Delete the files of the spare that no release shares, if there is a spare."""
    for path in checked.files(target.spare):
        if os.lstat(path).st_nlink == 1:
            os.unlink(path)


def reuse(target: Target, known: checked.Known, described: manifest.Manifest) -> Reuse | None:
    """Return how the release DESCRIBED is made out of the spare of TARGET, if there is one, by what is KNOWN of files.

    A spare of which too little would stay, or that can't be read, is deleted: it would be no better the next time.
    """
    if not target.spare.is_dir():
        return None
    try:
        found = _compare(target.spare, described, known())
        if len(found.kept) >= _WORTH * len(described.entries) and 0 in found.kept:
            return found
    except OSError as error:
        log.warning("cannot make the release out of %s: %s", target.spare, error)
    give_up(target)
    return None


def _compare(spare: Path, described: manifest.Manifest, records: Mapping[int, checked.Record]) -> Reuse:
    kept, changed, gone = dict[int, checked.Record | None](), set[int](), list[bytes]()
    inodes: dict[bytes, int] = {}
    touched = set[int]()
    linked = {entry.link for entry in described.entries if entry.type == "hardlink"}
    inside = list[bytes]()
    for name, path, facts in _walk(os.fsencode(spare), inside):
        index = described.index.get(name)
        entry = described.entries[index] if index is not None else None
        if index is None or entry is None or not _stays(path, facts, entry, records):
            gone.append(name)
            touched.update(_inodes(path, facts))
            continue
        kept[index] = records[facts.st_ino] if entry.type == "file" else None
        if entry.type == "directory":
            inside.append(name + b"/" if index else b"")
            if (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid, facts.st_mtime_ns) != (
                    entry.mode, entry.uid, entry.gid, entry.mtime * 10**9):
                changed.add(index)
        elif name in linked or entry.type == "hardlink":
            inodes[name] = facts.st_ino
    touched.update(_settle_links(described.entries, kept, inodes, gone))
    for i, known in kept.items():
        if known and known.inode in touched:
            kept[i] = None
    # the manifest is written in any case
    made = [manifest.DIRECTORY, manifest.PATH,
            *(entry.name for i, entry in enumerate(described.entries) if i not in kept)]
    parents = {name.rpartition(b"/")[0] or b"." for name in [*gone, *made]}
    changed.update(described.index[name] for name in parents if described.index.get(name) in kept)
    return Reuse(spare, kept, changed, gone)


def _settle_links(
    entries: list[manifest.Entry], kept: dict[int, checked.Record | None], inodes: Mapping[bytes, int],
    gone: list[bytes],
) -> Iterator[int]:
    """Move further names that are not names of their file from KEPT to GONE; yield what gets or loses a name then."""
    for i, entry in enumerate(entries):
        if entry.type != "hardlink" or (i in kept and inodes[entry.name] == inodes.get(entry.link)):
            continue
        if i in kept:
            del kept[i]
            gone.append(entry.name)
            yield inodes[entry.name]
        if entry.link in inodes:
            yield inodes[entry.link]


def _inodes(path: bytes, facts: os.stat_result) -> Iterator[int]:
    """Yield the inode of what is at PATH, or of the files in it: a name more or less gives them another ctime."""
    if stat.S_ISDIR(facts.st_mode):
        yield from (os.lstat(file).st_ino for file in checked.files(Path(os.fsdecode(path))))
    else:
        yield facts.st_ino


def _walk(root: bytes, inside: list[bytes]) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """Yield path in the spare, path and facts: first of the spare, then of what is in the directories put INSIDE.

    :raises OSError: it can't be read, or reaches into another file system
    """
    facts = os.lstat(root)
    device = facts.st_dev
    yield b".", root, facts
    while inside:
        prefix = inside.pop()
        with tree.listed(root + b"/" + prefix) as items:
            for item in items:
                name, facts = prefix + os.fsencode(item.name), item.stat(follow_symlinks=False)
                if facts.st_dev != device:
                    raise OSError(f"{os.fsdecode(name)} is on another file system")
                yield name, root + b"/" + name, facts


def _stays(path: bytes, facts: os.stat_result, entry: manifest.Entry, records: Mapping[int, checked.Record]) -> bool:
    """Whether what is at PATH can be left there for ENTRY.

    A directory can if it has the right attributes, the rest is given to it; a further name of a file, if it turns out
    to be the same file as its first.
    """
    if entry.type == "directory":
        return stat.S_ISDIR(facts.st_mode) and tree.xattrs_of(path) == entry.xattrs
    if entry.type == "file":
        known = records.get(facts.st_ino)
        return known is not None and known.holds(facts) and known.identity == entry.identity() and share.may_share(path)
    return entry.type == "hardlink" or (
        facts.st_mtime_ns == entry.mtime * 10**9 and not tree.differences(path, facts, entry))
