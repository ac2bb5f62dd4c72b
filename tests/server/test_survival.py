"""kill -9 of each part in the middle of a build: every request that was accepted ends in an answer."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import urllib3

from tests.server.conftest import MANY, Start
from tests.server.parts import Postgres, Redis
from tests.server.serverprocess import Server, request, wait_until

OPENWRT = {"distro": "openwrt", "version": "24.10.0", "target": "ath79/generic", "board": "acme_router"}
QUICK = {**MANY, "lease_seconds": 2}


def hold(place: Path) -> Path:
    """Let the stand-in ImageBuilder wait while the file that is returned is there."""
    file = place / "catalogue/standin/hold"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def ask_for_some(server: Server) -> list[str]:
    """Ask for an image of OpenWrt, which waits, and for two of ours, once the first is being built; return hashes."""
    wishes = [{**OPENWRT, "packages": ["vim"]}, request(), request(packages=["clock"])]
    asked = []
    for wish in wishes:
        found = server.post("/api/build-request", wish)
        assert found.status == 202, found.data
        asked.append(found.body["request_hash"])
        if len(asked) == 1:
            wait_until(lambda: b"Building images" in server.get(f"/download/{asked[0]}/buildlog.txt").data)
    return asked


def all_answered(server: Server, asked: list[str]) -> None:
    for digest in asked:
        done = server.wait(f"/api/build-request/{digest}")
        assert done.status == 200, done.data
        file = server.get(f"/store/{digest}/{done.body['sysupgrade']}")
        assert (file.status, len(file.data)) == (200, done.body["size"])


def built(place: Path) -> list[str]:
    """Return what the stand-in has built, a board for each time."""
    return [line for file in place.glob("data*/cache/imagebuilders/*/built") for line in file.read_text().splitlines()]


def test_twenty_equal_requests_are_one_build(start: Start, parts: dict[str, object], tmp_path: Path) -> None:
    server = start(openwrt=True, **MANY, **parts)

    def ask(_: int) -> tuple[int, str]:
        asked = urllib3.request("POST", f"{server.url}/api/build-request", json=OPENWRT, timeout=90)
        return asked.status, asked.json()["request_hash"]

    with ThreadPoolExecutor(20) as pool:
        told = set(pool.map(ask, range(20)))
    assert len({digest for _, digest in told}) == 1
    all_answered(server, [told.pop()[1]])
    assert built(tmp_path) == ["acme_router"]


def test_the_server_is_killed(start: Start, parts: dict[str, object], tmp_path: Path) -> None:
    gate = hold(tmp_path)
    server = start(openwrt=True, **QUICK, **parts)
    asked = ask_for_some(server)
    server.kill()
    gate.unlink()
    server.start()
    all_answered(server, asked)
    wait_until(lambda: not list((tmp_path / "data/work").iterdir()))


def test_a_worker_is_killed_and_another_takes_over(start: Start, tmp_path: Path) -> None:
    gate = hold(tmp_path)
    server = start("--no-worker", openwrt=True, **QUICK)
    first = start(openwrt=True, verb="worker", **QUICK)
    asked = ask_for_some(server)
    first.kill()
    gate.unlink()
    start(openwrt=True, verb="worker", **QUICK)
    all_answered(server, asked)


Cluster = Callable[[], Server]


@pytest.fixture
def cluster(start: Start, postgres: Postgres, redis: Redis, tmp_path: Path) -> Cluster:
    """Start a server and two workers that share PostgreSQL and Redis."""
    def begin() -> Server:
        settings = {**QUICK, "database": postgres.database(f"s{abs(hash(tmp_path))}"), "queue": redis.url}
        server = start("--no-worker", openwrt=True, **settings)
        for _ in range(2):
            start(openwrt=True, verb="worker", **settings)
        return server
    return begin


def test_redis_is_killed_and_forgets_everything(cluster: Cluster, redis: Redis, tmp_path: Path) -> None:
    gate = hold(tmp_path)
    server = cluster()
    asked = ask_for_some(server)
    redis.kill()
    more = server.post("/api/build-request", request(packages=["big"]))
    assert more.status == 202
    gate.unlink()
    redis.start()
    all_answered(server, [*asked, more.body["request_hash"]])


def test_postgresql_is_killed(cluster: Cluster, postgres: Postgres, tmp_path: Path) -> None:
    gate = hold(tmp_path)
    server = cluster()
    asked = ask_for_some(server)
    postgres.kill()
    for found in (server.get(f"/api/build-request/{asked[0]}"), server.post("/api/build-request", request()),
                  server.get("/api/v1/stats")):
        assert (found.status, found.headers["Retry-After"]) == (503, "10")
        assert "can't reach its database" in found.body["error"]
    gate.unlink()
    postgres.start()
    all_answered(server, asked)
