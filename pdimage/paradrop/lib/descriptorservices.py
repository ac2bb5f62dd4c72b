"""The descriptor as paradrop.yaml has it since 0.12: a chute is one or more services, each a container."""

from paradrop.lib import descriptorparts as parts
from paradrop.lib import descriptorports as ports
from paradrop.lib.checks import Fields, not_empty, one_of
from paradrop.lib.chutespec import Interface, Service, Specification, Wireless

_TYPES = ("wifi-ap", "wifi-sta", "wifi-monitor", "vlan", "lan", "wan")


def read(top: Fields) -> Specification:
    """Return what a descriptor of this form says; mistakes are noted in the fields."""
    entries = top.fields("services")
    services = tuple(_service(name, entry) for name, entry in entries.each())
    if not services:
        top.wrong("services", "there must be one at least")
    interfaces = tuple(interface for service in services for interface in service.interfaces)
    parts.refuse_repeated(entries, "name", (interface.name for interface in interfaces))
    found = Specification(
        name=top.required("name", *parts.NAME),
        version=parts.version(top, "version"),
        description=top.text("description") or None,
        owner=top.text("owner") or None,
        date=parts.date(top, "date"),
        environment=parts.environment(top.fields("environment")),
        services=services,
        firewall=ports.redirects(top, "firewall", interfaces),
        web=ports.web(top.fields("web"), None) if "web" in top else None,
        data_dir=parts.inside_path(top, "dataDir"), system_dir=parts.inside_path(top, "systemDir"),
    )
    if found.web and found.web.service not in entries.names():
        top.wrong("web.service", f"there is no service {found.web.service}")
    _refuse_shared_ports(services, top.mistakes)
    top.close()
    return found


def _refuse_shared_ports(services: tuple[Service, ...], mistakes: list[str]) -> None:
    owners: dict[tuple[int, str], str] = {}
    for service in services:
        for port in service.ports:
            owner = owners.setdefault((port.external, port.protocol), service.name)
            if owner != service.name:
                mistakes.append(f"{port.path}: the service {owner} has port {port.external}/{port.protocol} too")


def _service(name: str, entry: Fields) -> Service:
    entry.check_name(name, *parts.NAME)
    build, requests = entry.fields("build"), entry.fields("requests")
    found = Service(
        name=name, path=entry.path,
        type=entry.text("type", one_of("light", "normal", "image", "inline")) or "normal",
        source=parts.relative_path(entry, "source") or ".",
        dockerfile=entry.text("dockerfile", not_empty),
        dockerfile_path=parts.relative_path(entry, "dockerfile-path"),
        download=parts.download(entry.fields("download")) if "download" in entry else None,
        image=entry.text("image", *parts.IMAGE),
        command=parts.command(entry, "command"),
        packages=build.texts("packages", *parts.PACKAGE),
        image_source=build.text("image_source", *parts.IMAGE), image_version=build.text("image_version", *parts.TAG),
        environment=parts.environment(entry.fields("environment")),
        dns=entry.texts("dns", *parts.ADDRESS),
        interfaces=tuple(_interface(key, fields) for key, fields in entry.fields("interfaces").each()),
        **ports.requests(requests),
    )
    needs = {"light": ("image", "command"), "image": ("image",), "inline": ("dockerfile",)}
    for key in needs.get(found.type, ()):
        if key not in entry:
            entry.wrong(key, f"missing; a service of type {found.type} needs it")
    ports.refuse_host_network(entry, found)
    build.close()
    entry.close()
    return found


def _interface(intf_name: str, entry: Fields) -> Interface:
    entry.check_name(intf_name, *parts.INTERFACE_NAME)
    kind, _, mode = entry.required("type", one_of(*_TYPES)).partition("-")
    network = Wireless()
    if kind == "wifi":
        wireless = entry.fields("wireless")
        own = {"ssid", "key", "encryption"}
        network = parts.wireless(wireless, mode, parts.wireless_options(
            wireless, [name for name in wireless.names() if name not in own]))
        wireless.close()
    elif entry.get("wireless") is not None:
        entry.wrong("wireless", "only interfaces of a wifi type have it")
    name = entry.text("name", *parts.INTERFACE_NAME) or intf_name
    return parts.interface(entry, name, intf_name, parts.interface_type(kind), mode or None, network)
