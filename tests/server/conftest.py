"""Servers for tests, each a process of its own, as operators start it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fussy.conftest import keys
from tests.server.serverprocess import Server, write_catalogue

__all__ = ["keys"]

Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start servers with a catalogue of tiny images; settings are arguments."""
    running: list[Server] = []

    def begin(**settings: object) -> Server:
        server = Server(tmp_path / "data", {"catalogue": str(write_catalogue(tmp_path / "catalogue")), **settings})
        running.append(server)
        return server.start()

    yield begin
    for server in running:
        server.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of a module."""
    place = tmp_path_factory.mktemp("server")
    server = Server(place / "data", {"catalogue": str(write_catalogue(place / "catalogue")),
                                     "client_queue": 1000, "client_hourly": 100000, "queue_limit": 1000}).start()
    yield server
    server.close()
