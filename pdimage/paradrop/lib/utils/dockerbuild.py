"""Where a chute's images come from: the firmware, the engine, a registry, or a build.

Nothing of the running router changes here. What a failed build left behind is removed: only what this very build made.
"""

import io
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paradrop.lib import settings
from paradrop.lib.utils import carried
from paradrop.lib.utils.dockerclient import LABEL, SERVICE_LABEL, Deadline, DockerError, NotFound, translated

log = logging.getLogger(__name__)

BUILD_FAILED = "Building docker image failed; check your Dockerfile for errors."
NO_SOURCE = "No Dockerfile or download location supplied."

_FROM = re.compile(r"^[ \t]*FROM[ \t]+(?:--platform=\S+[ \t]+)?(\S+)", re.IGNORECASE | re.MULTILINE)
_LAYER = re.compile(r"^ ---> ([0-9a-f]{12})$")
_IMAGE = re.compile(r"^(?:Successfully built |sha256:)([0-9a-f]{12,64})$")
_NOISE = re.compile(r"^(?:Downloading|Extracting|Pulling fs layer|Waiting|Verifying Checksum|Download complete)\b")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Image:
    """An image that the engine has. ``fresh``: it was not there before. ``built``: it is this chute's own work."""

    id: str
    fresh: bool
    built: bool = False


@dataclass(frozen=True)
class Source:
    """What an image is made of: one of a reference, a Dockerfile's text, or a directory with a Dockerfile.

    With a reference and one of the others, the others are for when the reference cannot be had.
    """

    chute: str
    service: str
    reference: str | None = None
    dockerfile: bytes | None = None
    directory: Path | None = None
    dockerfile_path: str | None = None


def obtain(client: Any, source: Source, progress: Progress) -> Image:
    """Return the image that a source stands for, after loading, pulling or building it.

    Raises:
        DockerError: it cannot be had; nothing is left of the attempt.
    """
    builds = source.dockerfile is not None or source.directory is not None
    if source.reference is not None:
        try:
            return fetch(client, source.reference, progress)
        except DockerError as error:
            if not builds:
                raise
            progress(f"{error.message}\nBuilding it from the Dockerfile instead.\n")
    if not builds:
        raise DockerError(NO_SOURCE)
    return build(client, source, progress)


def fetch(client: Any, reference: str, progress: Progress) -> Image:
    """Return the image of a reference: the one that the firmware carries, else the engine's own, else a registry's.

    Raises:
        DockerError: nobody has it.
    """
    image = carried.find(reference)
    if image is not None:
        return load(client, image, progress)
    here = find(client, reference)
    if here is not None:
        return Image(here, fresh=False)
    progress(f"Pulling {reference}\n")
    with translated(f"cannot pull the image {reference}"):
        repository, _, tag = _split_reference(reference)
        deadline = Deadline(settings.DOCKER_BUILD_TIMEOUT, f"cannot pull the image {reference}")
        for event in client.pull(repository, tag=tag, stream=True, decode=True):
            deadline.check()
            if "error" in event:
                raise DockerError(f"cannot pull the image {reference}: {event['error']}")
            status = str(event.get("status", ""))
            if not _NOISE.match(status):
                progress(f"{status}: {event['id']}\n" if "id" in event else f"{status}\n")
    pulled = find(client, reference)
    if pulled is None:
        raise DockerError(f"cannot pull the image {reference}: the engine does not have it afterwards")
    return Image(pulled, fresh=True)


def load(client: Any, image: carried.Carried, progress: Progress) -> Image:
    """Load an image of the firmware, if it is new to the engine.

    Raises:
        DockerError: the engine refused it, or a part of it cannot be read.
    """
    if here := find(client, image.image_id):
        return Image(here, fresh=False)
    progress(f"Loading {image.reference} from the firmware\n")
    loaded = None
    with translated(f"cannot load the image {image.reference}"):
        for event in client.load_image(carried.docker_archive(image)):
            if "error" in event:
                raise DockerError(f"cannot load the image {image.reference} from {image.layout}: {event['error']}")
            if found := re.search(r"Loaded image(?: ID)?: (\S+)", str(event.get("stream", ""))):
                loaded = found.group(1)
    number = find(client, image.image_id) or find(client, loaded or image.reference)
    if number is None:
        raise DockerError(f"cannot load the image {image.reference} from {image.layout}: "
                          "the engine does not have it afterwards")
    return Image(number, fresh=True)


