"""Servers for tests, each a process of its own, as operators start it."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fussy.conftest import keys
from tests.server.parts import Postgres, Redis, Store, running
from tests.server.serverprocess import Server, write_catalogue

__all__ = ["keys"]

Start = Callable[..., Server]
# Settings of a server that is not to be full.
MANY = {"client_queue": 1000, "client_hourly": 100000, "queue_limit": 1000}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start servers with a catalogue of tiny images, and OPENWRT's; settings and options are arguments."""
    running: list[Server] = []

    def begin(*options: str, openwrt: bool = False, verb: str = "serve", **settings: object) -> Server:
        catalogue = write_catalogue(tmp_path / "catalogue", openwrt=openwrt)
        server = Server(tmp_path / "data", {"catalogue": str(catalogue), **settings}, verb)
        running.append(server)
        return server.start(*options)

    yield begin
    for server in running:
        server.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of a module."""
    place = tmp_path_factory.mktemp("server")
    server = Server(place / "data", {"catalogue": str(write_catalogue(place / "catalogue")), **MANY}).start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same with images of OpenWrt beside."""
    place = tmp_path_factory.mktemp("server")
    server = Server(place / "data", {"catalogue": str(write_catalogue(place / "catalogue", openwrt=True)), **MANY})
    server.start().wait_for_survey()
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running(Postgres) as part:
        assert isinstance(part, Postgres)
        yield part


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    with running(Redis) as part:
        assert isinstance(part, Redis)
        yield part


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    with running(Store) as part:
        assert isinstance(part, Store)
        yield part


_number = itertools.count(1)


@pytest.fixture(params=["embedded", "cluster"])
def parts(request: pytest.FixtureRequest) -> dict[str, object]:
    """Settings of a server by itself, and of one with PostgreSQL, Redis and S3: each test runs with both."""
    if request.param == "embedded":
        return {}
    number = next(_number)
    return {"database": request.getfixturevalue("postgres").database(f"pdimage{number}"),
            "queue": request.getfixturevalue("redis").url,
            **request.getfixturevalue("store").settings(f"images{number}")}
