"""Checks an installed release against its manifest, or a bundle against a keyring. Reads everything, writes nothing."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from fussy import bundle, manifest, oldfiles, patch, tree
from fussy.errors import BadBundle, DamagedRelease
from fussy.frames import blocks
from fussy.gpg import Signer
from fussy.oldfiles import MissingBase
from fussy.tarball import Member, members


@dataclass(frozen=True)
class Verified:
    """A bundle that is sound: who signed it, and what it says of itself (None: it has no manifest, or it is a delta
    whose base is not here, so that only its form could be checked)."""

    signer: Signer
    manifest: manifest.Manifest | None
    files: int
    delta: bool = False


def verify_bundle(filename: Path, keyring: Path, find: oldfiles.Find = oldfiles.nowhere) -> Verified:
    """Check the signature of a bundle and, if it has a manifest, every file in it against that.

    A delta is applied, without writing anything, to the base that FIND finds.

    :raises Untrusted: no allowed signature covers all of it
    :raises BadBundle: its content is damaged, unsafe, or not what its manifest says
    :raises UnusableDelta: the base of a delta was altered
    """
    with bundle.opened(filename, keyring) as (signer, source):
        archive = members(blocks(source, lambda first, count: True))
        first = next(archive, None)
        if first is not None and first.name.partition(b"/")[2] == patch.HEAD:
            return _verify_delta(first, archive, signer, find)
        described, files = _verify_files(filename, chain([first] if first else [], archive))
    return Verified(signer, described, files)


def _verify_files(filename: Path, archive: Iterable[Member]) -> tuple[manifest.Manifest | None, int]:
    """Compare the members of a full bundle with its manifest; return that and the number of files."""
    described: manifest.Manifest | None = None
    missing: set[bytes] = set()
    files = 0
    for i, member in enumerate(archive):
        name = member.name.partition(b"/")[2]
        if i == 0 and name == manifest.PATH:
            described = manifest.decode(b"".join(member.data))
            missing = {entry.name for entry in described.entries if entry.type == "file"}
            continue
        files += member.kind == "file"
        found = _digest(member)
        if described and member.kind == "file":
            if name not in missing or described.entries[described.index[name]].sha256 != found:
                raise BadBundle(f"cannot accept {filename}: {os.fsdecode(member.name)!r} is not what the manifest "
                                "says; pack it again")
            missing.remove(name)
    if missing:
        raise BadBundle(f"cannot accept {filename}: {len(missing)} files of the manifest are not in it; pack it again")
    return described, files


def _verify_delta(head: Member, archive: Iterator[Member], signer: Signer, find: oldfiles.Find) -> Verified:
    """Make all contents that a delta has, and compare them with the manifest that it makes."""
    try:
        applied = patch.Patch(head, archive, find)
    except MissingBase:
        patch.check(archive)
        return Verified(signer, None, 0, delta=True)
    described = manifest.decode(applied.manifest)
    files = 0
    try:
        for member in applied.members(described, set(), Path()):
            name = member.name.partition(b"/")[2]
            if described.entries[described.index[name]].sha256 != _digest(member):
                raise oldfiles.broken(f"what it makes of {os.fsdecode(name)!r} is not what its manifest says")
            files += 1
    except BadBundle:
        applied.check_base()
        raise
    return Verified(signer, described, files, delta=True)


def _digest(member: Member) -> str:
    digest = hashlib.sha256()
    for block in member.data:
        digest.update(block)
    return digest.hexdigest()


def damage(release: Path) -> list[str]:
    """Return in words how an installed release differs from its manifest: changed, missing and additional files.

    :raises DamagedRelease: its manifest is missing or can't be read
    """
    root = os.fsencode(release)
    try:
        described = manifest.decode((release / os.fsdecode(manifest.PATH)).read_bytes())
    except FileNotFoundError as error:
        raise DamagedRelease(f"cannot verify {release}: it has no manifest; install it again") from error
    except BadBundle as error:
        raise DamagedRelease(f"cannot verify {release}: {error}") from error
    found = []
    for entry in described.entries:
        path = root if entry.name == b"." else root + b"/" + entry.name
        try:
            problems = tree.differences(path, os.lstat(path), entry)
        except (FileNotFoundError, NotADirectoryError):
            problems = ["is missing"]
        except OSError as error:
            problems = [f"can't be read: {error.strerror}"]
        found += [f"{os.fsdecode(entry.name)!r} {problem}" for problem in problems]
    known = {*described.index, b".", manifest.PATH, manifest.DIRECTORY}
    found += [f"{os.fsdecode(path)!r} is not in the manifest" for path in tree.names(root) if path not in known]
    return found
