"""A router follows a channel made by fussy-publish: what it installs, how it gets it, what it says."""

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
def server(channel: Channel) -> Iterator[Server]:
    with serving(channel.where.channel) as started:
        yield started


@pytest.fixture
def router(tmp_path: Path, keys: Keys, channel: Channel, server: Server) -> Router:
    return Router(tmp_path, keys, channel.where.metadata / "1.root.json", server.url)


def test_the_first_release_then_a_delta_then_nothing_new(channel: Channel, server: Server, router: Router) -> None:
    channel.add(1)
    assert "updated to firmware-1 (version 1.0) by a full bundle" in router.update(expect="updated").line
    assert router.current() == "firmware-1"
    channel.add(2)
    assert "updated from 1.0 to firmware-2 (version 2.0) by a delta bundle" in router.update(expect="updated").line
    assert router.current() == "firmware-2"
    assert router.update(expect="nothing-new").exit_code == 0
    server.requests.clear()
    assert router.update(expect="nothing-new").exit_code == 0
    assert server.requests == ["metadata/timestamp.json"]
    assert list((router.private / "downloads").iterdir()) == []
