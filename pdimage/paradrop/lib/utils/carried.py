"""Images that travel inside the firmware, so that a router needs no registry.

They lie as tar archives (``*.tar``, also ``.tar.gz``) in the directory of the setting CHUTE_IMAGE_DIR, as
``docker save`` writes them (Docker Image Specification 1.2: ``manifest.json``) or as an OCI image layout (OCI Image
Format 1.0: ``index.json`` and ``blobs/``). Engines that do not read the latter get the missing ``manifest.json``.
"""

import contextlib
import io
import json
import logging
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from paradrop.lib import settings

log = logging.getLogger(__name__)

_REFERENCE = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"
_LARGEST_DOCUMENT = 4 << 20


@dataclass(frozen=True)
class Archive:
    """An image in a file. ``image_id`` is the digest of its configuration; ``manifest`` is set for an OCI layout."""

    path: Path
    reference: str
    image_id: str
    manifest: bytes | None = None


def find(reference: str) -> Archive | None:
    """Return the archive that carries an image, None if there is none.

    A reference matches with or without ``:latest`` and ``docker.io/library/``.
    """
    wanted = normal(reference)
    directory = Path(settings.CHUTE_IMAGE_DIR)
    for path in sorted(directory.glob("*.tar")) + sorted(directory.glob("*.tar.gz")):
        status = path.stat()
        for archive in _archives(path, status.st_mtime_ns, status.st_size):
            if normal(archive.reference) == wanted:
                return archive
    return None


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


@contextlib.contextmanager
def docker_stream(archive: Archive) -> Iterator[IO[bytes]]:
    """Open an archive in the form that every Docker engine loads."""
    if archive.manifest is None:
        with archive.path.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy:
        with tarfile.open(archive.path) as source, tarfile.open(fileobj=copy, mode="w") as target:
            for member in source:
                target.addfile(member, source.extractfile(member) if member.isfile() else None)
            extra = tarfile.TarInfo("manifest.json")
            extra.size = len(archive.manifest)
            target.addfile(extra, io.BytesIO(archive.manifest))
        copy.seek(0)
        yield copy


@lru_cache(maxsize=256)
def _archives(path: Path, mtime: int, size: int) -> tuple[Archive, ...]:
    """Return the images in a file; none, with a note in the log, if it is something else. The times make it fresh."""
    try:
        with tarfile.open(path) as tar:
            names = set(tar.getnames())
            if "manifest.json" in names:
                return tuple(_of_docker(path, _document(tar, "manifest.json")))
            return tuple(_of_layout(path, tar))
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("cannot use %s as an image: %s", path, error)
        return ()


def _of_docker(path: Path, manifest: Any) -> Iterator[Archive]:
    for entry in manifest:
        digest = str(entry["Config"]).rpartition("/")[2].removesuffix(".json")
        for reference in entry.get("RepoTags") or [path.name.removesuffix(".gz").removesuffix(".tar")]:
            yield Archive(path, str(reference), f"sha256:{digest}")


def _of_layout(path: Path, tar: tarfile.TarFile) -> Iterator[Archive]:
    for entry in _document(tar, "index.json")["manifests"]:
        annotations = entry.get("annotations") or {}
        fallback = path.name.removesuffix(".gz").removesuffix(".tar")
        reference = str(annotations.get(_CONTAINERD_NAME) or annotations.get(_REFERENCE) or fallback)
        if ":" not in reference and "/" not in reference and reference != fallback:
            reference = f"{fallback}:{reference}"  # the annotation may hold the tag alone
        image = _document(tar, _blob(entry["digest"]))
        listing = [{"Config": _blob(image["config"]["digest"]), "RepoTags": [normal(reference)],
                    "Layers": [_blob(layer["digest"]) for layer in image["layers"]]}]
        yield Archive(path, reference, str(image["config"]["digest"]), json.dumps(listing).encode())


def _blob(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def _document(tar: tarfile.TarFile, name: str) -> Any:
    member = tar.getmember(name)
    file = tar.extractfile(member)
    if file is None or member.size > _LARGEST_DOCUMENT:
        raise ValueError(f"{name} is not a document")
    return json.load(file)
