"""Chutes on a real engine: installed, stopped, started, updated, rolled back, deleted."""

import time
import urllib.request

import pytest
from engine import Router

from paradrop.backend.fc.chutestorage import ChuteStorage

pytestmark = pytest.mark.docker

PAGE = 'FROM busybox\nRUN echo "hello from {}" > /www/index.html\nCMD ["httpd", "-f", "-p", "80", "-h", "/www"]\n'


def page(version: int | str = 1) -> str:
    return PAGE.format(version)


def get(url: str) -> str:
    """Fetch a page. The test's thread is in the router's network namespace."""
    for _ in range(20):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except ConnectionError:
            time.sleep(0.1)  # the server is just starting
    raise ConnectionError(url)


def test_the_documented_walk(router: Router) -> None:
    before = router.state()
    hello = {"name": "hello-world", "dockerfile": page(), "host_config": {"port_bindings": {80: 9000}}}
    router.do("create", **hello)
    assert "hello from 1" in get("http://127.0.0.1:9000/")
    assert any("Step 1/" in text for text in router.progress)
    router.do("stop", name="hello-world")
    with pytest.raises(OSError):
        get("http://127.0.0.1:9000/")
    assert ChuteStorage().getChute("hello-world").state == "stopped"
    router.do("start", name="hello-world")
    assert "hello from 1" in get("http://127.0.0.1:9000/")
    router.do("delete", name="hello-world")
    after = router.state()
    for part in ("containers", "images", "links", "rules", "store", "directories", "networks", "journal"):
        assert after[part] == before[part], part
