"""Unpack a verified bundle: into a directory of one's own (documented :func:`unpack`), or into the staging."""

import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec

from fussy import manifest, oldfiles, patch
from fussy.errors import BadBundle, NoSpace
from fussy.frames import Source, blocks
from fussy.recycle import Reuse
from fussy.stage import Stage
from fussy.tarball import Member, members

# Entries of a bundle without a manifest; more would not fit into the memory of a router.
_MOST_ENTRIES = 200_000

# Told what is about to be unpacked, and which entries are in place already, by index; returns the files to link to for
# the others, or raises to refuse.
Plan = Callable[[manifest.Manifest, Collection[int]], dict[int, bytes]]
# Told what is about to be unpacked; returns how what is left of an old release is made into it, if that can be done.
Recycle = Callable[[manifest.Manifest], Reuse | None]
# Told how many bytes of files are in place.
Progress = Callable[[int, int], object]


def unpack(filename: str | Path, keyring: str | Path = "/etc/fussy/keys") -> str:
    """Verify the bundle FILENAME and unpack it into a new temporary directory; return the directory of the firmware.

    The caller removes the directory around it (``fussy-*-unpacked``) when done. Nothing is left after an error.

    :raises Untrusted: no allowed signature covers the bundle
    :raises BadBundle: its content is malformed or unsafe
    """
    from fussy import bundle

    outer = Path(tempfile.mkdtemp(prefix="fussy-", suffix="-unpacked"))
    try:
        with bundle.opened(Path(filename), Path(keyring)) as (_, source):
            done = unpack_release(source, outer / "tree", lambda *_: {}, most=None)
        inner = outer / done.name
        (outer / "tree").rename(inner)
    except BaseException:
        from fussy import disk

        disk.empty(outer)
        outer.rmdir()
        raise
    return os.fspath(inner)


def unpack_release(
    source: Source, directory: Path, plan: Plan, *, most: int | None, progress: Progress | None = None,
    find: oldfiles.Find = oldfiles.nowhere, memory: int = patch.MEMORY, recycle: Recycle = lambda _: None,
) -> manifest.Manifest:
    """Write the release in SOURCE (verified, compressed) to DIRECTORY, which is made for it, and return its manifest.

    With a manifest, RECYCLE may offer an old release to be made into this one, PLAN is asked, the files it names are
    linked, and every other file must have the digest that the manifest says. Without one, the members are written as
    they come, at most MOST bytes (None: no limit), PLAN is asked before the first of them (with no entries) and again
    after the last, and the release gets the manifest that describes what was written.
    A delta is applied to the base that FIND finds, if that takes at most MEMORY MiB.

    :raises BadBundle: the archive is damaged, unsafe, or not what its manifest says
    :raises UnusableDelta: a delta needs more memory, or has no base here
    """
    missing: set[int] = set()
    archive = members(blocks(source, lambda first, count: any(i in missing for i in range(first, first + count))))
    first = next(archive, None)
    if first is None:
        raise BadBundle("cannot unpack the bundle: it is empty; pack it again")
    stage = Stage(os.fsencode(directory))
    reuse: Reuse | None = None
    top, _, rest = first.name.partition(b"/")
    delta = patch.Patch(first, archive, find, memory) if rest == patch.HEAD else None
    if delta or rest == manifest.PATH:
        described = delta.manifest if delta else _bounded(first)
        wanted = manifest.decode(described)
        if wanted.name != os.fsdecode(top):
            raise BadBundle(f"cannot unpack the bundle: its directory is {os.fsdecode(top)!r}, its manifest is of "
                            f"{wanted.name!r}; pack it again")
        reuse = recycle(wanted)
        kept = reuse.kept if reuse else ()
        shared = plan(wanted, kept)
        missing.update(i for i, entry in enumerate(wanted.entries)
                       if entry.type == "file" and i not in shared and i not in kept)
        if reuse:
            reuse.begin(stage, wanted.entries)
        else:
            directory.mkdir(mode=0o700)
        contents = delta.members(wanted, missing, directory) if delta else archive
        try:
            _unpack_described(stage, contents, wanted, kept, shared, missing, progress)
        except BadBundle:
            if delta:
                delta.check_base()
            raise
    else:
        directory.mkdir(mode=0o700)
        wanted = _unpack_plain(stage, first, archive, plan, most)
        described = manifest.encode(wanted)
        _share(stage, wanted.entries, plan(wanted, ()))
    stage.finish((entry for i, entry in enumerate(wanted.entries)
                  if not reuse or i not in reuse.kept or i in reuse.changed), described)
    return wanted


def _bounded(member: Member) -> bytes:
    if member.size > manifest.MAX_SIZE:
        raise BadBundle(f"cannot unpack the bundle: a manifest of {member.size} bytes, at most {manifest.MAX_SIZE} are "
                        "allowed; put fewer files into the firmware")
    return b"".join(member.data)


def _unpack_described(
    stage: Stage, archive: Iterator[Member], wanted: manifest.Manifest, kept: Collection[int],
    shared: dict[int, bytes], missing: set[int], progress: Progress | None,
) -> None:
    """Make every entry that is not KEPT: from the manifest alone, by a link, or with content from the archive."""
    for i, entry in enumerate(wanted.entries):
        if i in kept:
            continue
        if entry.type == "directory":
            stage.make_directory(entry)
        elif entry.type not in ("file", "hardlink"):
            stage.make_special(entry)
    with stage.linking((wanted.entries[i], source) for i, source in shared.items()):
        _write_missing(stage, archive, wanted, missing, progress)
    for i, entry in enumerate(wanted.entries):
        if entry.type == "hardlink" and i not in kept:
            stage.link_inside(entry)


