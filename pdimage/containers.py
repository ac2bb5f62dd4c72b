"""Puts chutes into the tree: their containers, built where a Docker engine is there, and what the runtime must know.

::

    share/chutes/NAME/chute.json   the descriptor, as the runtime takes it (paradrop.image.chutes)
    share/chutes/NAME/files/       what the container is built from, if it was not built
    share/oci/                     one OCI image layout with the images of all chutes (paradrop.lib.utils.carried)
"""

import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from fussy.errors import SystemSetup
from paradrop.lib import descriptor, settings
from paradrop.lib.chutespec import Service, Specification
from paradrop.lib.config.dockerconfig import imageSource
from paradrop.lib.descriptor2015 import MAIN
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import dockerbuild
from paradrop.lib.utils.carried import REFERENCE, normal
from paradrop.lib.utils.dockerclient import DockerError, translated
from pdimage import buildkeys, treefiles
from pdimage.components import Component
from pdimage.description import ChuteSource
from pdimage.errors import PartFailed
from pdimage.machine import Machine
from pdimage.ociimage import Blobs, OciImage
from pdimage.tools import last_lines

log = logging.getLogger(__name__)

CHUTES = "share/chutes"
LAYOUT = "share/oci"
# A domain that nobody can have (RFC 2606): what is not in the firmware is never looked for in a registry.
REGISTRY = "firmware.invalid"
_LICENCES = "org.opencontainers.image.licenses"
# What of a service says how its image comes about.
_ORIGIN = ("image", "source", "dockerfile", "dockerfile-path", "download", "build")
# The engine colours what a build says on stderr.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

Progress = Callable[[str], object]


@dataclass(frozen=True)
class Container:
    """The image of one service of a chute, with the reference that the release knows it by."""

    chute: str
    service: str
    version: str
    reference: str
    image: OciImage


def install(
    tree: Path, chutes: Sequence[ChuteSource], cache: Path, engine: str | None = None,
    progress: Progress = lambda step: None, *, machine: Machine | None = None,
) -> tuple[Component, ...]:
    """Put CHUTES into TREE, their containers built by the Docker engine at ENGINE.

    ENGINE is a URL as in DOCKER_HOST, which counts if it is None; without either the usual socket is tried. Where
    nothing is there, chutes are carried as they are and the router builds them. MACHINE is what the image is for, the
    one we run on if not given.

    :raises PartFailed: a container can't be built or is for another kind of machine, an archive is no image, or the
        engine that was named fails
    """
    machine = machine or Machine.here()
    blobs = Blobs(cache / "containers")
    client = _connect(engine) if any(chute.archive is None for chute in chutes) else None
    containers: list[Container] = []
    for chute in chutes:
        progress(f"chute {chute.name}")
        spec = _specification(chute)
        images = dict(_images(chute, spec, blobs, client))
        _check_machine(chute, images.values(), machine)
        containers += [_container(spec, service, image) for service, image in images.items()]
        references = {one.service: one.reference for one in containers if one.chute == spec.name}
        _describe(tree, chute, spec, references)
    _lay_out(tree, containers, blobs)
    return tuple(map(_component, containers))


def _connect(engine: str | None) -> Any:
    """Return a client of the engine; None, with a warning, if there is none and none was asked for."""
    named = engine or os.environ.get("DOCKER_HOST")
    url = named or "unix:///var/run/docker.sock"
    if named is None and not Path(url.removeprefix("unix://")).exists():
        log.warning("no Docker engine is here: chutes go into the image as they are, and the router builds them")
        return None
    try:
        with translated("cannot build containers"):
            import docker

            return docker.APIClient(base_url=url, version="auto", timeout=float(settings.DOCKER_BUILD_TIMEOUT))
    except ImportError as error:
        raise SystemSetup("cannot build containers: the Python package docker is missing; install it") from error
    except DockerError as error:
        raise PartFailed(f"cannot build containers with the Docker engine at {url}: {error.message}") from error


def _specification(chute: ChuteSource) -> Specification:
    return descriptor.parse({"name": chute.name, **chute.config}, complete=False)


def _images(chute: ChuteSource, spec: Specification, blobs: Blobs, client: Any) -> Iterator[tuple[str, OciImage]]:
    """Yield the image of each service that can be had now."""
    if chute.archive is not None:
        if len(spec.services) != 1:
            raise PartFailed(f"cannot use {chute.archive} for the chute {chute.name}: it is one image, but the chute "
                             f"has {len(spec.services)} services; give it a path to be built from")
        with chute.archive.open("rb") as file:
            key = hashlib.file_digest(file, "sha256").hexdigest()
        yield spec.services[0].name, blobs.known(key) or blobs.take(chute.archive, key, None)
    elif client is not None:
        for service in spec.services:
            yield service.name, _build(chute, service, blobs, client)


def _check_machine(chute: ChuteSource, images: Iterable[OciImage], machine: Machine) -> None:
    """Refuse images that the router can't run. Not checked is what an image does not say of itself."""
    for image in images:
        made_for = image.platform.get("architecture", machine.container)
        if made_for != machine.container:
            raise PartFailed(
                f"cannot use the container of {chute.name}: it is for {made_for}, the image is for {machine.processor} "
                f"({machine.container}); name an engine on such a machine with --engine, or an archive made there")


