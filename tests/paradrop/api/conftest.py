"""The HTTP face on a real port."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from face import PASSWORD, Queue, Router, Store

from paradrop.backend.pdfcd import accounts, serve
from paradrop.backend.pdfcd.app import make_app
from paradrop.backend.pdfcd.journal import Journal
from paradrop.backend.pdfcd.server import ParadropAPIServer


@pytest.fixture
def router(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    """A router with the users admin, operator and viewer, each with the role of that name."""
    monkeypatch.setattr(accounts, "SCRYPT_COST", 16)
    store, queue = Store(), Queue()
    rest = ParadropAPIServer(queue, store, Journal())
    for name in ("admin", "operator", "viewer"):
        rest.accounts.set_user(name, PASSWORD, name)
    sockets = serve.listen(["127.0.0.1"], 0)
    server = serve.Server(serve.configuration(make_app(rest)))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets)))
    thread.start()
    yield Router(rest, queue, store, sockets[0].getsockname()[1])
    server.should_exit = True
    rest.changes.finish_all("the test is over")
    rest.journal.feed.close()
    thread.join(10)
    assert not thread.is_alive()
