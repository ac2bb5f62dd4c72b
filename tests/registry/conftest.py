"""Servers with a registry, and people who use it."""

import contextlib
import ipaddress
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from pdimage.cli import pdimage_command
from pdimage.server import tables
from tests.registry.browsing import browser, plain, window
from tests.server.conftest import postgres, start
from tests.server.serverprocess import Answered, Server

__all__ = ["browser", "plain", "postgres", "start", "window"]

HERE = "/registry/v1"
PASSWORD = "correct horse"
# Nobody is locked out; devices may be without a token of their own.
AMPLE = {"login_failures": 1000, "gateway_token": "all-gateways"}
# Small limits; each person has an address of his own, as behind a proxy.
SMALL = {"login_failures": 5, "account_tokens": 4, "account_routers": 3, "account_groups": 2,
         "trusted_proxies": ["127.0.0.1"]}
_number = itertools.count(1)


@dataclass
class Person:
    """Somebody with an account, or nobody (no token). ``address``: where he says to come from."""

    server: Server
    name: str = ""
    token: str = ""
    address: str = field(default_factory=lambda: str(ipaddress.IPv4Address(0x0A000000 + next(_number))))

    def ask(self, method: str, path: str, body: object = None) -> Answered:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return self.server.ask(method, HERE + path, body, {"X-Forwarded-For": self.address, **headers})

    def get(self, path: str) -> Answered:
        return self.ask("GET", path)

    def post(self, path: str, body: object = None) -> Answered:
        return self.ask("POST", path, body)


def register(server: Server, name: str, password: str = PASSWORD) -> Person:
    """Register and log in."""
    made = Person(server).post("/accounts", {"name": name, "password": password})
    assert made.status == 201, made.data
    return log_in(server, name, password)


def try_to_log_in(server: Server, name: str, password: str) -> Answered:
    return Person(server).post("/login", {"name": name, "password": password})


def log_in(server: Server, name: str, password: str = PASSWORD) -> Person:
    found = try_to_log_in(server, name, password)
    assert found.status == 200, found.data
    return Person(server, name, found.body["token"])


def settings_of(request: pytest.FixtureRequest) -> dict[str, object]:
    """Return the settings of a server with the kind of database that a fixture's parameter names."""
    if request.param == "sqlite":
        return {}
    return {"database": request.getfixturevalue("postgres").database(f"registry{next(_number)}")}


def pdimage(data: Path, *words: str, code: int = 0, database: str = "") -> str:
    """Return what ``pdimage accounts`` says on both channels."""
    done = CliRunner().invoke(pdimage_command, ["accounts", words[0], "-d", str(data), *words[1:]], env={
        "PARADROP_PASSWORD": PASSWORD, "PDIMAGE_SERVER_DATABASE": database})
    assert done.exit_code == code, done.output
    return done.output


def administrator(server: Server) -> Person:
    """Return somebody who leads a server: made on its command line."""
    name = f"boss{next(_number):05}"
    pdimage(server.data, "add", name, "--role", "admin", database=str(server.settings.get("database", "")))
    return log_in(server, name)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> dict[str, object]:
    """Settings of a server with each kind of database: a test that uses it runs with both."""
    return settings_of(request)


def _serving(request: pytest.FixtureRequest, place: Path, **settings: object) -> Iterator[Server]:
    server = Server(place / "data", {**settings, **settings_of(request)}).start("--no-worker")
    yield server
    server.close()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests, with each kind of database. Who uses it takes names that nobody else does."""
    yield from _serving(request, tmp_path_factory.mktemp("registry"), **SMALL)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def roomy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same, with room for many routers."""
    yield from _serving(request, tmp_path_factory.mktemp("roomy"), **AMPLE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own for a module, on which names may be short."""
    found = Server(tmp_path_factory.mktemp("fleet") / "data", {**AMPLE, "name_length": 3}).start("--no-worker")
    yield found
    found.close()


@pytest.fixture
def joe(either: Server) -> Person:
    """Somebody new."""
    return register(either, f"joe{next(_number):05}")


@contextlib.contextmanager
def database(server: Server) -> Iterator[sa.Connection]:
    """Have the database of a server, to let time pass."""
    engine = tables.connect(str(server.settings.get("database") or f"sqlite:///{server.data / 'server.db'}"))
    with engine.begin() as connection:
        yield connection
    engine.dispose()
