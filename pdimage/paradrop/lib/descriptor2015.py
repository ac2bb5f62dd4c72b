"""The descriptor as config.yaml of 2015 has it, and as paradrop.yaml had it before services (0.4 to 0.11).

Networks are ``net`` entries of type wan, lan or wifi with their logical name as key; there is one container, which
becomes the service ``main``. The later files keep the same fields below ``config``.
"""

from pathlib import PurePosixPath
from typing import Any

from paradrop.lib import descriptorparts as parts
from paradrop.lib import descriptorports as ports
from paradrop.lib.checks import Fields, matches, max_bytes, not_empty, one_of
from paradrop.lib.chutespec import Download, Interface, Service, Specification, Wireless

MAIN = "main"
_RADIUS = ("auth_server", "auth_secret", "acct_server", "acct_secret", "acct_interval", "nasid")
_LOGICAL_NAME = (max_bytes(10), matches(r"[A-Za-z0-9_.-]+", "letters, digits and _ . -"))
_TYPES = ("wan", "lan", "wifi", "vlan")


# Any of these says, maybe by a default, what the chute is built from
_ORIGINS = ("dockerfile", "download", "external_image", "source", "type", "use", "image", "config")


def read(top: Fields, complete: bool) -> Specification:
    """Return what a descriptor of this form says; mistakes are noted in the fields."""
    if complete and not any(key in top for key in _ORIGINS):
        top.wrong("dockerfile", "missing; say what the chute is built from")
    config = top.fields("config") if "config" in top else top
    holder = {key: top if key in top or config is top else config for key in ("name", "version", "owner", "date")}
    service = _service(top, config)
    found = Specification(
        name=holder["name"].required("name", *parts.NAME),
        version=parts.version(holder["version"], "version"),
        description=top.text("description") or None,
        owner=holder["owner"].text("owner") or None,
        date=parts.date(holder["date"], "date"),
        environment=parts.environment(config.fields("environment")),
        services=(service,),
        firewall=ports.redirects(config, "firewall", service.interfaces),
        web=ports.web(config.fields("web"), MAIN) if "web" in config else None,
        data_dir=parts.inside_path(config, "dataDir"), system_dir=parts.inside_path(config, "systemDir"),
    )
    if config is not top:
        config.close()
    top.close()
    return found


def _service(top: Fields, config: Fields) -> Service:
    host, resources = config.fields("host_config"), config.fields("resources")
    for old in ("binds", "links"):
        if host.get(old):
            host.wrong(old, "no longer possible; what must last goes into the chute's data directory")
    found = Service(
        name=MAIN, path=config.path,
        **_origin(top, config),
        interfaces=tuple(_interface(name, entry) for name, entry in config.fields("net").each()),
        ports=ports.port_bindings(host, "port_bindings"),
        dns=host.texts("dns", *parts.ADDRESS),
        network_mode=host.text("network_mode", one_of("bridge", "host")) or "bridge",
        privileged=host.boolean("privileged"),
        devices=host.texts("devices", *parts.DEVICE),
        cpu_fraction=resources.fraction("cpu_fraction"),
        memory=resources.integer("memory", *ports.MEMORY),
        prioritize_traffic=resources.boolean("prioritize_traffic"),
    )
    host.close()
    resources.close()
    ports.refuse_host_network(config.fields("net"), found)
    parts.refuse_repeated(config.fields("net"), "intfName", (one.intfName for one in found.interfaces))
    return found


def _origin(top: Fields, config: Fields) -> dict[str, Any]:
    """Return the fields of a service that say what its image is made of."""
    kind = top.text("type", one_of("light", "normal"))
    use = top.spelled("use", "image")
    image, external = top.text(use, *parts.IMAGE), config.text("external_image", *parts.IMAGE)
    origin: dict[str, Any] = {
        "command": parts.command(top, "command"), "packages": top.texts("packages", *parts.PACKAGE),
        "image_source": top.text("image_source", *parts.IMAGE), "image_version": top.text("image_version", *parts.TAG),
        "as_root": top.boolean("as_root"),
        "download": parts.download(config.fields("download")) if "download" in config else _git_source(top),
        **_dockerfile(config),
    }
    if "dockerfile" in config and "download" in config:
        config.wrong("download", "there is a dockerfile too; keep one of them")
    if kind == "light":
        for key in (use, "command"):
            if key not in top:
                top.wrong(key, "missing; a light chute needs one")
        return {**origin, "type": "light", "image": image}
    if external or image:
        return {**origin, "type": "image" if origin["dockerfile"] is None else origin["type"],
                "image": external or image}
    return origin


def _git_source(top: Fields) -> Download | None:
    """Return where ``source`` says that the chute is fetched from, None if it does not."""
    if "source" not in top:
        return None
    source = top.fields("source")
    source.text("type", one_of("git", "http"))
    return parts.download(source)


def _dockerfile(config: Fields) -> dict[str, Any]:
    """Return type, source and text of the Dockerfile; on the way to the router it is a text instead of a mapping."""
    if isinstance(config.get("dockerfile"), str):
        return {"type": "inline", "dockerfile": config.text("dockerfile", not_empty)}
    found: dict[str, Any] = {"type": "normal", "dockerfile": None}
    if "dockerfile" not in config:
        return found
    fields = config.fields("dockerfile")
    if len(used := [key for key in ("local", "inline", "remote") if key in fields]) != 1:
        config.wrong("dockerfile", "must have one of local, inline")
    if "remote" in used:
        fields.wrong("remote", "not supported yet")
    if inline := fields.text("inline", not_empty):
        found = {"type": "inline", "dockerfile": inline}
    if local := parts.relative_path(fields, "local"):
        path = PurePosixPath(local)
        if not path.name:
            fields.wrong("local", "must be a file")
        found |= {"source": str(path.parent), "dockerfile_path": path.name if path.name != "Dockerfile" else None}
    fields.get("remote")
    fields.close()
    return found


def _interface(name: str, entry: Fields) -> Interface:
    entry.check_name(name, *_LOGICAL_NAME)
    kind = entry.required("type", one_of(*_TYPES))
    intf_name = entry.required("intfName", *parts.INTERFACE_NAME)
    mode = entry.text("mode", one_of("ap", "sta", "monitor"))
    options = entry.fields("options")
    network = Wireless()
    if kind == "wifi":
        mode = mode or "ap"
        network = parts.wireless(entry, mode, parts.wireless_options(entry, _RADIUS)
                                 | parts.wireless_options(options, options.names()))
    else:
        mode = None
    return parts.interface(entry, name, intf_name, parts.interface_type(kind), mode, network)
