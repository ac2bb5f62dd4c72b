"""The parts that both forms of a descriptor have: ports, redirects, the web page, what is asked of the router."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from paradrop.lib.checks import Fields, max_bytes, one_of, plain, whole_number
from paradrop.lib.chutespec import Interface, PortBinding, Redirect, Service, Web
from paradrop.lib.descriptorparts import DEVICE

HOST = "@host.lan"
MEMORY = (4 << 20, 1 << 50)  # bytes

_LINE = (max_bytes(256), plain)


def web(fields: Fields, service: str | None) -> Web:
    """Return the ``web`` field; service is the one it is for where the form has only one."""
    port = fields.integer("port", 1, 65535)
    if "port" not in fields:
        fields.wrong("port", "missing")
    name = service or fields.required("service")
    fields.close()
    return Web(name, port or 0)


def requests(fields: Fields) -> dict[str, Any]:
    """Return what a service asks of the router, as the fields of chutespec.Service."""
    key = {name: fields.spelled(name, name.replace("-", "_")) for name in (
        "as-root", "port-bindings", "cpu-fraction", "network-mode", "prioritize-traffic")}
    found = {
        "as_root": fields.boolean(key["as-root"]),
        "ports": port_bindings(fields, key["port-bindings"]),
        "cpu_fraction": fields.fraction(key["cpu-fraction"]),
        "network_mode": fields.text(key["network-mode"], one_of("bridge", "host")) or "bridge",
        "privileged": fields.boolean("privileged"),
        "devices": fields.texts("devices", *DEVICE),
        "memory": fields.integer("memory", *MEMORY),
        "prioritize_traffic": fields.boolean(key["prioritize-traffic"]),
    }
    fields.close()
    return found


def refuse_host_network(fields: Fields, service: Service) -> None:
    """Note that a service which uses the router's own network cannot have interfaces."""
    if service.network_mode == "host" and any(one.wired_in for one in service.interfaces):
        fields.mistakes.append(f"{fields.path or 'net'}: there can be no interfaces with the router's own network "
                               "(network mode host)")


def port_bindings(fields: Fields, key: str) -> tuple[PortBinding, ...]:
    """Return ports given as ``{internal: external}`` or as a list of ``{external, internal, protocol}``."""
    value = fields.get(key)
    if isinstance(value, Mapping):
        bindings = [_port(fields, f"{key}.{inside}", inside, outside, None) for inside, outside in value.items()]
    else:
        bindings = []
        for item in fields.mappings(key):
            place = item.path[len(fields.path) + 1:] if fields.path else item.path
            bindings.append(_port(fields, place, item.get("internal"), item.get("external"),
                                  item.text("protocol", one_of("tcp", "udp"))))
            item.close()
    seen: set[tuple[int, str]] = set()
    for binding in filter(None, bindings):
        if (binding.external, binding.protocol) in seen:
            fields.wrong(key, f"port {binding.external}/{binding.protocol} of the router is bound twice")
        seen.add((binding.external, binding.protocol))
    return tuple(binding for binding in bindings if binding)


def _port(fields: Fields, place: str, inside: object, outside: object, protocol: str | None) -> PortBinding | None:
    if isinstance(inside, str) and "/" in inside:
        inside, _, protocol = inside.partition("/")
    internal, external = whole_number(inside), whole_number(outside)
    if internal is None or external is None or not (0 < internal < 65536 and 0 < external < 65536):
        fields.wrong(place, "must say a port of the chute and one of the router, each from 1 to 65535")
        return None
    if protocol not in (None, "tcp", "udp"):
        fields.wrong(place, "must be one of tcp, udp")
        return None
    return PortBinding(internal, external, protocol or "tcp", fields.at(place))


def redirects(fields: Fields, key: str, interfaces: tuple[Interface, ...]) -> tuple[Redirect, ...]:
    """Return the redirects of a ``firewall`` field."""
    found = []
    for rule in fields.mappings(key):
        kind, name = rule.required("type"), rule.text("name", *_LINE) or ""
        source, target = _side(rule, "from"), _side(rule, "to")
        rule.close()
        if kind and kind != "redirect":
            rule.wrong("type", "only redirect is known")
        elif source is None or target is None:
            continue
        elif source[0] != HOST:
            rule.wrong("from", f"must be {HOST} and a port; other directions are not implemented")
        elif target[0] == HOST:
            rule.wrong("to", "must be an interface of the chute")
        elif not any(fnmatchcase(one.name, target[0]) for one in interfaces if one.wired_in):
            rule.wrong("to", f"no interface of the chute is called {target[0]}")
        else:
            found.append(Redirect(name, source[1], target[0], target[1], rule.path))
    return tuple(found)


def _side(rule: Fields, key: str) -> tuple[str, int | None] | None:
    """Return the name and port of one end of a redirect, None if it is wrong."""
    text = rule.required(key, *_LINE)
    name, colon, port = text.partition(":")
    if not text:
        return None
    if not name or (colon and not 0 < (whole_number(port) or 0) < 65536):
        rule.wrong(key, "must be a name, or a name and a port from 1 to 65535 with : between")
        return None
    return name, int(port) if colon else None
