"""Servers with a registry, and people who use it."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.server.conftest import postgres, start
from tests.server.serverprocess import Answered, Server

__all__ = ["postgres", "start"]

HERE = "/registry/v1"
PASSWORD = "correct horse"
# Nobody is to be locked out, and no place to be full, unless a test is about that.
AMPLE = {"login_failures": 1000}
_number = itertools.count(1)


@dataclass
class Person:
    """Somebody with an account, or nobody (no token)."""

    server: Server
    name: str = ""
    token: str = ""

    def ask(self, method: str, path: str, body: object = None) -> Answered:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return self.server.ask(method, HERE + path, body, headers)

    def get(self, path: str) -> Answered:
        return self.ask("GET", path)

    def post(self, path: str, body: object = None) -> Answered:
        return self.ask("POST", path, body)


def register(server: Server, name: str, password: str = PASSWORD) -> Person:
    """Register and log in."""
    made = server.post(f"{HERE}/accounts", {"name": name, "password": password})
    assert made.status == 201, made.data
    return log_in(server, name, password)


def log_in(server: Server, name: str, password: str = PASSWORD) -> Person:
    found = server.post(f"{HERE}/login", {"name": name, "password": password})
    assert found.status == 200, found.data
    return Person(server, name, found.body["token"])


def settings_of(request: pytest.FixtureRequest) -> dict[str, object]:
    """Return the settings of a server with the kind of database that a fixture's parameter names."""
    if request.param == "sqlite":
        return {}
    return {"database": request.getfixturevalue("postgres").database(f"registry{next(_number)}")}


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> dict[str, object]:
    """Settings of a server with each kind of database: a test that uses it runs with both."""
    return settings_of(request)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests, with each kind of database. Who uses it takes names that nobody else does."""
    settings = {**AMPLE, **settings_of(request)}
    server = Server(tmp_path_factory.mktemp("registry") / "data", settings).start("--no-worker")
    yield server
    server.close()


@pytest.fixture
def joe(either: Server) -> Person:
    """Somebody new."""
    return register(either, f"joe{next(_number):05}")
