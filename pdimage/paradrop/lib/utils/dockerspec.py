"""What the engine is told to make of a chute's services. Nothing here talks to the engine."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from paradrop.lib import settings
from paradrop.lib.chutespec import Service, Specification
from paradrop.lib.utils.dockerclient import LABEL, SERVICE_LABEL, SPEC_LABEL

RESTART_POLICY = {"Name": "on-failure", "MaximumRetryCount": 5}
RETIRED = ".OLD"
"""What the name of a container ends with while another version of it is tried. Chutes have lower-case names."""


@dataclass(frozen=True)
class ContainerSpec:
    """One container: its chute and service, and the id of its image."""

    chute: Specification
    service: Service
    image: str

    @property
    def name(self) -> str:
        """The chute's name, followed by the service's where there are several."""
        return container_name(self.chute, self.service.name)

    @property
    def network(self) -> str | None:
        """The network that the services of the chute share, under their names; None where there is but one service."""
        if len(self.chute.services) == 1 or self.service.network_mode != "bridge":
            return None
        return network_name(self.chute.name)

    @property
    def labels(self) -> dict[str, str]:
        """What tells our containers, and whether one is still what this describes."""
        return {LABEL: self.chute.name, SERVICE_LABEL: self.service.name, SPEC_LABEL: self.digest}

    @property
    def environment(self) -> dict[str, str]:
        """The variables: the service's before the chute's, and what the router tells every chute."""
        told = {
            "PARADROP_CHUTE_NAME": self.chute.name,
            "PARADROP_CHUTE_VERSION": str(self.chute.version or ""),
            "PARADROP_DATA_DIR": self.chute.data_dir or settings.INTERNAL_DATA_DIR,
            "PARADROP_SYSTEM_DIR": self.chute.system_dir or settings.INTERNAL_SYSTEM_DIR,
        }
        return {**told, **self.chute.environment, **self.service.environment}

    @property
    def volumes(self) -> list[str]:
        """The directories of the router that the chute sees, as ``host:inside:mode``."""
        return [f"{data_dir(self.chute.name)}:{self.chute.data_dir or settings.INTERNAL_DATA_DIR}:rw",
                f"{system_dir(self.chute.name)}:{self.chute.system_dir or settings.INTERNAL_SYSTEM_DIR}:ro"]

    @cached_property
    def ports(self) -> list[tuple[int, str]]:
        """The ports of the container that are bound to ports of the router."""
        return sorted({(port.internal, port.protocol) for port in self.service.ports})

    @cached_property
    def host_options(self) -> dict[str, Any]:
        """Keyword arguments of the SDK's create_host_config, without the share of processor time: it may change."""
        service = self.service
        bindings: dict[str, list[int]] = {}
        for port in service.ports:
            bindings.setdefault(f"{port.internal}/{port.protocol}", []).append(port.external)
        return {
            "binds": self.volumes,
            "port_bindings": bindings,
            "dns": list(service.dns) or None,
            "network_mode": self.network or service.network_mode,
            "restart_policy": RESTART_POLICY,
            "privileged": service.privileged,
            "cap_add": ["NET_ADMIN"],
            "devices": [f"{device}:{device}:rwm" for device in service.devices] or None,
            "mem_limit": service.memory,
        }

    @cached_property
    def digest(self) -> str:
        """A digest of everything that the container is made of."""
        parts = [self.name, self.image, list(self.service.command), self.environment, self.ports, self.host_options]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def container_name(chute: Specification, service: str) -> str:
    """Return the name of a service's container."""
    return chute.name if len(chute.services) == 1 else f"{chute.name}-{service}"


def network_name(chute: str) -> str:
    """Return the name of the network that the services of a chute share."""
    return f"paradrop-{chute}"


def data_dir(chute: str) -> str:
    """Return the directory that a chute's data lasts in."""
    return str(settings.EXTERNAL_DATA_DIR).format(chute=chute)


def system_dir(chute: str) -> str:
    """Return the directory in which the router tells a chute things, such as who has leases."""
    return str(settings.EXTERNAL_SYSTEM_DIR).format(chute=chute)