def find(client: Any, reference: str) -> str | None:
    """Return the id of an image by reference or id, None if the engine does not have it."""
    try:
        with translated(f"cannot look for the image {reference}"):
            return str(client.inspect_image(reference)["Id"])
    except NotFound:
        return None


def build(client: Any, source: Source, progress: Progress) -> Image:
    """Build an image out of a Dockerfile's text, without any other file, or a directory.

    Raises:
        DockerError: the build failed; the layers that it added are gone.
    """
    for reference in _bases(source):
        base = carried.find(reference)
        if base is not None:
            load(client, base, progress)
    with translated("cannot list the engine's images"):
        before = {str(image["Id"]) for image in client.images(all=True)}
    seen: list[str] = []
    try:
        with translated(BUILD_FAILED):
            image = _run_build(client, source, progress, seen)
    except BaseException:
        _remove_layers(client, seen, before)
        raise
    return Image(image, fresh=image not in before, built=True)


def _run_build(client: Any, source: Source, progress: Progress, seen: list[str]) -> str:
    """Return the id of the image that was built; ids of layers go to ``seen`` as they are made."""
    options: dict[str, Any] = {
        "rm": True, "forcerm": True, "decode": True, "timeout": settings.DOCKER_BUILD_TIMEOUT,
        "labels": {LABEL: source.chute, SERVICE_LABEL: source.service},
    }
    if source.directory is not None:
        events = client.build(path=str(source.directory), dockerfile=source.dockerfile_path, **options)
    else:
        events = client.build(fileobj=io.BytesIO(source.dockerfile or b""), **options)
    deadline = Deadline(settings.DOCKER_BUILD_TIMEOUT, BUILD_FAILED)
    image = None
    for event in events:
        deadline.check()
        if "errorDetail" in event or "error" in event:
            reason = str(event.get("error") or event["errorDetail"])
            progress(reason + "\n")
            raise DockerError(f"{BUILD_FAILED} {reason}")
        text = _text(event)
        for line in text.splitlines():
            if layer := _LAYER.match(line):
                seen.append(layer.group(1))
            if built := _IMAGE.match(line):
                image = built.group(1)
        if text and not _NOISE.match(text):
            progress(text)
    if image is None:
        raise DockerError(f"{BUILD_FAILED} The engine ended without saying why.")
    return find(client, image) or image


def _text(event: dict[str, Any]) -> str:
    """Return what of an event of the build is for people."""
    if "stream" in event:
        return str(event["stream"])
    return "".join(f"{value}\n" for key, value in event.items()
                   if key not in ("progress", "id") and not isinstance(value, dict))


def _remove_layers(client: Any, seen: Iterable[str], before: set[str]) -> None:
    """Remove the layers that were seen being made, the newest first, unless they were there before."""
    for short in reversed(list(seen)):
        if any(known.removeprefix("sha256:").startswith(short) for known in before):
            continue
        try:
            with translated(f"cannot remove the layer {short}"):
                client.remove_image(short)
        except DockerError as error:
            log.info("%s", error.message)


def _bases(source: Source) -> list[str]:
    """Return the images that the Dockerfile of a source begins with."""
    text = source.dockerfile
    if source.directory is not None:
        path = source.directory / (source.dockerfile_path or "Dockerfile")
        text = path.read_bytes() if path.is_file() else b""
    return _FROM.findall((text or b"").decode(errors="replace"))


def _split_reference(reference: str) -> tuple[str, str, str]:
    """Return repository, separator and tag or digest; the tag is "latest" if none is given.

    >>> _split_reference("registry:5000/nginx")
    ('registry:5000/nginx', ':', 'latest')
    >>> _split_reference("nginx:1.27")
    ('nginx', ':', '1.27')
    """
    if "@" in reference:
        repository, _, digest = reference.partition("@")
        return repository, "@", digest
    repository, colon, tag = reference.rpartition(":")
    if not colon or "/" in tag:
        return reference, ":", "latest"
    return repository, ":", tag
