"""Reads image archives: what ``docker save`` writes, and tar archives of an OCI image layout.

Both are told by what they hold: ``manifest.json`` (Docker Image Specification 1.2) or ``index.json`` (OCI Image Format
1.0). Newer engines write both into one archive; then the former is read.
"""

import gzip
import json
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from pdimage.errors import PartFailed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LARGEST_DOCUMENT = 4 << 20
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")


class Readable(Protocol):
    """What can be read from."""

    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True)
class ImageArchive:
    """An open archive with one image: its configuration, and the names of its layers in the archive, lowest first."""

    tar: tarfile.TarFile
    config: bytes
    layers: tuple[str, ...]

    @contextmanager
    def layer(self, name: str) -> Iterator[Readable]:
        """Open a layer, as a tar archive that is not compressed."""
        with _file(self.tar, name) as packed:
            magic = packed.read(4)
            packed.seek(0)
            if magic[:2] == b"\x1f\x8b":
                yield gzip.GzipFile(fileobj=packed)
            elif magic == b"\x28\xb5\x2f\xfd":
                yield zstd.ZstdFile(packed)
            else:
                yield packed


@contextmanager
def open_archive(path: Path) -> Iterator[ImageArchive]:
    """Open the image archive PATH, which may be compressed as a whole.

    :raises PartFailed: it is no image archive, is damaged, or does not hold exactly one image
    """
    try:
        with tarfile.open(path) as tar:
            names = set(tar.getnames())
            if "manifest.json" in names:
                config, layers = _of_docker(tar)
            elif "index.json" in names:
                config, layers = _of_layout(tar)
            else:
                raise ValueError("it has neither a manifest.json nor an index.json")
            yield ImageArchive(tar, config, layers)
    except (OSError, EOFError, tarfile.TarError, zstd.ZstdError, ValueError, KeyError, TypeError, IndexError,
            AttributeError) as error:
        raise PartFailed(f"cannot use {path} as an image: {error}; make it with docker save") from error


def _of_docker(tar: tarfile.TarFile) -> tuple[bytes, tuple[str, ...]]:
    entry = _only(json.loads(_content(tar, "manifest.json")))
    return _content(tar, entry["Config"]), tuple(map(str, entry["Layers"]))


def _of_layout(tar: tarfile.TarFile) -> tuple[bytes, tuple[str, ...]]:
    entry = _only(json.loads(_content(tar, "index.json"))["manifests"])
    while True:
        document = json.loads(_content(tar, _blob(entry)))
        if entry.get("mediaType") not in _INDEXES:
            break
        # what is not for a machine, such as an attestation, has the platform unknown (Docker's convention)
        entry = _only([one for one in document["manifests"]
                       if one.get("platform", {}).get("architecture") != "unknown"])
    return _content(tar, _blob(document["config"])), tuple(_blob(layer) for layer in document["layers"])


def _only(images: list[Any]) -> Any:
    if len(images) != 1:
        raise ValueError(f"it holds {len(images)} images instead of one")
    return images[0]


def _blob(descriptor: Any) -> str:
    return "blobs/" + str(descriptor["digest"]).replace(":", "/")


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    with _file(tar, name) as file:
        content = file.read(_LARGEST_DOCUMENT + 1)
    if len(content) > _LARGEST_DOCUMENT:
        raise ValueError(f"{name} is too large for a document")
    return content


def _file(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    file = tar.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file")
    return file
