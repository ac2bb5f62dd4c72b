"""Makes deltas and parts out of the releases of the store."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from fussy import delta, frames, gpg, manifest, pieces, tarball, tree
from fussy.publishing.store import Stored, entries

PART_SIZE = 4 << 20


@dataclass(frozen=True)
class Sealing:
    """With which keys of GNUPGHOME bundles are made."""

    sign_with: str | None = None
    encrypt_for: Sequence[str] = ()
    passphrase_file: Path | None = None


@dataclass(frozen=True)
class Part:
    """A bundle with the files among the entries FIRST to LAST of a manifest, or, both -1, with the manifest itself."""

    file: Path
    first: int
    last: int


def found_in(release: Stored, described: manifest.Manifest) -> list[tree.Found]:
    """Return the files of a stored release with the entries of its manifest.

    What the file system says of owners is not looked at: a publisher need not be root.
    """
    root = os.fsencode(release.path)
    return [tree.Found(entry, path := root if entry.name == b"." else root + b"/" + entry.name, os.lstat(path))
            for entry in described.entries]


def make_delta(release: Stored, base: Stored, directory: Path, sealing: Sealing, memory: int,
               kept: Path | None = None) -> Path:
    """Write the delta from BASE to RELEASE into DIRECTORY; devices may need MEMORY MiB to apply it.

    KEPT: see :func:`fussy.delta.stream`.
    """
    data, described = entries(release)
    old_data, old = entries(base)
    start = delta.Base(old_data, old.entries, os.fsencode(base.path))
    output = directory / f"{release.name}{delta.suffix(start)}"
    with sealed(output, sealing) as pipe:
        for _, part in delta.stream(start, release.name, data, found_in(release, described), memory, kept):
            pipe.write(part)
    return output


def make_parts(release: Stored, directory: Path, sealing: Sealing) -> list[Part]:
    """Write the parts of a release into DIRECTORY."""
    data, described = entries(release)
    found = found_in(release, described)

    def made(what: str, cut: Iterator[pieces.Piece], first: int, last: int) -> Part:
        output = directory / f"{release.name}.part-{what}.tar.zst.gpg"
        with sealed(output, sealing) as pipe:
            for _, frame in pieces.compressed(cut, frames.FORMATS["zstd"].compress):
                pipe.write(frame)
        return Part(output, first, last)

    end = pieces.Piece(frames.NO_ENTRY, 0, [tarball.END])
    parts = [made("manifest", chain(pieces.cut_manifest(release.name, data), [end]), -1, -1)]
    for first, last in ranges(described.entries):
        files = [item for item in found[first:last + 1] if item.entry.type == "file"]
        parts.append(made(str(first), chain(cut(release.name, files), [end]), first, last))
    return parts


def sealed(output: Path, sealing: Sealing) -> AbstractContextManager[BinaryIO]:
    return gpg.seal(output, sign_with=sealing.sign_with or None, encrypt_for=sealing.encrypt_for,
                    passphrase_file=sealing.passphrase_file)


def ranges(listed: Sequence[manifest.Entry]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of entries whose contents make about PART_SIZE; what has no content is passed over.

    >>> sizes = [0, PART_SIZE, 3, 0]
    >>> list(ranges([manifest.Entry(type="file", path=str(size), size=size) for size in sizes]))
    [(1, 1), (2, 2)]
    """
    first, last, size = -1, -1, 0
    for i, entry in enumerate(listed):
        if not entry.data_size:
            continue
        if first >= 0 and size + entry.data_size > PART_SIZE:
            yield first, last
            first, size = -1, 0
        first = i if first < 0 else first
        last, size = i, size + entry.data_size
    if first >= 0:
        yield first, last


def cut(top: str, files: Sequence[tree.Found]) -> Iterator[pieces.Piece]:
    """Yield the pieces of FILES, without a note of what they hold: nothing in a part is skipped."""
    for item in files:
        for offset in range(0, item.entry.size, frames.FRAME_SIZE):
            size = min(frames.FRAME_SIZE, item.entry.size - offset)
            parts: list[bytes | pieces.Slice] = [pieces.Slice(item, offset, size)]
            if offset == 0:
                parts.insert(0, tarball.head(top, item.entry))
            if offset + size == item.entry.size:
                parts.append(tarball.padding(item.entry.size))
            yield pieces.Piece(frames.NO_ENTRY, 0, parts)
