"""Single steps on the engine's containers, images and networks. Each is idempotent, and touches only what is ours."""

import logging
import time
from collections.abc import Collection
from typing import Any

from paradrop.lib import settings
from paradrop.lib.chute import Chute
from paradrop.lib.utils.dockerclient import LABEL, DockerError, NotFound, connect, translated
from paradrop.lib.utils.dockerspec import ContainerSpec, network_name

log = logging.getLogger(__name__)

LOOK_TIMEOUT = 3.0
"""Seconds that somebody waits who only wants to see what runs."""

_POLL = 0.1
_LAST_LINES = 20


def ours(chute: str | None = None) -> list[dict[str, Any]]:
    """Return the containers, running or not, of a chute or of all, as the engine lists them."""
    with translated("cannot list containers"):
        return list(connect().containers(all=True, filters={"label": _label(chute)}))


def live() -> dict[str, tuple[str, str]] | None:
    """Return how the containers of all chutes are, by id, as the engine says it: a word and a sentence.

    The word is created, running, paused, restarting, removing, exited or dead; the sentence goes like
    ``Exited (1) 3 minutes ago``. None if the engine does not answer within LOOK_TIMEOUT seconds.
    """
    try:
        with translated("cannot see how the containers are"):
            found = connect(LOOK_TIMEOUT).containers(all=True, filters={"label": LABEL})
    except DockerError as error:
        log.warning("%s", error.message)
        return None
    return {str(item["Id"]): (str(item["State"]), str(item["Status"])) for item in found}


def our_images(chute: str | None = None) -> list[str]:
    """Return the ids of the images that were built for a chute, or for any."""
    with translated("cannot list images"):
        return [str(image["Id"]) for image in connect().images(filters={"label": _label(chute)})]


def our_networks() -> list[dict[str, Any]]:
    """Return the networks of all chutes, as the engine lists them."""
    with translated("cannot list networks"):
        return list(connect().networks(filters={"label": LABEL}))


def inspect(container: str) -> dict[str, Any] | None:
    """Return what the engine knows of a container, None if there is none."""
    try:
        with translated(f"cannot look at the container {container[:12]}"):
            found: dict[str, Any] = connect().inspect_container(container)
            return found
    except NotFound:
        return None


def create(spec: ContainerSpec, shares: int | None) -> str:
    """Make a container and return its id.

    Raises:
        DockerError: the engine refused, for example because something else has the name or a port.
    """
    client = connect()
    networking = None
    if spec.network is not None:
        ensure_network(spec.chute.name)
        endpoint = client.create_endpoint_config(aliases=[spec.service.name])
        networking = client.create_networking_config({spec.network: endpoint})
    with translated(f"cannot make the container {spec.name}"):
        made = client.create_container(
            image=spec.image, name=spec.name, command=list(spec.service.command) or None,
            environment=spec.environment, labels=spec.labels, ports=spec.ports or None,
            host_config=host_config(spec, shares), networking_config=networking)
    return str(made["Id"])


def host_config(spec: ContainerSpec, shares: int | None) -> dict[str, Any]:
    """Return the engine's host configuration for a container."""
    with translated(f"cannot configure the container {spec.name}"):
        found: dict[str, Any] = connect().create_host_config(**spec.host_options, cpu_shares=shares)
        return found


def start(container: str) -> None:
    """Start a container; one that runs already goes on."""
    with translated("cannot start the container"):
        connect().start(container)


def stop(container: str) -> None:
    """Stop a container, after DOCKER_STOP_TIMEOUT seconds by force; one that does not run, or is gone, is no harm."""
    try:
        with translated("cannot stop the container"):
            connect().stop(container, timeout=int(settings.DOCKER_STOP_TIMEOUT))
    except NotFound:
        log.info("container %s is gone already", container[:12])


def rename(container: str, name: str) -> None:
    """Give a container a name, if it has another."""
    found = inspect(container)
    if found is not None and name_of(found) != name:
        with translated(f"cannot name the container {name}"):
            connect().rename(container, name)


