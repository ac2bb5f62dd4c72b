"""A stand-in for a hawkBit server: it speaks the device API as its documents have it, for one router."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fussy.firmware import Firmware

from .router import Router
from .web import Answer, Server

TOKEN = "f00dfeed"
HERE = "joe/controller/v1/aardvark"


@dataclass
class Hawkbit(Server):
    """Serves the bundles in DIRECTORY. ``deployment`` is what is offered, ``cancel`` whether that is to be stopped;
    ``told`` are the feedbacks, the oldest first; ``data`` is what the router said of itself. ``unconfirmed``: what is
    offered must be confirmed first."""

    directory: Path
    deployment: dict[str, Any] | None = None
    cancel: bool = False
    told: list[dict[str, Any]] = field(default_factory=list)
    data: dict[str, str] = field(default_factory=dict)
    wants_data: bool = True
    unconfirmed: bool = False
    hosts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.directory)

    def offer(self, number: int, *bundles: Path, name: str = "firmware", version: str = "",
              metadata: Mapping[str, str] | None = None, **handling: str) -> None:
        """Want BUNDLES to run, as the action NUMBER; METADATA is told of them."""
        facts = [{"key": key, "value": value} for key, value in (metadata or {}).items()]
        self.cancel = False
        self.deployment = {"id": str(number), "deployment": {
            "download": "forced", "update": "forced", **handling,
            "chunks": [{"part": "os", "name": name, "version": version, "metadata": facts,
                        "artifacts": [*map(self.artifact, bundles)]}]}}

    def artifact(self, bundle: Path) -> dict[str, Any]:
        content = bundle.read_bytes()
        link = f"{self.hosts.get(bundle.name, self.url)}/{bundle.relative_to(self.directory)}"
        return {"filename": bundle.name, "size": len(content),
                "hashes": {"sha1": hashlib.sha1(content).hexdigest(), "md5": hashlib.md5(content).hexdigest(),
                           "sha256": hashlib.sha256(content).hexdigest()},
                "_links": {"download-http": {"href": link}, "md5sum-http": {"href": f"{link}.MD5SUM"}}}

    def answer(self, path: str, wanted: str, if_range: str) -> Answer:
        if not path.startswith("joe/"):
            return super().answer(path, wanted, if_range)
        if self.shown[-1] != f"TargetToken {TOKEN}":
            return Answer(401)
        number = self.deployment["id"] if self.deployment else ""
        base = f"{self.url}/{HERE}"
        links = {"configData": f"{base}/configData"} if self.wants_data else {}
        what = "cancelAction" if self.cancel else "confirmationBase" if self.unconfirmed else "deploymentBase"
        if number:
            links[what] = f"{base}/{what}/{number}{'' if self.cancel else '?c=-2127183556'}"
        asked = {"id": number, "confirmation": self.deployment["deployment"]} if self.deployment else None
        found = {HERE: {"config": {"polling": {"sleep": "12:00:00"}},
                        "_links": {name: {"href": link} for name, link in links.items()}},
                 f"{HERE}/{'confirmationBase' if self.unconfirmed else 'deploymentBase'}/{number}":
                     asked if self.unconfirmed else self.deployment,
                 f"{HERE}/cancelAction/{number}": {"id": number, "cancelAction": {"stopId": number}}}
        if path.rstrip("/") not in found:
            return Answer(404)
        return Answer(200, json.dumps(found[path.rstrip("/")]).encode(), {"Content-Type": "application/json"})

    def take(self, method: str, path: str, body: bytes) -> Answer:
        if self.shown[-1] != f"TargetToken {TOKEN}":
            return Answer(401)
        brought = json.loads(body)
        if (method, path) == ("PUT", f"{HERE}/configData"):
            self.data, self.wants_data = brought["data"], False
            return Answer(200)
        number = self.deployment["id"] if self.deployment else ""
        kind = path.removeprefix(f"{HERE}/").partition("/")[0]
        if (method, path) == ("POST", f"{HERE}/confirmationBase/{number}/feedback"):
            self.told.append({"execution": brought["confirmation"], "result": {"finished": "none"}, **brought})
            self.unconfirmed = brought["confirmation"] != "confirmed"
            return Answer(200)
        if method != "POST" or path not in (f"{HERE}/deploymentBase/{number}/feedback",
                                            f"{HERE}/cancelAction/{number}/feedback"):
            return Answer(410)
        assert brought["status"]["result"]["finished"] in ("none", "success", "failure")
        self.told.append({"kind": kind, "number": number, "time": brought["time"], **brought["status"]})
        if brought["status"]["execution"] == "closed":
            self.deployment = None
        elif brought["status"]["execution"] == "rejected":
            self.cancel = False
        return Answer(200)

    def lines(self, start: int = 0) -> list[str]:
        """Return what was told since START, as ``execution finished: detail``."""
        return [f"{one['execution']} {one['result']['finished']}: {one['details'][0]}" for one in self.told[start:]]


def table(fleet: Hawkbit, place: Path, **more: Any) -> dict[str, Any]:
    return {"url": fleet.url, "tenant": "joe", "name": "aardvark", "token_file": str(place / "token"), **more}


def bundle(firmware: Firmware, number: int, base: Path | None = None, **release: Any) -> Path:
    files = {"etc/version": str(number), "app": b"program" * 1000 + str(number).encode(), **release.pop("files", {})}
    tree = firmware.place / f"trees/firmware-{number}"
    if not tree.exists():
        firmware.tree(f"firmware-{number}", files, {"version": f"{number}.0", **release})
    return firmware.pack_tree(tree, base=base)


def has(router: Router, fleet: Hawkbit, firmware: Firmware, number: int = 1) -> None:
    """Bring a first release onto the ROUTER."""
    fleet.offer(1, bundle(firmware, number), name="firmware", version=f"{number}.0")
    router.update(expect="updated")
    assert (router.current(), fleet.deployment) == (f"firmware-{number}", None)
    fleet.told.clear()
    fleet.requests.clear()
