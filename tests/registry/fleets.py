"""A fleet of devices that speak hawkBit's API with a server, as processes of nobody: each is a name and a token."""

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from tests.registry.conftest import AMPLE, Person
from tests.server.serverprocess import Answered, Server


@dataclass
class Device:
    """A device. ``action`` is the number of the deployment that it fetched last."""

    server: Server
    tenant: str
    name: str
    token: str = f"GatewayToken {AMPLE['gateway_token']}"
    action: int = 0

    @property
    def here(self) -> str:
        return f"/{self.tenant}/controller/v1/{self.name}"

    def ask(self, method: str, path: str = "", body: object = None, **headers: str) -> Answered:
        return self.server.ask(method, path if "://" in path else self.here + path, body,
                               {"Authorization": self.token, **headers})

    def links(self) -> dict[str, str]:
        """Ask what is there, as devices do all the time."""
        found = self.ask("GET")
        assert found.status == 200, found.data
        return {name: link["href"] for name, link in found.body["_links"].items()}

    def fetch(self) -> dict[str, Any] | None:
        """Fetch what is to be installed, if there is anything."""
        link = self.links().get("deploymentBase")
        if link is None:
            return None
        found = self.ask("GET", link)
        assert found.status == 200, found.data
        self.action = int(found.body["id"])
        deployment: dict[str, Any] = found.body["deployment"]
        return deployment

    def say(self, execution: str, finished: str = "none", *details: str, to: str = "deploymentBase") -> int:
        """Tell how it goes with the action; return the status of the answer."""
        return self.ask("POST", f"/{to}/{self.action}/feedback", {
            "id": str(self.action), "time": "20261129T220000",
            "status": {"execution": execution, "result": {"finished": finished}, "details": list(details)}}).status

    def install(self, *, good: bool = True) -> bool:
        """Install what is there, if there is anything, and say how it ended."""
        if self.fetch() is None:
            return False
        line = "updated" if good else "reverted: the radio is dead"
        assert self.say("closed", "success" if good else "failure", line) == 200
        return True


def put_file(server: Server, version: str, content: bytes = b"bundle", name: str = "firmware.raucb") -> str:
    """Put a release beside the channel; return its name."""
    place = server.data / "rollout-files/firmware" / version
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(content)
    return f"files/firmware/{version}"


def begin(person: Person, release: str, group: str = "", **wish: Any) -> int:
    """Begin a roll-out; return its number."""
    found = person.post("/rollouts", {"release": release, "group": group, **wish})
    assert found.status == 201, found.data
    return int(found.body["id"])


def make_devices(person: Person, many: int, group: str = "", start: int = 0) -> list[Device]:
    """Make routers of somebody, in a group of his; the number of the first one is START."""
    if group:
        assert person.ask("PUT", f"/groups/{group}", {}).status == 200
    found = []
    for number in range(start, start + many):
        name = f"r{number:03}"
        assert person.post("/routers", {"name": name}).status == 201
        if group:
            assert person.ask("PUT", f"/groups/{group}/routers/{name}").status == 204
        found.append(Device(person.server, person.name, name))
    return found


def counts(person: Person, number: int) -> dict[str, int]:
    """Return the counts of a roll-out that are not 0."""
    return {name: many for name, many in person.get(f"/rollouts/{number}").body["counts"].items() if many}


def paradrop(joe: Person, *words: str, code: int = 0, verb: str = "fleet") -> str:
    """Run ``paradrop fleet``, or another verb, as a person does; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "paradrop.tools", verb, *words], text=True, stdout=subprocess.PIPE, timeout=120,
        stderr=subprocess.STDOUT, check=False, env={
            **os.environ, "PARADROP_SERVER": joe.server.url, "PARADROP_TOKEN": joe.token,
            "PARADROP_CONFIG_DIR": str(joe.server.data.parent / "config"), "TZ": "UTC"})
    assert done.returncode == code, done.stdout
    return done.stdout
