"""What the build server must keep to, as JSON: ``python tests/bench/server.py`` (with the repository in PYTHONPATH).

wrk asks what a fleet asks, on the same cores as the server. Images are built with the example catalogue, whose parts
are in the cache, through the server and by ``pdimage build`` and ``fussy-pack`` alone, by turns.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import sqlalchemy as sa
from report import Check

from pdimage.server.registry.audit import Who
from pdimage.server.registry.desk import make_registry
from pdimage.server.registry.fleet.desk import make_fleet
from pdimage.server.registry.fleet.rollouts import Order
from pdimage.server.registry.fleet.states import Plan
from pdimage.server.registry.tables import accounts, routers
from pdimage.server.settings import EXAMPLE, load
from pdimage.server.tables import connect
from tests.server.parts import Postgres, Redis, running
from tests.server.serverprocess import Server, write_catalogue

MANY = {"client_queue": 10_000, "client_hourly": 1_000_000, "queue_limit": 10_000}
CONNECTIONS, SECONDS, ROUNDS = 16, 8, 3
PROGRAMS = Path(sys.executable).parent
PACKAGES = ["hello-world", "runtime"]
BUILDS = 24


@contextlib.contextmanager
def serving(place: Path, name: str, *arguments: str, **settings: object) -> Iterator[Server]:
    """Have a server, with the tiny catalogue if none is named."""
    catalogue = settings.pop("catalogue", None) or str(write_catalogue(place / "catalogue"))
    server = Server(place / name, {**MANY, "catalogue": catalogue, **settings}).start(*arguments)
    try:
        yield server
    finally:
        server.close()


def processes(server: Server) -> list[int]:
    """Return the server and the processes it started."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return [server.pid, *map(int, children)]


def memory(server: Server) -> float:
    """Return the memory of all processes of a server in MiB; what they share counts once (PSS)."""
    lines = [line for pid in processes(server) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def cpu(server: Server) -> float:
    """Return the seconds of CPU that a server has taken."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in processes(server)]
    return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")


def fleet(place: Path) -> list[Check]:
    """Ask as a fleet asks; the median round counts."""
    with serving(place, "fleet", processes=2) as server:
        built = server.build(version="1.1", packages=["motd"]).body["request_hash"]
        ask = partial(wrk, server, "checks.lua", {"BUILT": built})
        ask(2)
        before = cpu(server)
        rounds = [ask(SECONDS) for _ in range(ROUNDS)]
        spent = cpu(server) - before
        used = memory(server)
        repeated = asked(server, 200)
    answered = sum(one["requests"] for one in rounds)
    return [
        Check("server: checks and polls", median(one["requests"] / one["seconds"] for one in rounds), "/s", 2000,
              more=True),
        Check("server: 99 % of them answered in", median(one["p99"] for one in rounds), "ms", 50),
        Check("server: requests that failed", sum(one["failed"] for one in rounds), "", 0),
        Check("server: its CPU for a request", 1e6 * spent / answered, "us", 1000),
        Check("server: memory", used, "MiB", 250),
        Check("server: a repeated request", repeated, "ms", 20),
    ]


def polls(place: Path) -> list[Check]:
    """Ask as 10,000 devices of hawkBit's API do, each of which has something to install; the median round counts."""
    with serving(place, "polls", "--no-worker", gateway_token="all-gateways") as server:
        engine = connect(f"sqlite:///{server.data / 'server.db'}")
        with engine.begin() as connection:
            connection.execute(sa.insert(accounts).values(name="joejoejoe", password="", role="user", made=0))
            connection.execute(sa.insert(routers), [
                {"pdid": f"pd.joejoejoe.r{number:05}", "account": "joejoejoe", "name": f"r{number:05}", "made": 0}
                for number in range(10_000)])
        file = server.data / "rollout-files/firmware/8.0/firmware.raucb"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"bundle")
        fleet = make_fleet(make_registry(load(None, {"data": str(server.data)}), engine), None)  # type: ignore[arg-type]
        began = time.monotonic()
        fleet.rollouts.start(Order("joejoejoe", "", fleet.releases.find("files/firmware/8.0"), Plan(steps=(100,))),
                             Who("joejoejoe", ""))
        started = time.monotonic() - began
        ask = partial(wrk, server, "polls.lua", {"TENANT": "joejoejoe", "TOKEN": "all-gateways"})
        ask(2)
        before = cpu(server)
        rounds = [ask(SECONDS) for _ in range(ROUNDS)]
        spent = cpu(server) - before
    return [
        Check("server: a roll-out to 10,000 devices begins in", started, "s", 5),
        Check("server: devices that ask", median(one["requests"] / one["seconds"] for one in rounds), "/s", 340,
              more=True),
        Check("server: 99 % of them answered in", median(one["p99"] for one in rounds), "ms", 200),
        Check("server: polls that failed", sum(one["failed"] for one in rounds), "", 0),
        Check("server: its CPU for a poll", 1e6 * spent / sum(one["requests"] for one in rounds), "us", 1500),
    ]


