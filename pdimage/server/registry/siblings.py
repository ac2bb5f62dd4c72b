"""The serving processes of one machine, and those of other machines: what one has to ask of another.

::

    data/links/           mode 0700
        0.sock            where the first process of this machine listens for the others
        1.sock            …

On such a socket a process serves all of HTTP, and what only processes may ask: ``POST /links/room``, ``/links/look``,
``/links/cut``. A process is known to all by its name, ``MACHINE/SLOT``. Another machine is asked by HTTP, if MACHINE is
a URL, and only for what its caller may ask with his own token.
"""

import asyncio
import logging
import os
import socket
import zlib
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from paradrop.backend.link.messages import PIECE_BYTES, Headers
from pdimage.server.http import answer, answering
from pdimage.server.registry.hub import Hub, Newcomer, Verdict
from pdimage.server.registry.relay import Connection, Relayed, connect, relayed
from pdimage.server.registry.streams import Lost
from pdimage.server.settings import Settings

log = logging.getLogger(__name__)

# A process is asked how a router answers, which may take some seconds.
ASK_SECONDS = 15.0


def machine_name(settings: Settings) -> str:
    """Return how processes of other machines call this one: its URL, or else a name that nobody can connect to."""
    return settings.machine_url.rstrip("/") or \
        f"{socket.gethostname()[:32]}:{zlib.crc32(str(settings.root).encode()):08x}"


class Siblings:
    """The other processes, for the one that has SLOT on MACHINE; their sockets are in PLACE."""

    def __init__(self, place: Path, machine: str, slot: int) -> None:
        place.mkdir(mode=0o700, exist_ok=True)
        self.name = f"{machine}/{slot}"
        self._machine = machine
        self._slot = slot
        # so that the length of the path, which is limited for sockets, does not matter
        self._directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        self._place = place

    def listen(self) -> socket.socket:
        """Return the socket of this process."""
        path = self._path(self._slot)
        Path(path).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(512)
        return listener

    def close(self) -> None:
        """Have no socket any more."""
        Path(self._path(self._slot)).unlink(missing_ok=True)
        os.close(self._directory)

    def _path(self, slot: int | str) -> str:
        return f"/proc/self/fd/{self._directory}/{slot}.sock"

    def can_ask(self, hub: str) -> bool:
        """Tell whether a process can be asked: it is of this machine, or the other's URL is known."""
        machine, _, _ = hub.rpartition("/")
        return machine == self._machine or machine.startswith(("http://", "https://"))

    def request(self, hub: str, method: str, path: str, headers: Headers) -> AbstractAsyncContextManager[Relayed]:
        """Have a request to another process.

        :raises OSError: it is not there
        """
        machine, _, slot = hub.rpartition("/")
        if machine != self._machine:
            return relayed(lambda: connect(machine), method, path, headers)
        return relayed(lambda: self._open(slot), method, path, headers)

    async def _open(self, slot: str) -> Connection:
        return await asyncio.open_unix_connection(self._path(slot), limit=PIECE_BYTES)

    # What processes of one machine ask each other. These are the Others of a hub.

    async def make_room(self, hub: str, newcomer: Newcomer) -> Verdict | None:
        """Have a process give up a router's link; None if it is of another machine."""
        machine, _, slot = hub.rpartition("/")
        if machine != self._machine:
            return None
        try:
            return msgspec.json.decode(await self._ask(slot, "room", newcomer), type=Verdict)
        except (OSError, Lost, TimeoutError):
            return "free"  # the process is gone, or is as good as that

    async def look(self, pdids: list[str]) -> int:
        """Tell routers of other processes to look for an update."""
        found = await asyncio.gather(*(self._ask(slot, "look", pdids) for slot in self._others()),
                                     return_exceptions=True)
        return sum(int(told) for told in found if isinstance(told, bytes))

    async def cut(self, pdid: str) -> None:
        """End the link of a router that is revoked, whoever has it."""
        await asyncio.gather(*(self._ask(slot, "cut", pdid) for slot in self._others()), return_exceptions=True)

    def _others(self) -> list[str]:
        return [path.stem for path in self._place.glob("*.sock") if path.stem != str(self._slot)]

    async def _ask(self, slot: str, verb: str, content: object) -> bytes:
        body = msgspec.json.encode(content)
        headers = (("host", "links"), ("content-length", str(len(body))))
        async with asyncio.timeout(ASK_SECONDS), self.request(
                f"{self._machine}/{slot}", "POST", f"/links/{verb}", headers) as asked:
            await asked.send(body)
            await asked.end()
            head = await asked.head()
            said = b"".join([piece async for piece in asked.pieces()])
        if head.status != 200:
            raise Lost(f"a server process answered {head.status}")
        return said


class Inner:
    """The application on a process's own socket: that of everybody, and what processes ask each other."""

    def __init__(self, hub: Hub, app: ASGIApp) -> None:
        self._hub = hub
        self._app = app
        self._verbs = {"/links/room": self._room, "/links/look": self._look, "/links/cut": self._cut}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handle = self._verbs.get(scope["path"])
        if handle is None:
            scope["extensions"] = {**scope.get("extensions", {}), "inner": {}}
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        response: Response = await answering(handle)(request)
        await response(scope, receive, send)

    async def _room(self, request: Request) -> Response:
        return answer(await self._hub.make_room(msgspec.json.decode(await request.body(), type=Newcomer)))

    async def _look(self, request: Request) -> Response:
        return answer(await self._hub.look(msgspec.json.decode(await request.body(), type=list[str]), everywhere=False))

    async def _cut(self, request: Request) -> Response:
        await self._hub.cut(msgspec.json.decode(await request.body(), type=str), everywhere=False)
        return answer(None)
