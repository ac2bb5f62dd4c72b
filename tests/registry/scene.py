"""A server to which routers are linked, and somebody who has them."""

import asyncio
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import urllib3

from pdimage.server import tables
from pdimage.server.registry.tables import accounts, routers
from tests.registry.conftest import AMPLE, Person, register
from tests.registry.linked import Card, enrol
from tests.server.serverprocess import Answered, Server

LINKS = {**AMPLE, "name_length": 3, "link_rate": 1000.0}
_number = itertools.count(1)


@dataclass
class Scene:
    """A server with somebody who has routers."""

    server: Server
    joe: Person
    database: str

    def routers(self, number: int = 1) -> list[Card]:
        """Make routers of names that there were not."""
        return enrol(self.database, "joe", [f"router{next(_number)}" for _ in range(number)])

    def give(self, account: str, role: str) -> None:
        """Give an account a role."""
        engine = tables.connect(self.database)
        with engine.begin() as connection:
            connection.execute(sa.update(accounts).where(accounts.c.name == account).values(role=role))
        engine.dispose()

    def hubs(self) -> dict[str, str]:
        """Return which process has the link of each router."""
        engine = tables.connect(self.database)
        with tables.reading(engine) as connection:
            found = {row.pdid: row.hub for row in connection.execute(sa.select(routers.c.pdid, routers.c.hub))}
        engine.dispose()
        return found

    def process(self, slot: int) -> int:
        """Return the pid of a serving process."""
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text().split()
        return next(int(child) for child in children
                    if Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[-2] == str(slot).encode())

    def fresh(self, method: str, path: str, body: bytes | None = None) -> Answered:
        """Ask as joe, by a connection of its own."""
        found = urllib3.PoolManager(retries=False).request(
            method, self.server.url + path, body=body, timeout=60,
            headers={"Authorization": f"Bearer {self.joe.token}"})
        return Answered(found.status, found.headers, found.data)

    @contextmanager
    def another(self, data: Path, settings: Mapping[str, object]) -> Iterator[Server]:
        """Have another server as long as the block lasts."""
        data.parent.mkdir(parents=True)
        server = Server(data, settings)
        try:
            yield server.start("--no-worker")
        finally:
            server.close()

    async def get(self, path: str) -> Any:
        """Return what is answered to joe, as JSON."""
        return (await asyncio.to_thread(self.joe.get, path)).body

    async def shown(self, card: Card) -> dict[str, Any]:
        """Return how the server shows a router."""
        found: dict[str, Any] = await self.get(f"/routers/{card.pdid}")
        return found

    async def until(self, card: Card, **wanted: object) -> dict[str, Any]:
        """Wait until the server shows a router as it should be."""
        async with asyncio.timeout(30):
            found = await self.shown(card)
            while {name: found[name] for name in wanted} != wanted:
                await asyncio.sleep(0.1)
                found = await self.shown(card)
        return found


def scene(server: Server, database: str = "") -> Scene:
    """Register joe."""
    return Scene(server, register(server, "joe"), database or f"sqlite:///{server.data}/server.db")


def memory(server: Server) -> int:
    """Return the memory of a server in KiB."""
    lines = Path(f"/proc/{server.pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
