"""What clients are told of a request, in the words of each API. Pure functions of an :class:`Entry`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pdimage.server.entries import Entry, Failure, Image

# Of the documented API. 409 is in its later editions, and both versions of auc know it.
_STATUS: Mapping[Failure, int] = {"impossible": 409, "unknown": 422, "too-big": 413, "failed": 500, "lost": 500}
_STAGES = {"initialize": "container_setup", "building": "building_image", "signing": "signing_images"}
NO_SYSUPGRADE = "No sysupgrade file produced, may not supported by model."


@dataclass(frozen=True)
class Said:
    """A status, a JSON body and headers."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def log_path(digest: str) -> str:
    """Return where the log of a build can be read."""
    return f"/download/{digest}/buildlog.txt"


def documented(entry: Entry, *, upgrade: bool, prefix: str, linked: bool) -> Said:
    """Answer as the documented API does. PREFIX is the server's address; LINKED: the image as a link, not a name."""
    common = {"request_hash": entry.hash}
    if entry.state == "queued":
        return Said(202, {**common, "queue_position": entry.place}, {
            "X-Imagebuilder-Status": "queue", "X-Build-Queue-Position": str(entry.place)})
    if entry.state == "building":
        status = "initialize" if entry.stage == "initialize" else "building"
        return Said(202, common, {"X-Imagebuilder-Status": status})
    if entry.state == "failed":
        return Said(_STATUS[entry.failure], {**common, "error": entry.error, "log": log_path(entry.hash)})
    assert entry.image is not None
    image = entry.image
    more = {"image_hash": image.image_hash, "manifest_hash": image.manifest_hash, "files": f"/json/{entry.hash}/",
            "log": log_path(entry.hash)}
    if not image.sysupgrade and upgrade:
        return Said(501, {**common, **more, "error": NO_SYSUPGRADE})
    if not image.sysupgrade:
        return Said(200, {**common, **more})
    name = f"{prefix}/store/{entry.hash}/{image.sysupgrade}" if linked else image.sysupgrade
    file = next(file for file in image.files if file.name == image.sysupgrade)
    return Said(200, {**common, "sysupgrade": name, "sha256": file.sha256, "size": file.size, **more})


def present(entry: Entry, manifest: Mapping[str, str] | None = None, log: str = "") -> Said:
    """Answer as the present-day API does."""
    common = {"request_hash": entry.hash, "enqueued_at": _time(entry.accepted)}
    if entry.state == "queued":
        return Said(202, {**common, "status": 202, "detail": "queued", "queue_position": entry.place}, {
            "X-Queue-Position": str(entry.place), "X-Imagebuilder-Status": "queue"})
    if entry.state == "building":
        stage = _STAGES.get(entry.stage, "init")
        return Said(202, {**common, "status": 202, "detail": "started", "imagebuilder_status": stage}, {
            "X-Imagebuilder-Status": stage})
    if entry.state == "failed":
        return Said(500, {**common, "status": 500, "detail": f"Error: {entry.error}", "error": entry.error,
                          "stdout": log, "stderr": ""})
    assert entry.image is not None
    image = entry.image
    title = image.details.get("title") or image.profile
    return Said(200, {
        **common, "status": 200, "detail": "done", "id": image.profile, "bin_dir": image.request_hash,
        "titles": [{"title": title}], "target": image.target, "version_number": image.version,
        "version_code": image.details.get("version_code", ""), "build_at": _time(image.built),
        "image_hash": image.image_hash, "manifest": dict(manifest or {}), "images": _files(image), "build_cmd": [],
        "stdout": log, "stderr": ""})


def _files(image: Image) -> list[dict[str, Any]]:
    """Return the files that are installed or flashed; what is told of them lies beside."""
    return [{"name": file.name, "type": file.type, "sha256": file.sha256, "size": file.size,
             "filesystem": "squashfs" if "squashfs" in file.name else ""}
            for file in image.files if file.type in ("sysupgrade", "image")]


def stored(image: Image, hits: int) -> dict[str, Any]:
    """Return what ``/api/image`` tells."""
    return {
        "image_hash": image.image_hash, "request_hash": image.request_hash, "manifest_hash": image.manifest_hash,
        "defaults_hash": image.defaults_hash, "distro": image.distro, "distro_alias": image.distro,
        "version": image.version, "version_alias": image.version, "target": image.target, "profile": image.profile,
        "model": image.details.get("title", ""), "worker": image.worker, "build_date": _time(image.built),
        "build_seconds": round(image.build_seconds, 3), "sysupgrade": image.sysupgrade,
        "image_status": "created" if image.sysupgrade else "no_sysupgrade", "snapshots": image.snapshot,
        "vanilla": not image.defaults_hash, "cache_hits": hits, "files": f"/json/{image.request_hash}/"}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
