"""What a chute asks of the router, checked and typed. descriptor.py makes these from what users write.

::

    Specification
    ├── services: Service
    │   ├── interfaces: Interface ── wireless: Wireless, dhcp: Dhcp
    │   └── ports: PortBinding
    ├── firewall: Redirect
    └── web: Web

``path`` says where in the user's document a part stands, for messages; it takes no part in comparisons.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

InterfaceType = Literal["wifi", "lan", "wan", "vlan"]


@dataclass(frozen=True)
class Dhcp:
    """A DHCP server for clients of an interface. start counts from the network's address; limit is how many.

    With ``relay``, servers elsewhere are asked instead and the rest may be None.
    """

    lease: str | None = None
    start: int | None = None
    limit: int | None = None
    dns: tuple[str, ...] = ()
    relay: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wireless:
    """A wireless network. ``options`` go into the wifi-iface section as they are."""

    ssid: str | None = None
    key: str | None = None
    encryption: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Interface:
    """A network interface of a service.

    name: what rules call it. intfName: what it is called in the chute. mode: ap, sta or monitor, for wifi.
    requirements: what the radio's section must say, such as hwmode. ipv4_network: a fixed subnet, as CIDR.
    """

    name: str
    type: InterfaceType
    intfName: str
    mode: str | None = None
    wireless: Wireless = Wireless()
    dhcp: Dhcp | None = None
    requirements: Mapping[str, str] = field(default_factory=dict)
    ipv4_network: str | None = None
    l3bridge: str | None = None
    vlan_id: int | None = None
    path: str = field(default="", compare=False)

    @property
    def wired_in(self) -> bool:
        """Whether the chute gets an interface and a subnet of its own; not so for wan, which Docker provides."""
        return self.type != "wan"


@dataclass(frozen=True)
class PortBinding:
    """A port of the router that leads to one of the service."""

    internal: int
    external: int
    protocol: str = "tcp"
    path: str = field(default="", compare=False)


@dataclass(frozen=True)
class Download:
    """Where the chute's source is fetched from."""

    url: str
    user: str | None = None
    secret: str | None = None
    checkout: str | None = None


@dataclass(frozen=True)
class Service:
    """One container.

    type: normal (built from a Dockerfile in ``source``), inline (the text ``dockerfile``), light (a language's
    template), image (taken as it is). dockerfile_path: a Dockerfile elsewhere than ``source``/Dockerfile.
    memory: bytes. cpu_fraction: share of the router's processors, 0 to 1.
    """

    name: str
    type: str = "normal"
    source: str = "."
    dockerfile: str | None = None
    dockerfile_path: str | None = None
    download: Download | None = None
    image: str | None = None
    command: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    image_source: str | None = None
    image_version: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    dns: tuple[str, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    ports: tuple[PortBinding, ...] = ()
    as_root: bool = False
    privileged: bool = False
    network_mode: str = "bridge"
    devices: tuple[str, ...] = ()
    cpu_fraction: float | None = None
    memory: int | None = None
    prioritize_traffic: bool = False
    path: str = field(default="", compare=False)


@dataclass(frozen=True)
class Redirect:
    """Connections from the WAN side to a port (None: to any) go to the first interface that ``to`` matches.

    ``to`` is an interface's name, where * and ? stand for any text and any character.
    """

    name: str
    port: int | None
    to: str
    to_port: int | None
    path: str = field(default="", compare=False)


@dataclass(frozen=True)
class Web:
    """The page of the chute: a port of one of its services."""

    service: str
    port: int


@dataclass(frozen=True)
class Specification:
    """All that a descriptor says."""

    name: str
    version: int | str | None = None
    description: str | None = None
    owner: str | None = None
    date: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    services: tuple[Service, ...] = ()
    firewall: tuple[Redirect, ...] = ()
    web: Web | None = None
    data_dir: str | None = None
    system_dir: str | None = None

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """The interfaces of all services."""
        return tuple(interface for service in self.services for interface in service.interfaces)

    def service_of(self, interface: Interface) -> Service:
        """Return the service that has an interface."""
        return next(service for service in self.services if interface in service.interfaces)

    def document(self) -> dict[str, Any]:
        """Return the descriptor in the newer form, with services; parsing it gives an equal specification."""
        web = self.web and {"service": self.web.service, "port": self.web.port}
        return _without_nothing({
            "name": self.name, "version": self.version, "description": self.description, "owner": self.owner,
            "date": self.date, "environment": dict(self.environment),
            "services": {service.name: _service(service) for service in self.services},
            "firewall": [_without_nothing(dict(_redirect(rule))) for rule in self.firewall],
            "web": web, "dataDir": self.data_dir, "systemDir": self.system_dir,
        })


def _redirect(rule: Redirect) -> Iterator[tuple[str, str]]:
    yield "type", "redirect"
    yield "name", rule.name
    yield "from", "@host.lan" + (f":{rule.port}" if rule.port else "")
    yield "to", rule.to + (f":{rule.to_port}" if rule.to_port else "")


def _service(service: Service) -> dict[str, Any]:
    build = {"packages": list(service.packages), "image_source": service.image_source,
             "image_version": service.image_version}
    download = service.download
    requests = {
        "as-root": service.as_root, "privileged": service.privileged, "devices": list(service.devices),
        "network-mode": service.network_mode if service.network_mode != "bridge" else None,
        "cpu-fraction": service.cpu_fraction, "memory": service.memory,
        "prioritize-traffic": service.prioritize_traffic,
        "port-bindings": [_without_nothing({"external": port.external, "internal": port.internal,
                                            "protocol": port.protocol if port.protocol != "tcp" else None})
                          for port in service.ports],
    }
    return _without_nothing({
        "type": service.type, "source": service.source if service.source != "." else None,
        "dockerfile": service.dockerfile, "dockerfile-path": service.dockerfile_path,
        "download": download and _without_nothing({"url": download.url, "user": download.user,
                                                   "secret": download.secret, "checkout": download.checkout}),
        "image": service.image, "command": list(service.command), "build": _without_nothing(build),
        "environment": dict(service.environment), "dns": list(service.dns),
        "interfaces": {interface.intfName: _interface(interface) for interface in service.interfaces},
        "requests": _without_nothing(requests),
    })


def _interface(interface: Interface) -> dict[str, Any]:
    dhcp, wireless = interface.dhcp, interface.wireless
    return _without_nothing({
        "type": f"wifi-{interface.mode}" if interface.type == "wifi" else interface.type,
        "name": interface.name if interface.name != interface.intfName else None,
        "dhcp": dhcp and _without_nothing({"lease": dhcp.lease, "start": dhcp.start, "limit": dhcp.limit,
                                           "relay": list(dhcp.relay)}),
        "dns": list(dhcp.dns) if dhcp else None,
        "wireless": _without_nothing({"ssid": wireless.ssid, "key": wireless.key,
                                      "encryption": wireless.encryption, **wireless.options}),
        "requirements": dict(interface.requirements), "ipv4_network": interface.ipv4_network,
        "l3bridge": interface.l3bridge, "vlan_id": interface.vlan_id,
    })


def _without_nothing(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing: None, False and what is empty."""
    return {key: value for key, value in document.items()
            if value is not None and value is not False and value not in ("", [], {}, ())}
