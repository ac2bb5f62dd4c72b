"""A router's HTTP face on a real port of the loopback interface, before an update queue that tests steer."""

import asyncio
import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import urllib3

from paradrop.backend.pdfcd import serve
from paradrop.backend.pdfcd.app import make_app
from paradrop.backend.pdfcd.journal import Journal
from paradrop.backend.pdfcd.server import ParadropAPIServer
from paradrop.lib.chute import Chute

PASSWORD = "correct horse"


class Store:
    """The chutes that the face shows."""

    def __init__(self) -> None:
        self.chutes: dict[str, Chute] = {}

    def add(self, name: str, state: str = "running", **more: Any) -> Chute:
        self.chutes[name] = Chute({"name": name, **more})
        self.chutes[name].state = state
        return self.chutes[name]

    def getChute(self, name: str | None) -> Chute | None:
        return self.chutes.get(name or "")

    def getChuteList(self) -> list[Chute]:
        return list(self.chutes.values())


class Queue:
    """Takes updates. Each is done at once with ``outcome``, after ``progress``, unless ``hold`` is set."""

    def __init__(self) -> None:
        self.updates: list[dict[str, Any]] = []
        self.progress: list[str] = []
        self.hold = False

    def updateList(self, **updateObj: Any) -> None:
        self.updates.append(updateObj)
        for text in self.progress:
            updateObj["pkg"].request.write(text)
        if not self.hold:
            self.finish(updateObj)

    def finish(self, update: dict[str, Any], success: bool = True, message: str | None = None) -> None:
        text = message or f"Chute {update['name']} {update['updateType']} success"
        update["func"](SimpleNamespace(pkg=update["pkg"], workdir=update["workdir"],
                                       result={"success": success, "message": text}))


@dataclass
class Router:
    """The face under test, and a client of it."""

    rest: ParadropAPIServer
    queue: Queue
    store: Store
    port: int
    http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False, timeout=20))

    def ask(self, method: str, path: str, body: Any = None, user: str | None = "admin",
            headers: dict[str, str] | None = None, **more: Any) -> urllib3.BaseHTTPResponse:
        """Send a request as a user, None for nobody; a body that is not bytes goes as JSON."""
        sent = dict(headers or {})
        if user:
            sent["Authorization"] = "Basic " + base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        return self.http.request(method, f"http://127.0.0.1:{self.port}{path}", body=body, headers=sent, **more)

    def v1(self, path: str, body: Any = None, method: str = "POST", **headers: str) -> urllib3.BaseHTTPResponse:
        """Send a request to /v1, which asks nobody for a password here."""
        return self.ask(method, f"/v1/{path}", body, user=None, headers=headers)


@contextlib.contextmanager
def served() -> Iterator[Router]:
    """Serve a router without users, as long as the block lasts."""
    store, queue = Store(), Queue()
    rest = ParadropAPIServer(queue, store, Journal())
    app = rest.link.app = make_app(rest)
    sockets = serve.listen(["127.0.0.1"], 0)
    server = serve.Server(serve.configuration(app))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets)))
    thread.start()
    yield Router(rest, queue, store, sockets[0].getsockname()[1])
    rest.link.stop()
    server.should_exit = True
    rest.changes.finish_all("the test is over")
    rest.journal.feed.close()
    thread.join(10)
    assert not thread.is_alive()
