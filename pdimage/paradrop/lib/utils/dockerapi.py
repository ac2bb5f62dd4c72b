"""Functions that deploy and clean up the containers of a chute.

All are plans, or undo of plans, of an update; each may be run again, or after only half of it was done.

::

    running version        prepareImages      retire                startChute         save   cleanUp
    ─────────────────────────────────────────●stopped, NAME.OLD─────────────────────────●──────────────removed
    new version                 ●image──────────────────────────────●NAME, running──────────────────────────────
                           (up to here an abort, or a kill, brings the running version back)
"""

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from paradrop.lib import descriptor, settings
from paradrop.lib.chute import Chute
from paradrop.lib.utils import containers, dockerbuild, netns, pdosq
from paradrop.lib.utils.dockerclient import SPEC_LABEL, DockerError, connect
from paradrop.lib.utils.dockerspec import RETIRED, ContainerSpec, container_name

if TYPE_CHECKING:
    from paradrop.backend.fc.updateObject import UpdateObject

log = logging.getLogger(__name__)


def prepareImages(update: "UpdateObject") -> None:
    """Have an image for each service: the chute's own if the engine still has it, else load, pull or build it.

    Nothing of the running router changes. Stored in the cache key images: ``{service: {id, owned}}``; owned images go
    when the chute does. Progress goes to the one who asked.
    """
    client = connect()
    known = update.new.getCache("images") or {}
    owned = containers.owned_images(*update.chuteStor.getChuteList())
    images: dict[str, dict[str, Any]] = {}
    for service, source in (update.new.getCache("virtPreamble") or {}).items():
        entry = known.get(service)
        if entry is None or dockerbuild.find(client, entry["id"]) is None:
            image = dockerbuild.obtain(client, source, update.progress)
            if image.fresh:
                update.new.appendCache("freshImages", image.id)
            entry = {"id": image.id, "owned": image.fresh or image.built or image.id in owned}
        images[service] = entry
    update.new.setCache("images", images)


def removeNewImages(update: "UpdateObject") -> None:
    """Remove the images that prepareImages added to the engine."""
    for image in update.new.getCache("freshImages") or []:
        containers.remove_image(image)


def retireContainers(update: "UpdateObject") -> None:
    """Stop the containers of the old chute that cannot go on as they are, and free their names.

    A container that is already what the new chute asks for keeps its name, and at a start is left alone.
    """
    wanted = {spec.service.name: spec.digest for spec in specs(update)}
    for service, container in containers.recorded(update.old).items():
        found = containers.inspect(container)
        if found is None:
            continue
        same = found["Config"]["Labels"].get(SPEC_LABEL) == wanted.get(service)
        if not same or not (update.boot or update.updateType == "start"):
            containers.stop(container)
        if not same:
            containers.rename(container, containers.name_of(found).removesuffix(RETIRED) + RETIRED)


def reviveContainers(update: "UpdateObject") -> None:
    """Put the old chute's containers back: their names, whether they run, and their interfaces.

    Raises:
        DockerError: one is gone, or cannot be put back; the others are.
    """
    if update.old is None:
        return
    names = {service.name: container_name(spec, service.name)
             for spec in [descriptor.parse(update.old.descriptor)] for service in spec.services}
    failed: list[str] = []
    for service, container in containers.recorded(update.old).items():
        try:
            containers.rename(container, names[service])
            (containers.start if update.old.state == "running" else containers.stop)(container)
        except DockerError as error:
            failed.append(error.message)
    if failed:
        raise DockerError("; ".join(failed))
    if update.old.state == "running":
        wire_up(update.old)


def startChute(update: "UpdateObject") -> None:
    """Build and deploy the chute's containers: an image that prepareImages has not got yet, containers, interfaces.

    A container that is there and is what the chute asks for is started again; any other is made anew.
    Stored in the cache key containers: ``{service: id}``.

    Raises:
        ParadropError: something of this failed, or a container ended at once with an error.
    """
    if update.new.getCache("images") is None:
        prepareImages(update)
    known = containers.recorded(update.new)
    running: dict[str, str] = {}
    started: list[str] = []
    update.new.setCache("containers", running)
    for spec in specs(update):
        shares = shares_of(update, spec.service.name)
        found = containers.inspect(known[spec.service.name]) if spec.service.name in known else None
        if found is not None and found["Config"]["Labels"].get(SPEC_LABEL) == spec.digest:
            running[spec.service.name] = str(found["Id"])
            if shares is not None and found["HostConfig"].get("CpuShares") != shares:
                containers.set_shares(found["Id"], shares)
        else:
            found = None
            running[spec.service.name] = containers.create(spec, shares)
        if found is None or not found["State"]["Running"]:
            containers.start(running[spec.service.name])
            started.append(running[spec.service.name])
    setup_net_interfaces(update)
    containers.settle(update.name, started)


def restartChute(update: "UpdateObject") -> None:
    """Start the chute's containers again; those that are gone, or not what the chute asks for, are made anew."""
    startChute(update)


def removeNewContainers(update: "UpdateObject") -> None:
    """Remove the containers and wires that startChute made, and the network if the chute is a new one."""
    old = set(containers.recorded(update.old).values())
    for container in containers.ours(update.name):
        if container["Id"] not in old:
            containers.remove(container["Id"])
    _disconnect(update.new)
    if update.old is None:
        containers.remove_network(update.name)


