"""A channel made by ``fussy-publish``, its web server, and a router that follows it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fussy.channels import Channel
from tests.fussy.conftest import Keys
from tests.fussy.firmware import Firmware

from .ddi import TOKEN, Hawkbit, table
from .router import Router
from .web import Server, running, serving


@pytest.fixture
def channel(tmp_path: Path, keys: Keys) -> Channel:
    made = Channel(tmp_path, keys)
    made.init()
    return made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "channel") as started:
        yield started


@pytest.fixture
def router(tmp_path: Path, keys: Keys, channel: Channel, server: Server) -> Router:
    return Router(tmp_path, keys, channel.where.metadata / "1.root.json", server.url)


@pytest.fixture
def firmware(tmp_path: Path, keys: Keys) -> Firmware:
    return Firmware(tmp_path, keys)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Hawkbit]:
    (tmp_path / "bundles").mkdir()
    with running(Hawkbit(tmp_path / "bundles")) as server:
        yield server


@pytest.fixture
def led(tmp_path: Path, keys: Keys, fleet: Hawkbit) -> Router:
    """A router that has only the hawkBit server to ask."""
    (tmp_path / "none").write_text("")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return Router(tmp_path, keys, tmp_path / "none", product="", hawkbit=table(fleet, tmp_path))
