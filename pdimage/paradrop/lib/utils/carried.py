"""Images that travel inside the firmware, so that a router needs no registry.

They lie in the directory of the setting CHUTE_IMAGE_DIR as one OCI image layout (OCI Image Format 1.0: ``oci-layout``,
``index.json``, ``blobs/``), in which a layer that several images have is there once. The index says of each image its
reference, in the annotation ``org.opencontainers.image.ref.name``. Layers are tar archives as they are, not compressed:
so a new version shares unchanged ones with the old, and a delta sees into those that changed.
"""

import json
import logging
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from paradrop.lib import settings

log = logging.getLogger(__name__)

REFERENCE = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"
_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]{64,128})")
_LARGEST_DOCUMENT = 4 << 20
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Carried:
    """An image in a layout. ``image_id`` is the digest of its configuration, by which the engine knows it."""

    layout: Path
    reference: str
    image_id: str
    layers: tuple[str, ...]


def find(reference: str) -> Carried | None:
    """Return the image that the firmware carries under a reference, None if there is none.

    A reference matches with or without ``:latest`` and ``docker.io/library/``.
    """
    wanted = normal(reference)
    return next((image for image in images(Path(settings.CHUTE_IMAGE_DIR)) if normal(image.reference) == wanted), None)


def images(layout: Path) -> tuple[Carried, ...]:
    """Return the images in a layout; none if there is no layout, or, with a note in the log, if it is damaged."""
    try:
        status = (layout / "index.json").stat()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return _images(layout, status.st_mtime_ns, status.st_size, status.st_ino)


def normal(reference: str) -> str:
    """Return a reference in full.

    >>> normal("busybox"), normal("library/busybox:1.36"), normal("example.org/a/b")
    ('docker.io/library/busybox:latest', 'docker.io/library/busybox:1.36', 'example.org/a/b:latest')
    """
    name = reference
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not any(mark in first for mark in ".:") and first != "localhost":
        name = f"docker.io/{name}"
    last = name.rpartition("/")[2]
    return name if ":" in last or "@" in last else f"{name}:latest"


def docker_archive(image: Carried) -> Iterator[bytes]:
    """Yield an image in the form that every Docker engine loads (Docker Image Specification 1.2), straight from disk.

    Raises:
        OSError: a blob is missing or cannot be read.
    """
    listing = [{"Config": blob(image.image_id), "RepoTags": [normal(image.reference)],
                "Layers": [blob(layer) for layer in image.layers]}]
    document = json.dumps(listing).encode()
    yield from _member("manifest.json", [document], len(document))
    for digest in dict.fromkeys([image.image_id, *image.layers]):
        path = image.layout / blob(digest)
        yield from _member(blob(digest), _blocks(path), path.stat().st_size)
    yield bytes(2 * tarfile.BLOCKSIZE)


def blob(digest: str) -> str:
    """Return the path of a blob in a layout.

    >>> blob("sha256:" + 64 * "0")[:18]
    'blobs/sha256/00000'

    Raises:
        ValueError: that is no digest; it could lead anywhere.
    """
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise ValueError(f"{digest!r} is not a digest")
    return f"blobs/{match[1]}/{match[2]}"


def _member(name: str, content: Iterator[bytes] | list[bytes], size: int) -> Iterator[bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = size
    yield entry.tobuf()
    yield from content
    yield bytes(-size % tarfile.BLOCKSIZE)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


@lru_cache(maxsize=16)
def _images(layout: Path, mtime: int, size: int, inode: int) -> tuple[Carried, ...]:
    """Read a layout; the facts of its index make that anew when it changes."""
    try:
        return tuple(_image(layout, entry) for entry in _document(layout / "index.json")["manifests"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("cannot use the images in %s: %s", layout, error)
        return ()


def _image(layout: Path, entry: Any) -> Carried:
    annotations = entry.get("annotations") or {}
    manifest = _document(layout / blob(entry["digest"]))
    return Carried(layout, str(annotations.get(_CONTAINERD_NAME) or annotations[REFERENCE]),
                   str(manifest["config"]["digest"]), tuple(str(layer["digest"]) for layer in manifest["layers"]))


def _document(path: Path) -> Any:
    if path.stat().st_size > _LARGEST_DOCUMENT:
        raise ValueError(f"{path} is too large for a document")
    return json.loads(path.read_bytes())
