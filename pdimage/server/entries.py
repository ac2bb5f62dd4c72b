"""What is known of requests and images, as frozen values that travel between the store, the API and the workers."""

from typing import Any, Literal

import msgspec

from fussy.ondemand import Request

State = Literal["queued", "building", "done", "failed"]
# Why there is no image: impossible selection, too big for the board, the build failed, workers were lost again and
# again, and the build was good but gave nothing that a device could install.
Failure = Literal["", "impossible", "unknown", "too-big", "failed", "lost"]


class File(msgspec.Struct, frozen=True):
    """A file of an image in the store. ``type``: sysupgrade, sbom, provenance, licences, manifest, or image."""

    name: str
    size: int
    sha256: str
    type: str = "image"


class Image(msgspec.Struct, frozen=True):
    """An image that was built. ``sysupgrade`` is the name of the file that devices install, empty if there is none.

    ``built`` is Unix time. ``details`` are what the present-day API tells beside.
    """

    request_hash: str
    image_hash: str
    manifest_hash: str
    distro: str
    version: str
    target: str
    profile: str
    defaults_hash: str
    snapshot: bool
    worker: str
    built: float
    build_seconds: float
    sysupgrade: str
    files: tuple[File, ...]
    details: dict[str, Any] = {}


class Entry(msgspec.Struct, frozen=True):
    """A request as the database has it. ``place``: how many are built before it, while it is queued."""

    hash: str
    request: Request
    state: State
    stage: str = ""
    failure: Failure = ""
    error: str = ""
    accepted: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    place: int = 0
    image: Image | None = None


class Job(msgspec.Struct, frozen=True):
    """A request that a worker has claimed. Only who knows the ``lease`` can go on with it."""

    hash: str
    request: Request
    defaults: str
    lease: str
    worker: str
    attempt: int
