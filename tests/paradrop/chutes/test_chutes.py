"""The example chutes: their descriptors, and what they do on a real engine."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from engine import Engine
from process import PORT, Daemon, running

from paradrop.lib import descriptor
from paradrop.tools import project

ROOT = Path(__file__).resolve().parents[3]
CHUTES = ROOT / "pdimage/chutes"
NAMES = sorted(path.name for path in CHUTES.iterdir() if path.is_dir())
THERE = ("localhost", str(PORT))


@pytest.mark.parametrize("name", NAMES)
def test_descriptors_are_right(name: str) -> None:
    found = project.read(CHUTES / name)
    assert found.name == name
    assert descriptor.mistakes(found.config) == []
    assert (CHUTES / name / "README.rst").exists()
    assert name in (CHUTES / "README.rst").read_text()


@pytest.mark.parametrize("name", ["hello-world", "parental-controls", "virtual-router"])
def test_the_form_of_2015(name: str) -> None:
    content = yaml.safe_load((CHUTES / name / "config.yaml").read_text())
    assert content["dockerfile"] == {"local": "Dockerfile"}
    assert {"owner", "date", "name", "description"} <= set(content)
    found = project.read(CHUTES / name / "config.yaml")
    assert found.archive is None, "the documented API takes the Dockerfile alone"
    assert found.config["dockerfile"].startswith("FROM ")
    assert found.config["date"] == "2015-07-13"


def test_documented_network_of_virtual_router() -> None:
    (interface,) = descriptor.parse(project.read(CHUTES / "virtual-router").config).interfaces
    assert (interface.wireless.ssid, interface.wireless.key) == ("Paradrop-Network", "ParadropRocks!")


@pytest.fixture(scope="module")
def engine(engine_of_session: Engine) -> Iterator[Engine]:
    """The engine with the images that scripts/base-images makes."""
    try:
        subprocess.run([ROOT / "scripts/base-images"], check=True, capture_output=True, text=True, timeout=120,
                       env={"PATH": os.environ["PATH"], "DOCKER_HOST": engine_of_session.url})
    except subprocess.CalledProcessError as error:
        pytest.skip(error.stderr.strip())
    yield engine_of_session
    engine_of_session.clear()


@pytest.mark.docker
def test_the_count_of_visitors_survives_an_update(engine: Engine, tmp_path: Path) -> None:
    page = "http://127.0.0.1:9001/cgi-bin/visit"
    with running(Daemon(tmp_path, engine)) as router:
        output = router.paradrop("chute", "install", *THERE, ".", cwd=CHUTES / "visitor-counter")
        assert output.splitlines()[-1] == "Chute visitor-counter create success"
        assert router.await_page(page) == "Visitors: 1\n"
        assert router.page(page) == "Visitors: 2\n"
        subprocess.run(["cp", "-r", CHUTES / "visitor-counter", tmp_path / "new"], check=True)
        text = (tmp_path / "new/paradrop.yaml").read_text()
        text = text.replace("version: 1", "version: 2").replace("Visitors", "Guests")
        (tmp_path / "new/paradrop.yaml").write_text(text)
        router.paradrop("chute", "update", *THERE, "new")
        assert router.await_page(page) == "Guests: 3\n"
        assert "2" in router.paradrop("chute", "list", *THERE).splitlines()[1].split()
        router.paradrop("chute", "delete", *THERE, "visitor-counter")
        assert not (tmp_path / "lib/data/visitor-counter").exists()
        assert list((tmp_path / "lib/uploads").iterdir()) == []


@pytest.mark.docker
def test_a_chute_that_needs_a_radio_says_so_and_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    with running(Daemon(tmp_path, engine)) as router:
        output = router.paradrop("chute", "install", *THERE, "config.yaml", cwd=CHUTES / "virtual-router", code=1)
        assert output.splitlines()[-1].startswith("ERROR: Failed to install chute.(")
        assert "wifi" in output.splitlines()[-1].lower() or "device" in output.splitlines()[-1]
        names = [name for item in engine.client.containers(all=True) for name in item["Names"]]
        assert "/virtual-router" not in names
        assert "virtual-router" not in router.paradrop("chute", "list", *THERE)


def build(engine: Engine, name: str) -> str:
    subprocess.run(["docker", "build", "-q", "-t", name, str(CHUTES / name)], check=True, capture_output=True,
                   timeout=120, env={"PATH": os.environ["PATH"], "DOCKER_HOST": engine.url, "DOCKER_BUILDKIT": "0"})
    client = engine.client
    container = client.create_container(
        name, name=name, host_config=client.create_host_config(cap_add=["NET_ADMIN"], dns=["127.0.0.1"]),
        environment={"CP_TITLE": "Welcome", "CP_TERMS": "Be kind."})
    client.start(container["Id"])
    return str(container["Id"])


def rules(engine: Engine, container: str) -> str:
    client = engine.client
    texts = []
    for table in ("filter", "nat"):
        made = client.exec_create(container, ["iptables", "-t", table, "-S"])
        texts.append(client.exec_start(made["Id"]).decode())
    return "\n".join(texts)


@pytest.mark.docker
@pytest.mark.parametrize(("name", "rule"), [
    ("virtual-router", "-A POSTROUTING -o eth0 -j MASQUERADE"),
    ("parental-controls", "--dport 53 -j DNAT --to-destination 208.67.222.123:53"),
])
def test_routers_in_containers(engine: Engine, name: str, rule: str) -> None:
    container = build(engine, name)
    for _ in range(50):
        text = rules(engine, container)
        if rule in text and "MASQUERADE" in text:
            break
    assert rule in text
    assert engine.client.inspect_container(container)["State"]["Running"]
    engine.client.remove_container(container, force=True)


@pytest.mark.docker
def test_the_captive_portal_lets_in_who_accepts(engine: Engine, tmp_path: Path) -> None:
    container = build(engine, "captive-portal")
    address = engine.client.inspect_container(container)["NetworkSettings"]["IPAddress"]
    guest = Daemon(tmp_path, engine)
    url = f"http://{address}/cgi-bin/portal"
    assert "Be kind." in str(guest.await_page(url))
    before = rules(engine, container)
    assert "-P FORWARD DROP" in before
    assert "-A GUESTS" not in before
    with engine.inside():
        import urllib3

        answer = urllib3.request("POST", url, body=b"", timeout=10, retries=False)
    assert b"You are online." in answer.data
    after = rules(engine, container)
    assert after.count("-A GUESTS -s 172.31.7.1/32 -j ACCEPT") == 2
    assert "You are online." in str(guest.page(url))
    engine.client.remove_container(container, force=True)
