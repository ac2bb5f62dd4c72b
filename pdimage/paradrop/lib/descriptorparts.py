"""The parts that both forms of a descriptor have: networks, environment, commands. descriptorports.py has the rest."""

import datetime
import ipaddress
import re
import shlex
from collections import Counter
from collections.abc import Iterable
from typing import cast

from paradrop.lib import settings
from paradrop.lib.checks import (
    Check,
    Fields,
    ip_address,
    matches,
    max_bytes,
    not_empty,
    plain,
    whole_number,
)
from paradrop.lib.chutespec import Dhcp, Download, Interface, InterfaceType, Wireless

# Lower case as image names need it (distribution/reference), short enough for a host name.
NAME = (max_bytes(63), matches(r"[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*",
                               "lower-case letters and digits, with single . _ or - between"),
        matches(r"..+", "two characters or more"))
INTERFACE_NAME = (max_bytes(15), matches(r"(?!\.)[A-Za-z0-9_.-]+", "letters, digits and _ . -"))
SUBNET_SIZES = (8, 29)
PRIVATE = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))  # RFC 1918
PACKAGE = (matches(r"[a-z0-9][a-z0-9+.:=~-]*", "the name of a package"),)
IMAGE = (max_bytes(255), matches(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", "the name of an image or language"))
TAG = (matches(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", "a version such as 3.9-slim"),)
DEVICE = (matches(r"/dev/(?!\.)[A-Za-z0-9_:-][A-Za-z0-9_./:-]*", "a device below /dev"),)
ADDRESS: tuple[Check, ...] = (ip_address,)

_LINE: tuple[Check, ...] = (max_bytes(256), plain)
_SSID: tuple[Check, ...] = (not_empty, max_bytes(32), plain)
_KEY = matches(r"[ -~]{8,63}|[0-9A-Fa-f]{64}", "8 to 63 ASCII characters, or 64 hexadecimal digits")
_ENCRYPTION = matches(r"none|(psk2?|psk-mixed|wpa2?|wpa-mixed)(\+(tkip|ccmp|aes))*",
                      "none, psk2, psk, psk-mixed, wpa2, wpa or wpa-mixed")
_LEASE = matches(r"[1-9][0-9]{0,8}[smhdw]?|infinite", "a time such as 12h, 30m or infinite")
# Options that the router decides or that have a field of their own
_TAKEN_BY_US = frozenset({"device", "network", "mode", "ifname", "ssid", "key", "encryption"})


def environment(fields: Fields) -> dict[str, str]:
    """Return the variables of an ``environment`` field; numbers become text."""
    found = {}
    for key in fields.names():
        value = fields.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            fields.wrong(key, "the name must be letters, digits and _")
        elif not isinstance(value, str):
            fields.wrong(key, "must be text; put it in quotes")
        elif "\0" in value:
            fields.wrong(key, "holds a NUL character")
        else:
            found[key] = value
    return found


def command(fields: Fields, key: str) -> tuple[str, ...]:
    """Return a command, given as a list of words or as one text that is cut as a shell would cut it."""
    if key not in fields:
        return ()
    try:
        words = tuple(shlex.split(fields.text(key) or "")) if isinstance(fields.get(key), str) else fields.texts(key)
    except ValueError:
        fields.wrong(key, "a quote is not closed")
        return ()
    if not words:
        fields.wrong(key, "empty")
    return words


def date(fields: Fields, key: str) -> str | None:
    """Return a date as text, also where YAML made a date of it."""
    value = fields.get(key)
    return value.isoformat() if isinstance(value, datetime.date) else fields.text(key, *_LINE) or None


def version(fields: Fields, key: str) -> int | str | None:
    """Return the version: a number above zero, or a word."""
    value = fields.get(key)
    if isinstance(value, float):
        fields.wrong(key, "must be a whole number or text; put it in quotes")
        return None
    if whole_number(value) is not None:
        return fields.integer(key, 1, 10**9)
    return fields.text(key, max_bytes(64), matches(r"[A-Za-z0-9][A-Za-z0-9_.-]*", "letters, digits and _ . -"))


def download(fields: Fields) -> Download:
    url = fields.required("url", *_LINE, matches(r"https?://[^\s]+", "an http or https address"))
    found = Download(url, *(fields.text(key, *_LINE) or None for key in ("user", "secret", "checkout")))
    fields.close()
    return found


def dhcp(fields: Fields, dns: tuple[str, ...], subnet: str | None) -> Dhcp:
    """Return the ``dhcp`` field of an interface whose subnet is fixed, or else one of the pool."""
    relay = fields.texts("relay", *ADDRESS)
    lease_key = fields.spelled("lease", "leasetime")
    for key in (lease_key, "start", "limit"):
        if key not in fields and "relay" not in fields:
            fields.wrong(key, "missing")
    found = Dhcp(fields.text(lease_key, _LEASE), fields.integer("start", 3, 2**24), fields.integer("limit", 1, 2**24),
                 fields.texts("dns", *ADDRESS) or dns, relay)
    room = ipaddress.ip_network(subnet).num_addresses if subnet else 2 ** (32 - settings.CHUTE_PREFIX_SIZE)
    if found.start and found.limit and found.start + found.limit > room - 2:
        fields.wrong("limit", f"with start {found.start} the last address is beyond the network's {room}")
    fields.close()
    return found


def subnet(fields: Fields, key: str) -> str | None:
    """Return a fixed subnet in the usual notation."""
    text = fields.text(key)
    if text is None:
        return None
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError:
        fields.wrong(key, "must be a network such as 192.168.5.0/24")
        return None
    low, high = SUBNET_SIZES
    if not low <= network.prefixlen <= high or not any(network.subnet_of(private) for private in PRIVATE):
        fields.wrong(key, f"must be a private network (RFC 1918) of /{low} to /{high}")
        return None
    return str(network)


def wireless(fields: Fields, mode: str | None, options: dict[str, str]) -> Wireless:
    """Return a wireless network; options are those that the caller found where its form keeps them."""
    ssid = fields.text("ssid", *_SSID)
    key = fields.text("key", _KEY)
    encryption = fields.text("encryption", _ENCRYPTION) or ("psk2" if "key" in fields else None)
    if mode in ("ap", "sta") and "ssid" not in fields:
        fields.wrong("ssid", "missing")
    if encryption and encryption.startswith("psk") and "key" not in fields:
        fields.wrong("key", f"missing; encryption {encryption} needs one")
    if encryption and encryption.startswith("wpa") and "auth_server" not in options:
        fields.wrong("auth_server", f"missing; encryption {encryption} needs one")
    return Wireless(ssid, key, encryption, options)


def wireless_options(fields: Fields, names: Iterable[str]) -> dict[str, str]:
    """Return those fields of the given names that are there, as options of a wifi-iface section: true is 1."""
    found = {}
    for key in (name for name in names if name in fields):
        value = fields.get(key)
        if key in _TAKEN_BY_US or not re.fullmatch(r"[a-z0-9_]+", key):
            fields.wrong(key, "cannot be an option here")
        elif isinstance(value, bool | int):
            found[key] = str(int(value))
        elif isinstance(value, str) and not plain(value) and len(value) <= 256:
            found[key] = value
        else:
            fields.wrong(key, "must be true, false, a number or a line of text")
    return found


def interface(fields: Fields, name: str, intf_name: str, kind: InterfaceType, mode: str | None,
              network: Wireless) -> Interface:
    """Return an interface from what both forms spell alike: dhcp, dns, ipv4_network, l3bridge, vlan_id."""
    fixed = subnet(fields, "ipv4_network")
    vlan_key = fields.spelled("vlan_id", "vlan-id")
    vlan_id = fields.integer(vlan_key, 1, 4094)
    if kind == "vlan" and vlan_key not in fields:
        fields.wrong(vlan_key, "missing")
    if kind != "wan" and intf_name == "eth0":
        fields.wrong("intfName", "eth0 is the chute's own way out; choose another name")
    dns = fields.texts("dns", *ADDRESS)
    found = Interface(
        name, kind, intf_name, mode, network, dhcp(fields.fields("dhcp"), dns, fixed) if "dhcp" in fields else None,
        _requirements(fields.fields(fields.spelled("requirements", "requests"))), fixed,
        fields.text("l3bridge", *INTERFACE_NAME), vlan_id, fields.path)
    fields.close()
    return found


def interface_type(kind: str) -> InterfaceType:
    """Return a type that was checked as one; anything else, noted before, counts as wan, which asks for nothing."""
    return cast(InterfaceType, kind) if kind in ("wifi", "lan", "vlan") else "wan"


def refuse_repeated(fields: Fields, attribute: str, names: Iterable[str]) -> None:
    """Note a name that two interfaces have."""
    for name, times in Counter(names).items():
        if name and times > 1:
            fields.mistakes.append(f"{fields.path}: {times} interfaces have the {attribute} {name}")


def inside_path(fields: Fields, key: str) -> str | None:
    """Return an absolute path in a container."""
    path = fields.text(key, *_LINE)
    if path is not None and (not path.startswith("/") or set(path) <= {"/"} or ":" in path or ".." in path.split("/")):
        fields.wrong(key, "must be an absolute path, not / itself, without .. and :")
    return path


def relative_path(fields: Fields, key: str) -> str | None:
    """Return a path below the chute's directory."""
    text = fields.text(key, *_LINE, not_empty)
    if text and (text.startswith("/") or ".." in text.split("/")):
        fields.wrong(key, "must be a path below the chute's directory")
        return None
    return text


def _requirements(fields: Fields) -> dict[str, str]:
    found = {}
    for key in fields.names():
        value = fields.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool):
            found[key] = str(value)
        else:
            fields.wrong(key, "must be text or a number")
    return found
