"""The page about the network: interfaces, Wi-Fi and DHCP, as the UCI files have them, without any secret."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.responses import Response

from paradrop.backend.pages.showing import show
from paradrop.backend.pages.visit import Visit
from paradrop.lib import settings
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import uci
from paradrop.lib.utils.ucitext import Section

SECONDS = 2.0
_ENCRYPTION = {"none": "open", "": "open", "psk": "WPA", "psk2": "WPA2", "psk-mixed": "WPA and WPA2", "sae": "WPA3",
               "sae-mixed": "WPA2 and WPA3", "wep": "WEP, which is not safe", "owe": "encrypted, without a password"}


@dataclass(frozen=True)
class Interface:
    """A network of the router. ``owner`` is the chute it belongs to, "" for the router's own."""

    name: str
    device: str
    way: str
    address: str
    owner: str
    leases: str


@dataclass(frozen=True)
class Wifi:
    """A wireless network that the router offers or joins."""

    ssid: str
    mode: str
    protection: str
    radio: str
    channel: str
    network: str
    owner: str
    off: bool


def show_network(visit: Visit) -> Response:
    """Show the network."""
    facts: dict[str, Any] = {"interfaces": [], "wifis": [], "trouble": ""}
    try:
        facts |= {"interfaces": list(interfaces(_read("network"), _read("dhcp"))),
                  "wifis": list(wifis(_read("wireless")))}
    except (ParadropError, OSError) as error:
        facts["trouble"] = str(error)
    failed, known = _failures()
    return show(visit, "network.html", failed=failed, known=known, **facts)


def interfaces(network: list[Section], dhcp: list[Section]) -> Iterator[Interface]:
    """Yield the networks that are configured, the router's own first."""
    pools = {options.get("interface", ""): options for title, options in dhcp if title["type"] == "dhcp"}
    found = [(title, options) for title, options in network if title["type"] == "interface"]
    for title, options in sorted(found, key=lambda section: _owner(section[0])):
        name = title.get("name") or ""
        address = options.get("ipaddr", "")
        if address and options.get("netmask"):
            address += f" / {options['netmask']}"
        proto = str(options.get("proto", ""))
        ways = {"static": "fixed address", "dhcp": "address by DHCP", "none": "no address"}
        way = ways.get(proto, proto)
        devices = [options.get("ifname", ""), *_list(options, "ifname")]
        yield Interface(name, ", ".join(filter(None, devices)), way, address, _owner(title), _leases(pools.get(name)))


def wifis(wireless: list[Section]) -> Iterator[Wifi]:
    """Yield the wireless networks that are configured. Their passwords are left out."""
    radios = {title.get("name", ""): options for title, options in wireless if title["type"] == "wifi-device"}
    modes = {"ap": "offers", "sta": "joins", "monitor": "listens", "mesh": "meshes"}
    for title, options in wireless:
        if title["type"] != "wifi-iface":
            continue
        kind = options.get("encryption", "").partition("+")[0]
        radio = radios.get(options.get("device", ""), {})
        mode = str(options.get("mode", "ap"))
        yield Wifi(options.get("ssid", ""), modes.get(mode, mode), _ENCRYPTION.get(kind, kind),
                   options.get("device", ""), radio.get("channel", ""), options.get("network", ""), _owner(title),
                   "1" in (options.get("disabled"), radio.get("disabled")))


def _leases(pool: Mapping[str, Any] | None) -> str:
    if not pool or pool.get("ignore") == "1":
        return ""
    time = f" for {pool['leasetime']}" if pool.get("leasetime") else ""
    return f"{pool.get('limit', 'some')} addresses{time}"


def _list(options: Mapping[str, Any], name: str) -> list[str]:
    return list(options.get("list", {}).get(name, []))


def _owner(title: Mapping[str, str]) -> str:
    owner = title.get("comment", "")
    return "" if owner == settings.RESERVED_CHUTE else owner


def _read(name: str) -> list[Section]:
    path = Path(settings.UCI_CONFIG_DIR, name)
    return uci.UCIConfig(path).config if path.is_file() else []


def _failures() -> tuple[list[dict[str, Any]], bool]:
    """Return the sections that are not in effect, and whether that is known: pdconfd may be at work."""
    from paradrop.backend.pdconfd import client

    if not settings.PDCONFD_ENABLED:
        return [], True
    try:
        answer = client.callDeferredMethod("WaitSystemUp").result(SECONDS)
        sections: list[dict[str, Any]] = json.loads(answer)
    except (NotYet, ParadropError, OSError, ValueError, TypeError):
        return [], False
    return [section for section in sections if not section["success"]], True
