"""The images that were built, their manifests, and what was counted. Functions over a connection to the database."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import select

from fussy.ondemand import Request
from pdimage.server.entries import File, Image
from pdimage.server.tables import counts, images, manifests, reading, requests
from pdimage.server.upsert import add, insert_new, replace


def manifest_hash(manifest: Mapping[str, str]) -> str:
    """Return the SHA-256 of a manifest's lines ``NAME - VERSION``, as an ImageBuilder writes them, sorted."""
    return hashlib.sha256(manifest_text(manifest).encode()).hexdigest()


def manifest_text(manifest: Mapping[str, str]) -> str:
    """Return a manifest as an ImageBuilder writes it."""
    return "".join(f"{name} - {version}\n" for name, version in sorted(manifest.items()))


def image_hash(request: Request, manifest: str) -> str:
    """Return the hash of all that makes an image: distribution, version, board, first-boot script, packages."""
    parts = (request.distro, request.version, request.target, request.profile, request.defaults, manifest,
             str(request.rootfs_size_mb), request.filesystem)
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def record(connection: sa.Connection, image: Image, request: Request, manifest: Mapping[str, str]) -> None:
    """Write down an image, and count it."""
    row = msgspec.structs.asdict(image)
    row["files"] = msgspec.json.encode(image.files).decode()
    row["details"] = msgspec.json.encode(image.details).decode()
    row["snapshot"] = int(image.snapshot)
    replace(connection, images, row)
    packages = msgspec.json.encode(manifest, order="sorted").decode()
    insert_new(connection, manifests, {"hash": image.manifest_hash, "packages": packages})
    day = datetime.fromtimestamp(image.built, UTC).strftime("%Y-%m-%d")
    counted = [("package", name) for name in request.packages if not name.startswith("-")]
    counted += [("target", f"{image.distro} {image.version} {image.target}"), ("day", day), ("total", "images"),
                ("version", f"{image.distro} {image.version}")]
    for kind, name in counted:
        add(connection, counts, {"kind": kind, "name": name}, {"count": 1, "seconds": image.build_seconds})


def find(connection: sa.Connection, request_hash: str) -> Image | None:
    """Return the image of a request."""
    row = connection.execute(select(images).where(images.c.request_hash == request_hash)).one_or_none()
    return _image(row) if row else None


def _image(row: Any) -> Image:
    values = dict(row._mapping)
    values["files"] = msgspec.json.decode(row.files, type=tuple[File, ...])
    values["details"] = msgspec.json.decode(row.details)
    values["snapshot"] = bool(row.snapshot)
    return Image(**values)


class Images:
    """What can be asked about images, in a database."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def by_hash(self, digest: str) -> tuple[Image, int] | None:
        """Return the newest image with this image hash, and how often its request was answered from the store."""
        with reading(self.engine) as connection:
            row = connection.execute(select(images).where(images.c.image_hash == digest).order_by(
                images.c.built.desc()).limit(1)).one_or_none()
            if row is None:
                return None
            hits = connection.scalar(select(requests.c.hits).where(requests.c.hash == row.request_hash))
            return _image(row), hits or 0

    def of_request(self, digest: str) -> Image | None:
        """Return the image of a request."""
        with reading(self.engine) as connection:
            return find(connection, digest)

    def manifest(self, digest: str) -> dict[str, str] | None:
        """Return the packages of a manifest, with their versions."""
        with reading(self.engine) as connection:
            text = connection.scalar(select(manifests.c.packages).where(manifests.c.hash == digest))
            return msgspec.json.decode(text, type=dict[str, str]) if text else None

    def latest(self, number: int) -> list[Image]:
        """Return the images that were built last."""
        with reading(self.engine) as connection:
            rows = connection.execute(select(images).order_by(images.c.built.desc()).limit(number)).all()
            return [_image(row) for row in rows]

    def failures(self, number: int) -> list[dict[str, Any]]:
        """Return the requests that failed last."""
        columns = (requests.c.hash, requests.c.request, requests.c.failure, requests.c.error, requests.c.finished)
        with reading(self.engine) as connection:
            rows = connection.execute(select(*columns).where(requests.c.state == "failed").order_by(
                requests.c.finished.desc()).limit(number)).all()
        return [{"request_hash": row.hash, **msgspec.json.decode(row.request), "failure": row.failure,
                 "error": row.error, "date": row.finished} for row in rows]

    def counted(self, kind: str, number: int = 50) -> list[tuple[str, int, float]]:
        """Return what was counted of a kind, most first: name, count, seconds of building altogether."""
        with reading(self.engine) as connection:
            rows = connection.execute(select(counts.c.name, counts.c.count, counts.c.seconds).where(
                counts.c.kind == kind).order_by(counts.c.count.desc(), counts.c.name).limit(number)).all()
            return [(row[0], row[1], row[2]) for row in rows]

    def totals(self) -> dict[str, int]:
        """Return how many images were ever built, are stored, and how many requests there are by state."""
        with reading(self.engine) as connection:
            stored = connection.scalar(select(sa.func.count()).select_from(images)) or 0
            states = connection.execute(select(requests.c.state, sa.func.count()).group_by(requests.c.state)).all()
            total = connection.scalar(select(counts.c.count).where(
                counts.c.kind == "total", counts.c.name == "images")) or 0
        return {"total": total, "stored": stored, **{row[0]: row[1] for row in states}}