def stopChute(update: "UpdateObject") -> None:
    """Stop the chute's containers: politely, and after DOCKER_STOP_TIMEOUT seconds by force."""
    for container in containers.ours(update.name):
        containers.stop(container["Id"])
    if update.old is not None:
        _disconnect(update.old)


def removeChute(update: "UpdateObject") -> None:
    """Remove the chute's containers and network and the images they were built on, of its previous version too.

    Images that another chute uses stay.
    """
    for container in containers.ours(update.name):
        containers.remove(container["Id"])
    containers.remove_network(update.name)
    _remove_images(update, containers.owned_images(update.old))


def cleanUp(update: "UpdateObject") -> None:
    """Remove what the new version made superfluous: old containers, and images older than the previous version."""
    keep = set(containers.recorded(update.new).values())
    for container in containers.ours(update.name):
        if container["Id"] not in keep:
            containers.remove(container["Id"])
    _remove_images(update, containers.owned_images(update.old) - containers.owned_images(update.new))
    for spec in specs(update):
        if spec.image in containers.our_images(update.name):
            containers.tag_image(spec.image, f"paradrop/{spec.name}", str(spec.chute.version or "latest"))


def setup_net_interfaces(update: "UpdateObject") -> None:
    """Link the interfaces of the host to the interfaces of the chute, in the containers' network namespaces."""
    wire_up(update.new)


def wire_up(chute: Chute) -> None:
    """Give the running containers of a chute the interfaces that its cache key networkInterfaces lists.

    Raises:
        ParadropError: a container does not run, or the interface cannot be made.
    """
    known = containers.recorded(chute)
    for wire in wires(chute):
        found = containers.inspect(known.get(wire.service, ""))
        if found is None or not found["State"]["Pid"]:
            raise DockerError(f"cannot connect {wire.internal} of {chute.name}: its container does not run")
        netns.connect(wire, int(found["State"]["Pid"]))


def wires(chute: Chute) -> list[netns.Wire]:
    """Return the wires for a chute's networkInterfaces. Those without an address there have no end in the chute."""
    return [netns.Wire(record.get("bridge") or record["externalIntf"], record["internalIntf"],
                       record["ipaddrWithPrefix"], record["service"], record.get("externalIpaddr"))
            for record in chute.getCache("networkInterfaces") or [] if record.get("ipaddrWithPrefix")]


def _disconnect(chute: Chute) -> None:
    """Remove the host's ends of a chute's wires; the kernel does so too, but some time after a container has ended."""
    for wire in wires(chute):
        netns.disconnect(wire)


def specs(update: "UpdateObject") -> list[ContainerSpec]:
    """Return the containers that the new chute asks for; none if it is to be stopped or deleted."""
    images = update.new.getCache("images") or {}
    if not update.new.descriptor.keys() - {"name"}:
        return []
    chute = descriptor.parse(update.new.descriptor)
    return [ContainerSpec(chute, service, images[service.name]["id"]) for service in chute.services]


def shares_of(update: "UpdateObject", service: str) -> int | None:
    """Return a service's share of processor time as the cache key cpuShares has it, None for the usual one."""
    shares: int | None = (update.new.getCache("cpuShares") or {}).get(service)
    return shares


def build_host_config(update: "UpdateObject", service: str | None = None) -> dict[str, Any]:
    """Return the host_config that the engine needs to make the container of a service, by default the first one."""
    spec = next(spec for spec in specs(update) if service in (None, spec.service.name))
    return containers.host_config(spec, shares_of(update, spec.service.name))


def failAndCleanUpDocker(validImages: list[dict[str, Any]], validContainers: list[dict[str, Any]]) -> NoReturn:
    """Remove the chutes' containers and images that are not among the valid ones, and raise.

    Args:
        validImages: the images that should exist, each a dict with its ``Id``.
        validContainers: the containers, likewise.

    Only what carries our label is removed: somebody else may be at work on this engine.

    Raises:
        DockerError: always.
    """
    valid = {entry["Id"] if isinstance(entry, dict) else entry for entry in [*validImages, *validContainers]}
    for container in containers.ours():
        if container["Id"] not in valid:
            containers.remove(container["Id"])
    for image in containers.our_images():
        if image not in valid:
            containers.remove_image(image)
    raise DockerError(dockerbuild.BUILD_FAILED)


def writeDockerConfig() -> None:
    """Tell the engine, in its start script's options, not to start containers by itself when the router starts.

    Their interfaces are not there yet by then. Other lines of the file stay as they are.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(settings.DOCKER_CONFIG_FILE)
    text = path.read_text() if path.exists() else ""
    found = re.search(r"^DOCKER_OPTS=([\"']?)(.*?)\1[ \t]*$", text, re.MULTILINE)
    if found is None:
        new = text + ("" if not text or text.endswith("\n") else "\n") + 'DOCKER_OPTS="--restart=false"\n'
    elif "--restart=false" in found.group(2).split():
        return
    else:
        new = text[:found.start()] + f'DOCKER_OPTS="{found.group(2)} --restart=false"' + text[found.end():]
    pdosq.makedirs(path.parent)
    pdosq.replaceFile(path, new.encode())


def _remove_images(update: "UpdateObject", images: set[str]) -> None:
    """Remove images, unless another chute uses them or the engine refuses: some other container may run from one."""
    others = [chute for chute in update.chuteStor.getChuteList() if chute.name != update.name]
    for image in images - containers.owned_images(*others):
        try:
            containers.remove_image(image)
        except DockerError as error:
            log.info("%s", error.message)
