"""What the registry must keep to with 10,000 linked routers, as JSON: ``python tests/bench/registry.py``.

All run on loopback, on the same cores: the server, a process that is all the routers (``fleet URL DATABASE NUMBER``),
and clients. Each router needs a file descriptor at either end (``ulimit -n``).
"""

import asyncio
import json
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median, quantiles

import uvloop
from report import Check

from paradrop.backend.link import messages
from server import cpu, memory
from tests.registry.conftest import HERE, register
from tests.registry.linked import Card, Closed, Exchange, Router, enrol
from tests.registry.scene import LINKS
from tests.server.parts import free_port
from tests.server.serverprocess import Server

NUMBER = 10_000
IDLE_SECONDS = 30
UPLOAD = 300 << 20


async def live(card: Card, url: str, linked: Counter[str], source: str) -> None:
    """Be a router: come back as one does, when it is told to, else after 1, 2, 4 … 300 seconds, half of them by chance.
    """
    delay = 1.0
    await asyncio.sleep(60 * random.random())
    while True:
        router = Router(card, url, handle=take, source=source)
        try:
            await router.connect()
            linked["now"] += 1
            linked["came"] += 1
            delay = 1.0
            try:
                await router.run()
            finally:
                linked["now"] -= 1
        except Closed as closed:
            linked[f"refused {closed.code}"] += 1
            told = float(closed.reason) if closed.code == 503 else \
                messages.later(closed.reason).seconds if closed.code in messages.COME_BACK else 0.0
            if told:
                await asyncio.sleep(told + random.random())
                continue
        except OSError:
            linked["unreachable"] += 1
        await asyncio.sleep(delay * (0.5 + random.random() / 2))
        delay = min(delay * 2, 300.0)


async def take(exchange: Exchange) -> None:
    """Read a body, and answer a little."""
    size = 0
    async for content in exchange.pieces():
        size += len(content)
    await exchange.answer(200, (("content-type", "application/json"),), b'{"size": %d}' % size)


async def fleet(url: str, database: str, number: int) -> None:
    """Be so many routers; print how they are doing each half second."""
    linked: Counter[str] = Counter()
    cards = enrol(database, "joe", [f"router{number}" for number in range(number)])
    tasks = [asyncio.create_task(live(card, url, linked, f"127.0.1.{1 + place % 250}"))
             for place, card in enumerate(cards)]
    while not any(task.done() for task in tasks):
        print(json.dumps(linked), flush=True)
        await asyncio.sleep(0.5)


class Fleet:
    """The process that is all the routers."""

    def __init__(self, server: Server, number: int) -> None:
        self.number = number
        self.said: dict[str, int] = {}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "fleet", server.url, f"sqlite:///{server.data}/server.db", str(number)],
            stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.said = json.loads(line)

    def wait(self, came: int) -> float:
        """Wait until all are linked, and have come so often in all; return when."""
        told = time.monotonic()
        while self.said.get("now") != self.number or self.said["came"] < came:
            assert self.process.poll() is None
            if time.monotonic() - told > 10:
                told = time.monotonic()
                print(f"routers: {self.said}", file=sys.stderr)
            time.sleep(0.05)
        return time.monotonic()


@contextmanager
def asking(person: object, paths: list[str], taken: list[float]) -> Iterator[None]:
    """Ask through the API for as long as the block lasts, ten times a second; note the milliseconds each took."""
    stop = threading.Event()

    def work() -> None:
        for path in iter(lambda: random.choice(paths), None):
            if stop.wait(0.1):
                return
            began = time.monotonic()
            person.get(path)  # type: ignore[attr-defined]
            taken.append(1000 * (time.monotonic() - began))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def checks(number: int = NUMBER) -> list[Check]:
    """Measure all of it."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory(prefix="bench-registry-") as directory:
        settings = {name: value for name, value in LINKS.items() if name != "link_rate"}
        server = Server(Path(directory) / "data", {**settings, "listen": f"127.0.0.1:{free_port()}"})
        server.start("--no-worker")
        try:
            return measure(server, number)
        finally:
            server.close()


def measure(server: Server, number: int) -> list[Check]:
    """Measure one server."""
    joe = register(server, "joe")
    joe.get("/routers/router0/api/v1/status")
    before = memory(server)
    routers = Fleet(server, number)
    try:
        began = time.monotonic()
        came = routers.wait(number) - began
        each = 1024 * (memory(server) - before) / number
        spent, began = cpu(server), time.monotonic()
        time.sleep(IDLE_SECONDS)
        idle = (cpu(server) - spent) / (time.monotonic() - began)
        quiet: list[float] = []
        paths = [f"/routers/router{one}/api/v1/status" for one in range(0, number, 97)]
        with asking(joe, paths, quiet):
            time.sleep(10)
        carried, most = upload(server, joe.token)

        server.kill()
        server.start("--no-worker")
        began, spent = time.monotonic(), cpu(server)
        busy: list[float] = []
        with asking(joe, ["/account", *paths], busy):
            back = routers.wait(2 * number) - began
        stormed = cpu(server) - spent
        print(f"{number} routers came in {came:.0f} s; said in the end: {routers.said}; the storm took {stormed:.1f} s "
              f"of CPU, {1000 * stormed / number:.2f} ms for each; memory {memory(server):.0f} MiB", file=sys.stderr)
    finally:
        routers.process.terminate()
        routers.process.wait()
    return [
        Check(f"registry: memory for each of {number} links", each, "KiB", 40),
        Check("registry: CPU with all of them idle", 100 * idle, "%", 10),
        Check("registry: all are back after a kill in", back, "s", 120),
        Check("registry: 99 % of requests meanwhile", quantiles(busy, n=100)[98], "ms", 500),
        Check("registry: a request through a link", median(quiet), "ms", 20),
        Check("registry: upload through a link", carried, "MB/s", 20, more=True),
        Check("registry: memory more during it", most, "MiB", 8),
    ]


def upload(server: Server, token: str) -> tuple[float, float]:
    """Send a large body to a router; return MB/s, and how much memory the server took more, in MiB."""
    import urllib3

    before, most, stop = memory(server), 0.0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not stop.wait(0.2):
            most = max(most, memory(server) - before)

    thread = threading.Thread(target=watch)
    thread.start()
    began = time.monotonic()
    block = bytes(1 << 20)
    found = urllib3.request("POST", f"{server.url}{HERE}/routers/router1/api/v1/chutes", timeout=300,
                            headers={"Authorization": f"Bearer {token}"}, body=(block for _ in range(UPLOAD >> 20)))
    took = time.monotonic() - began
    stop.set()
    thread.join()
    assert found.json() == {"size": UPLOAD}
    return UPLOAD / took / 1e6, most


if __name__ == "__main__":
    if sys.argv[1:2] == ["fleet"]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        uvloop.run(fleet(sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        json.dump([asdict(check) for check in checks(*map(int, sys.argv[1:2]))], sys.stdout)