def _build(chute: ChuteSource, service: Service, blobs: Blobs, client: Any) -> OciImage:
    """Build the image of a service, or get it from a registry; what is unchanged comes from its cache and ours."""
    output: list[str] = []
    what = f"cannot build the container of {chute.name} from {chute.path}"
    try:
        time = treefiles.epoch()
        source = imageSource(chute.name, service, chute.path)
        made_from = buildkeys.key(source, partial(dockerbuild.find, client), time)
        if made_from and (known := blobs.known(made_from)):
            return known
        image = dockerbuild.obtain(client, source, output.append)
        found = _taken(client, image.id, chute.name, blobs, time, what)
        if made_from and made_from == buildkeys.key(source, partial(dockerbuild.find, client), time):
            blobs.name(made_from, found)  # nobody has changed it meanwhile
        return found
    except ParadropError as error:
        lines = last_lines(_COLOUR.sub("", "".join(output)))
        raise PartFailed(f"{what}: {error.message}" + (f"\n{lines}" if lines else "")) from error


def _taken(client: Any, image: str, chute: str, blobs: Blobs, time: int, what: str) -> OciImage:
    """Take an image of the engine into the cache."""
    key = f"{image.removeprefix('sha256:')}-{time}"
    if known := blobs.known(key):
        return known
    with tempfile.TemporaryDirectory(dir=blobs.root) as directory:
        archive = Path(directory, f"{chute}.tar")
        with archive.open("wb") as file:
            for block in _saved(client, image, what):
                file.write(block)
        return blobs.take(archive, key, time)


def _saved(client: Any, image: str, what: str) -> Iterator[bytes]:
    """Yield what docker save gives for an image; a full disk of ours is none of the engine's errors."""
    with translated(what):
        yield from client.get_image(image)


def _container(spec: Specification, service: str, image: OciImage) -> Container:
    reference = f"{REGISTRY}/{spec.name}/{service}:{image.config[:12]}"
    return Container(spec.name, service, str(spec.version or image.config[:12]), reference, image)


def _describe(tree: Path, chute: ChuteSource, spec: Specification, references: Mapping[str, str]) -> None:
    """Write what the runtime must know of a chute."""
    document = spec.document()
    for name, reference in references.items():
        service = document["services"][name]
        for key in _ORIGIN:
            service.pop(key, None)
        service |= {"type": "image", "image": reference}
    record: dict[str, Any] = {"descriptor": document}
    if chute.path is not None and not references:
        record["files"] = _copy(tree, f"{CHUTES}/{chute.name}/files", chute.path)
    treefiles.write(tree, f"{CHUTES}/{chute.name}/chute.json",
                    msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=2) + b"\n")


def _copy(tree: Path, target: str, source: Path) -> str:
    """Copy a chute's directory and return a digest of it."""
    digest = hashlib.sha256()
    for directory, names, files in os.walk(source):
        names[:] = sorted(name for name in names if name not in (".git", ".svn", ".bzr"))
        for name in sorted(files):
            path = Path(directory, name)
            inside = path.relative_to(source)
            treefiles.copy(tree, f"{target}/{inside}", path)
            content = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
            digest.update(f"{hashlib.sha256(content).hexdigest()} {inside}\n".encode())
    return digest.hexdigest()


def _lay_out(tree: Path, containers: Sequence[Container], blobs: Blobs) -> None:
    """Write the layout; each blob once, and checked on the way, for a damaged cache must not become a firmware."""
    if not containers:
        return
    (tree / LAYOUT / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    for digest in sorted({digest for one in containers for digest in one.image.blobs}):
        target = tree / LAYOUT / "blobs/sha256" / digest
        shutil.copyfile(blobs.path(digest), target)
        with target.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                blobs.forget(digest)
                raise PartFailed(f"cannot use the cache {blobs.root}: its blob {digest[:12]} was damaged; build again")
    manifests = [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": f"sha256:{one.image.manifest}",
        "size": (tree / LAYOUT / "blobs/sha256" / one.image.manifest).stat().st_size,
        "platform": dict(one.image.platform),
        "annotations": {REFERENCE: normal(one.reference), "io.paradrop.chute": one.chute,
                        "io.paradrop.service": one.service}}
        for one in sorted(containers, key=lambda one: (one.chute, one.service))]
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests}
    treefiles.write(tree, f"{LAYOUT}/index.json", msgspec.json.encode(index, order="sorted"))
    treefiles.write(tree, f"{LAYOUT}/oci-layout", b'{"imageLayoutVersion":"1.0.0"}')


def _component(one: Container) -> Component:
    name = one.chute if one.service == MAIN else f"{one.chute}-{one.service}"
    files = tuple(f"{LAYOUT}/blobs/sha256/{digest}" for digest in sorted(one.image.blobs))
    return Component("container", name, one.version, tuple(filter(None, [one.image.labels.get(_LICENCES, "")])),
                     f"pkg:oci/{name}@sha256%3A{one.image.manifest}", files, one.image.manifest)
