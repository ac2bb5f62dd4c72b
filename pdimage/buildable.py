"""Finds chutes whose containers can't be built into an image, before anything is built."""

from collections.abc import Iterator

from paradrop.lib import descriptor
from paradrop.lib.chutespec import Service
from paradrop.lib.errors import DescriptorError
from pdimage.chutesources import mistake_in
from pdimage.description import ChuteSource, Image
from pdimage.errors import Mistake


def problems(image: Image) -> Iterator[Mistake]:
    """Yield what is wrong, each at its place in the chute's descriptor. Descriptors with mistakes are left out."""
    for chute in image.chutes:
        if chute.archive is None:
            yield from _chute(chute)


def _chute(chute: ChuteSource) -> Iterator[Mistake]:
    try:
        spec = descriptor.parse({"name": chute.name, **chute.config}, complete=False)
    except DescriptorError:
        return
    for service in spec.services:
        if text := _problem(chute, service):
            yield mistake_in(chute, service.path, text)


def _problem(chute: ChuteSource, service: Service) -> str:
    """Return why the container of a service can't be built, or an empty text."""
    if service.download is not None:
        return f"is downloaded from {service.download.url}; an image holds what it is built from, so put the files " \
               "into the chute's directory"
    if service.type == "light":
        return "is of type light, which needs templates that are not there; give it a Dockerfile and the type normal"
    if service.type != "normal" or service.dockerfile is not None or service.image is not None or chute.path is None:
        return ""
    dockerfile = chute.path / service.source / (service.dockerfile_path or "Dockerfile")
    if not dockerfile.resolve().is_relative_to(chute.path.resolve()):
        return f"is built from {dockerfile}, which is not in the chute's directory; put it there"
    return "" if dockerfile.is_file() else f"is built from {dockerfile}, which is not there; write it"
