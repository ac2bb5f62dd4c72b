"""Every type of update of a chute: what goes before it, what it is given, and how the router must be afterwards."""

import time
from pathlib import Path
from typing import Any

from engine import Router

from paradrop.lib import settings
from paradrop.lib.utils import dockerclient

FIRST = {
    "name": "wired", "version": 1, "dockerfile": 'FROM busybox\nENV BUILD=1\nCMD ["sleep", "1000"]\n',
    "net": {"lan": {"type": "lan", "intfName": "port0", "dhcp": {"lease": "12h", "start": 100, "limit": 50}}},
    "host_config": {"port_bindings": {80: 9001}, "dns": ["192.0.2.53"]}, "environment": {"MODE": "one"},
    "firewall": [{"type": "redirect", "name": "web", "from": "@host.lan:8080", "to": "lan:80"}],
}
SECOND = {**FIRST, "version": 2, "dockerfile": 'FROM busybox\nENV BUILD=2\nCMD ["sleep", "2000"]\n',
          "host_config": {"port_bindings": {81: 9001}}, "environment": {"MODE": "two"}}

OTHER = {"name": "wired", "environment": {"MODE": "other"}}
# For each type of update: what goes before it, and what it is given
PIPELINES: dict[str, tuple[list[tuple[str, dict[str, Any]]], dict[str, Any]]] = {
    "create": ([], FIRST),
    "update": ([("create", FIRST)], SECOND),
    "rollback": ([("create", FIRST), ("update", SECOND)], {"name": "wired"}),
    "restart": ([("create", FIRST)], OTHER),
    "stop": ([("create", FIRST)], {"name": "wired"}),
    "start": ([("create", FIRST), ("stop", {"name": "wired"})], {"name": "wired"}),
    "delete": ([("create", FIRST)], {"name": "wired"}),
}
# What of the chute is stored before an update, and after it: its state, version, variables
OUTCOMES: dict[str, tuple[Any, Any]] = {
    "create": (None, ("running", 1, "one")),
    "update": (("running", 1, "one"), ("running", 2, "two")),
    "rollback": (("running", 2, "two"), ("running", 1, "one")),
    "restart": (("running", 1, "one"), ("running", 1, "other")),
    "stop": (("running", 1, "one"), ("stopped", 1, "one")),
    "start": (("stopped", 1, "one"), ("running", 1, "one")),
    "delete": (("running", 1, "one"), None),
}


def outcome(router: Router) -> tuple[Any, ...] | None:
    """Return what of the chute is stored, in the form of OUTCOMES."""
    stored = router.store().get("wired")
    return stored and (stored["state"], stored["version"], stored["environment"]["MODE"])


def prepare(router: Router, kind: str) -> dict[str, Any]:
    """Bring the router to where an update of that type begins; return what the update is given."""
    before, values = PIPELINES[kind]
    for earlier, given in before:
        router.do(earlier, **given)
    if before:
        kept().write_text("precious")
    return values


def kept() -> Path:
    """A file among the data of the chute."""
    return Path(settings.EXTERNAL_DATA_DIR.format(chute="wired")) / "kept"


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a router's state that are not the same."""
    return {part: (before[part], after[part]) for part in before if before[part] != after[part]}


def contradictions(router: Router) -> list[str]:
    """Return in what the store, containers, files and links do not agree.

    The kernel and the engine have a few seconds to end what they were at: links go some time after their namespace, and
    the containers of a build some time after the one who asked for it.
    """
    for _ in range(50):
        found = _contradictions(router)
        if not found:
            break
        time.sleep(0.1)
    return found


def _contradictions(router: Router) -> list[str]:
    state = router.state()
    stored = state["store"].get("wired")
    recorded = stored["cache"]["containers"] if stored else {}
    running = bool(stored) and stored["state"] == "running"
    images = [entry["id"] for key in ("images", "previousImages")
              for entry in ((stored and stored["cache"].get(key)) or {}).values()]
    links = [name for name, *_ in state["links"]]
    owned = ["network", "firewall", "dhcp"] if running else []
    address = [f"port0 {one['ipaddrWithPrefix']}" for one in stored["cache"]["networkInterfaces"]] if running else []
    pairs = {
        "journal": (state["journal"], {}),
        "containers": ({name: (number, here == "running") for name, (number, here, _) in state["containers"].items()},
                       {"/wired": (recorded["main"], running)} if stored else {}),
        "images": (sorted(image["Id"] for image in router.engine.client.images(filters={"label": dockerclient.LABEL})),
                   sorted(set(images))),
        "files": ([name for name in ("network", "wireless", "firewall", "dhcp")
                   if "#wired" in state["files"].get(name, "")], owned),
        "bridges": (sum(name.startswith("br-vnet") for name in links), int(running)),
        "wires": (sum(name.startswith(("hbr-", "tbr-")) for name in links), int(running)),
        "inside": (state["inside"], {"/wired": address} if running else {}),
        "directories": (state["directories"], ["lib/data/wired", "lib/system/wired"] if stored else []),
    }
    return [f"{part}: {here} and not {there}" for part, (here, there) in pairs.items() if here != there]
