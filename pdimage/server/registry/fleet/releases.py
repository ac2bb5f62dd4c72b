"""What can be rolled out: releases of the server's channel, images that it built, and files that were put beside.

A release has one of these names:

- ``channel/PRODUCT/NAME``: what the channel in ``channel_directory`` offers (``fussy-publish``), with its deltas;
- ``image/HASH``: the image of a request of the build server;
- ``files/NAME/VERSION``: the files of a directory below ``rollout_files``, for RAUC's client or SWUpdate's.

Devices of hawkBit compare SHA-1 and MD5, which no channel has, so a file is read once, when its roll-out is made.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from fussy import versions
from fussy.channel import Offer
from fussy.errors import FussyError
from fussy.publishing import metadata, offers, places
from pdimage.server import files, images, names
from pdimage.server.artifacts import Artifacts
from pdimage.server.entries import File
from pdimage.server.refusals import Refused
from pdimage.server.settings import Settings
from pdimage.server.tables import reading

_BLOCK = 1 << 20


class Artifact(msgspec.Struct, frozen=True):
    """A file that a device may fetch. ``where``: below the directory that its kind of release lies in. ``base``:
    of a delta, the digest of the release that it needs."""

    name: str
    where: str
    size: int
    sha256: str
    sha1: str
    md5: str
    base: str = ""


class Release(msgspec.Struct, frozen=True):
    """A release, as a roll-out keeps it. ``digest``: that of its manifest, empty if it has none we know of."""

    id: str
    title: str
    version: str
    digest: str
    artifacts: tuple[Artifact, ...]


class Known(msgspec.Struct, frozen=True):
    """A release in a list. ``size``: bytes of the file that every device can use."""

    id: str
    title: str
    version: str
    size: int


@dataclass(frozen=True)
class _File:
    name: str
    where: str
    base: str = ""


class Releases:
    """The releases of one server."""

    def __init__(self, settings: Settings, engine: sa.Engine, store: Artifacts) -> None:
        self._settings = settings
        self._engine = engine
        self._store = store
        self._channel = settings.root / settings.channel_directory if settings.channel_directory else None
        self._files = settings.root / settings.rollout_files

    def all(self) -> list[Known]:
        """Return what the channel offers and what lies beside, the newest of each first; images are too many."""
        return [*self._of_channel(), *self._beside()]

    def find(self, name: str) -> Release:
        """Return a release by its name; its files are read.

        :raises Refused: there is none (404), or it has no file that a device could install (409)
        """
        kind, _, rest = name.partition("/")
        product, _, one = rest.partition("/")
        if kind == "channel" and self._channel and one:
            return self._from_channel(name, product, one)
        if kind == "image" and names.is_good("hash", rest):
            return self._from_images(name, rest)
        if kind == "files" and names.is_good("file", product) and names.is_good("file", one):
            return self._from_files(name, product, one)
        raise _unknown(name)

    def send(self, request: Request, release: str, artifact: Artifact) -> Response:
        """Send a file, or the part of it that is asked for.

        :raises Refused: it is not there any more (404)
        """
        tag = {"ETag": f'"{artifact.sha256}"'}
        if release.startswith("image/"):
            file = File(artifact.name, artifact.size, artifact.sha256)
            return files.send(self._store, request, release.removeprefix("image/"), file)
        directory = self._channel if release.startswith("channel/") else self._files
        path = (directory or self._files) / artifact.where
        if not path.is_file():
            raise Refused(404, "this file is gone from the server")
        return FileResponse(path, headers=tag, media_type="application/octet-stream")

    def _of_channel(self) -> Iterator[Known]:
        published = self._published()
        for product, meta in sorted(published.products.items()) if published else ():
            for one in reversed(offers.releases(meta.signed)):
                size = sum(target.length for target in one.of_kind("full"))
                yield Known(f"channel/{product}/{one.full.release}", one.full.release, one.full.version, size)

    def _beside(self) -> Iterator[Known]:
        there = [path for path in self._files.glob("*/*") if path.is_dir()
                 and names.is_good("file", path.name) and names.is_good("file", path.parent.name)]
        for path in sorted(there, key=lambda path: (path.parent.name, versions.key(path.name)), reverse=True):
            yield Known(f"files/{path.parent.name}/{path.name}", path.parent.name, path.name,
                        sum(file.stat().st_size for file in _plain(path)))

    def _published(self) -> metadata.Published | None:
        try:
            return metadata.load(places.places(self._channel)) if self._channel else None
        except FussyError as error:
            raise Refused(503, f"the channel of this server can't be read: {error}", {"Retry-After": "60"}) from error

    def _from_channel(self, name: str, product: str, release: str) -> Release:
        published = self._published()
        meta = published.products.get(product) if published else None
        found = [one for one in offers.releases(meta.signed) if one.full.release == release] if meta else []
        if not found or self._channel is None:
            raise _unknown(name)
        there = [*found[0].of_kind("full"), *found[0].of_kind("delta")]
        made = [_File(Path(target.path).name, str(_place(target)), offers.offer_of(target).base) for target in there]
        offer: Offer = found[0].full
        return Release(name, offer.release, offer.version, offer.digest, _read(self._channel, made))

    def _from_files(self, name: str, title: str, version: str) -> Release:
        place = self._files / title / version
        if not place.is_dir():
            raise _unknown(name)
        made = [_File(path.name, f"{title}/{version}/{path.name}") for path in _plain(place)]
        return Release(name, title, version, "", _read(self._files, made))

    def _from_images(self, name: str, digest: str) -> Release:
        with reading(self._engine) as connection:
            image = images.find(connection, digest)
        if image is None:
            raise _unknown(name)
        file = next((one for one in image.files if one.name == image.sysupgrade), None)
        if file is None:
            raise Refused(409, f"{name} has no file that a router could install")
        sums = _sums(self._store.read(digest, file.name, 0, file.size))
        title = str(image.details.get("title") or image.profile)
        return Release(name, title, image.version, "", (Artifact(file.name, "", file.size, **sums),))


def _unknown(name: str) -> Refused:
    return Refused(404, f"there is no release {names.shown(name)} on this server; see: paradrop fleet releases")


def _place(target: Any) -> Path:
    """Return where a channel has a target (consistent snapshots)."""
    path = Path(target.path)
    return Path("targets") / path.parent / f"{target.hashes['sha256']}.{path.name}"


def _plain(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_file() and names.is_good("file", path.name))


def _read(directory: Path, made: list[_File]) -> tuple[Artifact, ...]:
    found = []
    for one in made:
        try:
            with (directory / one.where).open("rb") as stream:
                sums = _sums(iter(lambda: stream.read(_BLOCK), b""))
                size = stream.tell()
        except OSError as error:
            raise Refused(409, f"the file {one.name} of this release can't be read: {error.strerror}") from error
        found.append(Artifact(one.name, one.where, size, base=one.base, **sums))
    if not found:
        raise Refused(409, "this release has no file that a router could install")
    return tuple(found)


def _sums(blocks: Iterator[bytes]) -> dict[str, str]:
    """Return the three sums that devices compare."""
    sums = {name: hashlib.new(name, usedforsecurity=False) for name in ("sha256", "sha1", "md5")}
    for block in blocks:
        for one in sums.values():
            one.update(block)
    return {name: one.hexdigest() for name, one in sums.items()}