def name_of(found: dict[str, Any]) -> str:
    """Return the name of a container that was inspected."""
    return str(found["Name"]).removeprefix("/")


def remove(container: str) -> None:
    """Remove a container, also a running one; one that is gone is no harm."""
    try:
        with translated("cannot remove the container"):
            connect().remove_container(container, force=True, v=True)
    except NotFound:
        log.info("container %s is gone already", container[:12])


def remove_image(image: str) -> None:
    """Remove an image with its tags and the layers that nobody else uses; one that is gone is no harm."""
    try:
        with translated(f"cannot remove the image {image}"):
            client = connect()
            for tag in client.inspect_image(image).get("RepoTags") or []:
                if tag.startswith("paradrop/"):
                    client.remove_image(tag)
            client.remove_image(image)
    except NotFound:
        log.info("image %s is gone already", image)


def tag_image(image: str, repository: str, tag: str) -> None:
    """Name an image for people."""
    with translated(f"cannot name the image {repository}:{tag}"):
        connect().tag(image, repository, tag=tag, force=True)


def ensure_network(chute: str) -> None:
    """Make the network that the services of a chute share, if it is not there."""
    name = network_name(chute)
    with translated(f"cannot make the network {name}"):
        client = connect()
        if not client.networks(names=[name]):
            client.create_network(name, driver="bridge", labels={LABEL: chute}, check_duplicate=True)


def remove_network(chute: str) -> None:
    """Remove the network that the services of a chute share; if there is none, it is no harm."""
    name = network_name(chute)
    with translated(f"cannot remove the network {name}"):
        client = connect()
        for network in client.networks(names=[name], filters={"label": LABEL}):
            client.remove_network(network["Id"])


def set_shares(container: str, shares: int) -> None:
    """Set a container's share of processor time (1024 is the usual one); works with cgroup v1 and v2."""
    with translated("cannot set the container's share of processor time"):
        connect().update_container(container, cpu_shares=shares)


def settle(name: str, containers: Collection[str]) -> None:
    """Wait CHUTE_SETTLE_TIME seconds and see that no container ends with an error meanwhile.

    One that ends by itself with status 0 has done what it is for.

    Raises:
        DockerError: one ended; with the last lines of its output.
    """
    end = time.monotonic() + float(settings.CHUTE_SETTLE_TIME)
    restarts: dict[str, int] = {}
    while containers:
        for container in containers:
            found = inspect(container) or {}
            state = found.get("State") or {}
            count = found.get("RestartCount") or 0
            again = count != restarts.setdefault(container, count)
            if not state or again or state["Restarting"] or (state["ExitCode"] and not state["Running"]):
                said = last_lines(container).strip()
                raise DockerError(f"cannot start {name}: its container ended at once with status "
                                  f"{state.get('ExitCode')}" + (f"\n{said}" if said else ""))
        if time.monotonic() >= end:
            return
        time.sleep(_POLL)


def last_lines(container: str) -> str:
    """Return the end of a container's output, "" if it cannot be had."""
    try:
        with translated("cannot read the container's output"):
            output: bytes = connect().logs(container, tail=_LAST_LINES)
            return output.decode(errors="replace")
    except DockerError:
        return ""


def recorded(chute: Chute | None) -> dict[str, str]:
    """Return the ids of a chute's containers by service, as its cache has them."""
    return dict((chute and chute.getCache("containers")) or {})


def owned_images(*chutes: Chute | None) -> set[str]:
    """Return the ids of the images that came for these chutes, those of their previous versions included."""
    versions = [chute.getCache(key) for chute in chutes if chute is not None for key in ("images", "previousImages")]
    return {entry["id"] for images in versions for entry in (images or {}).values() if entry["owned"]}


def _label(chute: str | None) -> str:
    return LABEL if chute is None else f"{LABEL}={chute}"
