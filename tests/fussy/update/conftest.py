"""A channel made by ``fussy-publish``, its web server, and a router that follows it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fussy.channels import Channel
from tests.fussy.conftest import Keys

from .router import Router
from .web import Server, serving


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
