"""Daemons of routers, as processes, before a server that they are provisioned by."""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from tests.paradrop.process import Daemon, running
from tests.registry.conftest import Person
from tests.server.parts import free_port
from tests.server.serverprocess import Server


@dataclass
class Field:
    """A server with joe, and daemons."""

    server: Server
    joe: Person
    place: Path
    undo: ExitStack

    def router(self, name: str, **settings: str) -> Daemon:
        """Start the daemon of a router, whose files lie in a directory of this name, on a free port."""
        home = self.place / name
        home.mkdir(exist_ok=True)
        daemon = Daemon(home, settings={
            "PDFCD_PORT": str(free_port()), "FIRMWARE_TARGET": f"{home}/firmware",
            "FIRMWARE_KEYRING": f"{home}/fussy/keys", "FIRMWARE_SETTINGS": f"{home}/fussy/update.toml", **settings})
        self.undo.enter_context(running(daemon))
        return daemon

    def provision(self, daemon: Daemon, name: str, **more: Any) -> dict[str, Any]:
        """Make a daemon's router the one with this name; return what it answers."""
        self.joe.post("/routers", {"name": name})
        order = self.joe.post(f"/routers/{name}/provision").body
        body = {key: order[key] for key in ("server", "secret", "server_certificate")}
        return ask(daemon, "POST", "/api/v1/provision", {**body, **more})

    def shown(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.joe.get(f"/routers/{name}").body
        return found


def ask(daemon: Daemon, method: str, path: str, body: Any = None) -> dict[str, Any]:
    token = (daemon.home / "run/api/token").read_text().strip()
    answer = urllib3.request(method, f"http://127.0.0.1:{daemon.settings['PDFCD_PORT']}{path}", json=body, timeout=60,
                             headers={"Authorization": f"Bearer {token}"}, retries=False)
    found: dict[str, Any] = json.loads(answer.data)
    return found


def until(there: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def state(daemon: Daemon) -> str:
    return str(ask(daemon, "GET", "/api/v1/identity")["state"])