def _write_missing(
    stage: Stage, archive: Iterator[Member], wanted: manifest.Manifest, missing: set[int], progress: Progress | None
) -> None:
    """Write the files whose index is in MISSING, with their content from the archive."""
    total = manifest.total_size(wanted.entries)
    done = total - manifest.total_size(wanted.entries[i] for i in missing)
    if progress:
        progress(done, total)
    prefix = wanted.name.encode() + b"/"
    for member in archive:
        within = member.name.startswith(prefix)
        index = wanted.index.get(member.name[len(prefix):]) if within else None
        if index is None and member.name + b"/" != prefix:
            raise BadBundle(f"cannot unpack {os.fsdecode(member.name)!r}: its manifest does not list it; pack it again")
        if index is None or index not in missing:
            continue
        entry = wanted.entries[index]
        if member.kind != "file" or member.size != entry.size or stage.write(entry, member.data) != entry.sha256:
            raise BadBundle(f"cannot unpack {os.fsdecode(member.name)!r}: it is not what the manifest says; pack again")
        missing.remove(index)
        done += entry.size
        if progress:
            progress(done, total)
    if missing:
        raise BadBundle(f"cannot unpack the bundle: {len(missing)} files of its manifest are not in it, the first is "
                        f"{os.fsdecode(wanted.entries[min(missing)].name)!r}; pack it again")


def _unpack_plain(
    stage: Stage, first: Member, archive: Iterator[Member], plan: Plan, most: int | None
) -> manifest.Manifest:
    """Write the members of an archive that was packed by hand, and return the manifest it should have had.

    The rules are those of a manifest, applied to each member before it is written.
    """
    top = first.name.partition(b"/")[0]
    if problems := manifest.check_name(os.fsdecode(top)):
        raise BadBundle(f"cannot unpack the bundle: {problems[0]}")
    entries: list[manifest.Entry] = []
    checker = manifest.Checker(devices=False)
    size = 0
    plan(manifest.Manifest(name=os.fsdecode(top), entries=[]), ())
    for member in _chain(first, archive):
        if member.name == top and member.kind == "directory":
            name = b"."
        elif member.name.startswith(top + b"/"):
            name = member.name[len(top) + 1:]
        else:
            raise BadBundle(f"cannot unpack {os.fsdecode(member.name)!r}: not below the one top directory "
                            f"{os.fsdecode(top)!r}; pack a single directory")
        if name == manifest.PATH:
            continue  # of the release that this archive was made from; this one gets its own
        entry = _entry(member, name, top)
        if problem := checker.problem(entry):
            raise BadBundle(f"cannot unpack {os.fsdecode(member.name)!r}: {problem}; pack it again")
        size += entry.data_size
        if most is not None and size > most:
            raise NoSpace(f"cannot unpack: the firmware has more than the {most / 1e6:.1f} MB that are free; make room")
        if len(entries) >= _MOST_ENTRIES:
            raise BadBundle(f"cannot unpack the bundle: more than {_MOST_ENTRIES} files; pack it with fussy-pack")
        entries.append(_write(stage, entry, member))
    if not entries or entries[0].name != b".":
        entries.insert(0, manifest.Entry(type="directory", path=".", mode=0o755))
    return manifest.Manifest(name=os.fsdecode(top), entries=entries)


def _share(stage: Stage, entries: list[manifest.Entry], shared: dict[int, bytes]) -> None:
    """Put the SHARED files in the place of those just written, with all their names in the release."""
    for i, file in shared.items():
        stage.replace(entries[i], file)
    replaced = {entries[i].name for i in shared}
    for entry in entries:
        if entry.type == "hardlink" and entry.link in replaced:
            stage.replace(entry, stage.path(entry.link))


def _chain(first: Member, rest: Iterator[Member]) -> Iterator[Member]:
    yield first
    yield from rest


def _entry(member: Member, name: bytes, top: bytes) -> manifest.Entry:
    """Return the manifest's entry for a member; a regular file's digest is not known yet."""
    link = member.link
    if member.kind == "hardlink":
        if not link.startswith(top + b"/"):
            raise BadBundle(f"cannot unpack {os.fsdecode(member.name)!r}: a hard link out of the firmware; pack again")
        link = link[len(top) + 1:]
    path, raw_path = manifest.spell(name)
    target, raw_target = manifest.spell(link) if member.kind in ("hardlink", "symlink") else ("", "")
    return manifest.Entry(
        type=member.kind, path=path, raw_path=raw_path, mode=member.mode, uid=member.uid, gid=member.gid,
        mtime=member.mtime, size=member.size, sha256="0" * 64 if member.kind == "file" else "", target=target,
        raw_target=raw_target, device=member.device, xattrs=manifest.quoted(member.xattrs))


def _write(stage: Stage, entry: manifest.Entry, member: Member) -> manifest.Entry:
    """Write one member and return its entry, complete."""
    if entry.type == "directory":
        stage.make_directory(entry)
    elif entry.type == "file":
        return msgspec.structs.replace(entry, sha256=stage.write(entry, member.data))
    elif entry.type == "hardlink":
        stage.link_inside(entry)
    else:
        stage.make_special(entry)
    return entry
