"""Checks an installed release against its manifest, or a bundle against a keyring. Reads everything, writes nothing."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from fussy import bundle, manifest, tree
from fussy.errors import BadBundle, DamagedRelease
from fussy.frames import blocks
from fussy.gpg import Signer
from fussy.tarball import members


@dataclass(frozen=True)
class Verified:
    """A bundle that is sound: who signed it, and what it says of itself (None without a manifest)."""

    signer: Signer
    manifest: manifest.Manifest | None
    files: int


def verify_bundle(filename: Path, keyring: Path) -> Verified:
    """Check the signature of a bundle and, if it has a manifest, every file in it against that.

    :raises Untrusted: no allowed signature covers all of it
    :raises BadBundle: its content is damaged, unsafe, or not what its manifest says
    """
    with bundle.opened(filename, keyring) as (signer, source):
        archive = members(blocks(source, lambda first, count: True))
        described: manifest.Manifest | None = None
        missing: set[bytes] = set()
        files = 0
        for i, member in enumerate(archive):
            name = member.name.partition(b"/")[2]
            if i == 0 and name == manifest.PATH:
                described = manifest.decode(b"".join(member.data))
                missing = {entry.name for entry in described.entries if entry.type == "file"}
                continue
            digest = hashlib.sha256()
            for block in member.data:
                digest.update(block)
            files += member.kind == "file"
            if described and member.kind == "file":
                entry = described.entries[described.index[name]] if name in missing else None
                if entry is None or entry.sha256 != digest.hexdigest():
                    raise BadBundle(f"cannot accept {filename}: {os.fsdecode(member.name)!r} is not what the manifest "
                                    "says; pack it again")
                missing.remove(name)
    if missing:
        raise BadBundle(f"cannot accept {filename}: {len(missing)} files of the manifest are not in it; pack it again")
    return Verified(signer, described, files)


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
