"""The main job, with real engines: an image with chutes is built, packed, installed, upgraded, and goes back as one."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest

from fussy.errors import Reverted
from tests.fussy.conftest import Keys
from tests.paradrop.engine import Engine, running
from tests.pdimage.workshop import Workshop

pytestmark = [pytest.mark.docker, pytest.mark.slow]

DOCKERFILE = """FROM busybox
RUN mkdir -p /www && echo 'chute {version}' > /www/index.html
STOPSIGNAL SIGKILL
CMD ["sh", "-c", "echo {version} >>/data/log; {run}"]
"""
CONFIG = """name: web
dockerfile: {local: Dockerfile}
host_config:
  port_bindings: {80: 9000}
"""


@pytest.fixture(scope="module")
def builder() -> Iterator[Engine]:
    with running() as engine:
        yield engine


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """The router's own engine, which knows nothing of the builder's."""
    with running() as engine:
        yield engine


@pytest.fixture
def product(workshop: Workshop, engine: Engine) -> Iterator[Workshop]:
    with engine.inside():
        yield workshop
        workshop.close()
    for container in engine.client.containers(all=True):
        engine.client.remove_container(container["Id"], force=True, v=True)


def image(workshop: Workshop, engine: Engine, packages: Path, version: str, run: str) -> dict[str, Any]:
    workshop.file(f"web-{version}/Dockerfile", DOCKERFILE.format(version=version, run=run))
    workshop.file(f"web-{version}/config.yaml", CONFIG)
    settings = {**workshop.settings(), "DOCKER_HOST": engine.url, "DOCKER_STOP_TIMEOUT": "0",
                "CHUTE_SETTLE_TIME": "0.5"}
    return {"name": f"router-{version}", "version": version, "system": str(workshop.system), "settings": settings,
            "overlay": [str(packages)], "chutes": [{"path": f"web-{version}"}]}


def page() -> str:
    opener = build_opener(ProxyHandler({}))
    for _ in range(50):
        try:
            with opener.open("http://127.0.0.1:9000/", timeout=5) as answer:
                return str(answer.read().decode().strip())
        except OSError:
            time.sleep(0.2)
    return "nothing"


def test_platform_and_chutes_go_forward_and_back_as_one(
        product: Workshop, builder: Engine, engine: Engine, keys: Keys, packages: Path) -> None:
    def install(version: str, run: str = "exec httpd -f -p 80 -h /www") -> None:
        described = image(product, engine, packages, version, run)
        product.install(product.pack(described, keys, engine=builder.url), keys.keyring)

    log = product.place / "state/data/web/log"
    install("1")
    assert (product.running_release(), page()) == ("router-1", "chute 1")
    data = log.read_text()
    assert set(data.split()) == {"1"}
    install("2")
    assert (product.running_release(), page()) == ("router-2", "chute 2")
    data = log.read_text()
    assert data.split()[0] == "1" and data.split()[-1] == "2"

    with pytest.raises(Reverted, match="chutes"):
        install("3", run="echo spoilt >/data/log; exit 1")
    assert (product.running_release(), page()) == ("router-2", "chute 2")
    assert log.read_text().startswith(data)
    assert "3" not in log.read_text().split() and "spoilt" not in log.read_text()

    product.fussy("rollback")
    assert (product.running_release(), page()) == ("router-1", "chute 1")
    assert "2" not in log.read_text().split()
    done = subprocess.run([product.system / "usr/local/bin/paradrop", "chute", "list", "localhost", str(product.port)],
                          capture_output=True, text=True, timeout=60, check=False)
    assert "web" in done.stdout, done.stderr


def test_a_chute_that_cannot_be_built_shows_the_end_of_its_output_and_leaves_no_tree(
        workshop: Workshop, builder: Engine) -> None:
    workshop.file("bad/Dockerfile", "FROM busybox\nRUN echo compiling && echo 'no such header' >&2 && exit 7\n")
    workshop.file("bad/config.yaml", "name: bad\ndockerfile: {local: Dockerfile}\n")
    workshop.describe({"name": "r", "version": "1", "chutes": [{"path": "bad"}]})
    done = subprocess.run([sys.executable, "-m", "pdimage", "build", workshop.place / "image.yaml", "--cache",
                           workshop.place / "c", "--engine", builder.url, "-o", workshop.place / "tree"],
                          check=False, timeout=120, capture_output=True, text=True)
    assert done.returncode == 51
    assert "no such header" in done.stderr and "bad" in done.stderr and "Traceback" not in done.stderr
    assert not (workshop.place / "tree").exists()
    assert not list(workshop.place.glob(".tree.*"))
