"""Daemons of routers before a real server, without a Docker engine: clones, deleted routers, wrong clocks, outcomes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fussy.updating import history
from tests.registry.conftest import AMPLE, Person, register
from tests.registry.field import Field, ask, state, until
from tests.server.parts import free_port
from tests.server.serverprocess import Server


@pytest.fixture(scope="module")
def joe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """Somebody on a server; each test has routers of its own."""
    place = tmp_path_factory.mktemp("agents")
    server = Server(place / "data", {
        **AMPLE, "name_length": 3, "link_seconds": 1.0, "listen": f"127.0.0.1:{free_port()}"})
    server.start("--no-worker")
    yield register(server, "joe")
    server.close()


@pytest.fixture
def field(joe: Person, tmp_path: Path) -> Iterator[Field]:
    with ExitStack() as undo:
        yield Field(joe.server, joe, tmp_path, undo)


def test_a_copied_disk_and_a_deleted_router(field: Field) -> None:
    first = field.router("first")
    assert field.provision(first, "aardvark")["pdid"] == "pd.joe.aardvark"
    until(lambda: field.shown("aardvark")["awake"])
    shutil.copytree(first.home / "lib", field.place / "second/lib")
    second = field.router("second")
    until(lambda: state(second) == "clone")
    assert ask(second, "GET", "/api/v1/identity")["line"] == \
        "Another router uses this identity: provision this one again."
    assert field.shown("aardvark")["awake"] and field.shown("aardvark")["incident"]
    assert state(first) == "connected"
    assert field.provision(second, "badger", again=True)["pdid"] == "pd.joe.badger"
    until(lambda: field.shown("badger")["awake"])
    assert field.joe.ask("DELETE", "/routers/badger").status == 204
    until(lambda: state(second) == "refused")
    assert ask(second, "GET", "/api/v1/status")["changes"] == 0, "everything local goes on"


@pytest.mark.slow
def test_what_happened_while_the_server_was_away(field: Field) -> None:
    daemon = field.router("router")
    update = daemon.home / "firmware/.fussy/update"
    update.mkdir(parents=True)
    field.provision(daemon, "lemur", again=True)
    until(lambda: field.shown("lemur")["awake"])
    assert (daemon.home / "fussy/update.toml").read_text().count("[hawkbit]") == 1
    field.server.kill()
    history.append(update, history.Event(5, "reverted", "firmware-9: the page is not there", 3, to_version="9"))
    until(lambda: "the page is not there" in (daemon.home / "lib/link/outcomes.json").read_text())
    field.server.start("--no-worker")
    until(lambda: field.shown("lemur")["outcome"])
    assert field.shown("lemur")["outcome"]["line"] == "firmware-9: the page is not there"
    assert field.shown("lemur")["facts"]["firmware"]["target"] == str(daemon.home / "firmware")


@pytest.mark.parametrize(("clock", "shown"), [("1970-01-02", "1970-01-02"), ("2100-01-01", "2100-01-01")])
def test_a_clock_that_is_far_off(field: Field, tmp_path: Path, clock: str, shown: str) -> None:
    """Nothing is kept on either side, and with the clock set the same secret is good."""
    name = f"clock{clock[:4]}"
    field.joe.post("/routers", {"name": name})
    order = field.joe.post(f"/routers/{name}/provision").body
    program = ("import json, sys; from paradrop.backend.link.provisioning import *; from paradrop.lib import settings\n"
               "settings.updateSettings()\ntry: print(provision(Order(*sys.argv[1:], again=True))[0].pdid)\n"
               "except Exception as error: print(error)")
    environment = {"PATH": os.environ["PATH"], "CONFIG_HOME_DIR": f"{tmp_path}/lib", "TZ": "UTC",
                   "FIRMWARE_SETTINGS": f"{tmp_path}/update.toml", "FIRMWARE_KEYRING": f"{tmp_path}/keys"}
    argv = [sys.executable, "-c", program, order["server"], order["secret"]]
    done = subprocess.run(["faketime", clock, *argv], env=environment, capture_output=True, text=True, timeout=60)
    said = done.stdout.strip()
    assert said.startswith("cannot provision: the device's clock is off by ") and f"it says {shown}" in said, done
    assert not (tmp_path / "update.toml").exists() and not (tmp_path / "lib/keys/identity.json").exists()
    assert field.shown(name)["provisioned"] is None
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == f"pd.joe.{name}", done