def wrk(server: Server, script: str, given: Mapping[str, str], seconds: int) -> Mapping[str, float]:
    """Run wrk once with one of the scripts beside, which gets what is GIVEN."""
    done = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", "-s",
         str(Path(__file__).with_name(script)), server.url],
        env={**os.environ, "SCRIPTS": str(Path(__file__).parent), **given}, check=True, stdout=subprocess.PIPE,
        text=True)
    found: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def asked(server: Server, times: int) -> float:
    """Return the median milliseconds until a request is answered whose image is there."""
    wish = {"distro": "tiny", "version": "1.1", "target": "x86/64", "board": "generic", "packages": ["motd"]}
    return 1000 * median(seconds(lambda: server.post("/api/upgrade-request", wish)) for _ in range(times))


def seconds(work: Callable[[], Any]) -> float:
    """Return how long something takes."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def image(place: Path) -> list[Check]:
    """Build an image of known parts through the server and alone, by turns."""
    with serving(place, "images", catalogue=str(EXAMPLE)) as server:
        wish = {"distro": "paradrop", "version": "1.1", "target": "x86/64", "board": "generic", "packages": PACKAGES}

        def through(number: int) -> None:
            # another first-boot script makes another image of the same parts
            answer = server.post("/api/build-request", {**wish, "defaults": f"echo {number}\n"})
            answer = server.wait(f"/api/build-request/{answer.body['request_hash']}")
            assert answer.status == 200, answer.data

        through(0)
        description = place / "alone.yaml"
        description.write_text(json.dumps({
            "base": str(EXAMPLE.parent / "router.yaml"), "name": "alone", "version": "1.1",
            "platform": {"paradrop": True}, "chutes": [{"path": str(EXAMPLE.parents[2] / "chutes/hello-world")}]}))
        ratios = []
        for number in range(1, ROUNDS + 1):
            ours = seconds(lambda number=number: through(number))
            ratios.append(ours / seconds(lambda number=number: alone(place, server, description, number)))
    return [Check("server: an image, to pdimage build + fussy-pack", median(ratios), "x", 1.5)]


def alone(place: Path, server: Server, description: Path, number: int) -> None:
    """Build and pack as a person does, with what the server has in its cache and the server's key."""
    tree = place / f"tree-{number}" / "alone"
    tree.parent.mkdir()
    environment = {**os.environ, "GNUPGHOME": str(server.data / "keys")}
    for argv in (["pdimage", "build", str(description), "--cache", str(server.data / "cache/images"), "-o", str(tree)],
                 ["fussy-pack", "-r", str(tree), "-z", "zstd", "-o", str(tree.parent)]):
        subprocess.run([PROGRAMS / argv[0], *argv[1:]], env=environment, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)


def cluster(place: Path) -> list[Check]:
    """Build many small images with one worker and with two, over PostgreSQL and Redis."""
    with running(Postgres) as postgres, running(Redis) as redis:
        assert isinstance(postgres, Postgres) and isinstance(redis, Redis)
        taken = [_many(place, number, {"database": postgres.database(f"workers{number}"), "queue": redis.url})
                 for number in (1, 2)]
    return [Check("server: two workers to one (PostgreSQL, Redis)", taken[0] / taken[1], "x", 1.5, more=True)]


def _many(place: Path, workers: int, settings: Mapping[str, object]) -> float:
    """Return the seconds that a number of workers take for BUILDS images."""
    with serving(place, f"cluster-{workers}", "--no-worker", **settings) as server, contextlib.ExitStack() as undo:
        hashes = [server.post("/api/build-request", {
            "distro": "tiny", "version": "1.1", "target": "x86/64", "board": "generic", "packages": ["motd"],
            "defaults": f"echo {number}\n"}).body["request_hash"] for number in range(BUILDS)]
        started = time.monotonic()
        for _ in range(workers):
            worker = Server(server.data, {**MANY, "catalogue": str(place / "catalogue/catalogue.yaml"), **settings},
                            "worker")
            undo.callback(worker.close)
            worker.start()
        for digest in hashes:
            assert server.wait(f"/api/build-request/{digest}").status == 200
        return time.monotonic() - started


def checks() -> list[Check]:
    """Measure all of it."""
    with tempfile.TemporaryDirectory(prefix="bench-server-") as directory:
        place = Path(directory)
        return [*fleet(place), *polls(place), *image(place), *cluster(place)]


if __name__ == "__main__":
    json.dump([asdict(check) for check in checks()], sys.stdout)
