"""Images: built, carried in the firmware, failing; and an engine that is absent or hangs."""

import hashlib
import io
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine import Engine, Router, base_image

from paradrop.lib import settings
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import carried, dockerapi, dockerbuild, dockerclient
from paradrop.lib.utils.dockerbuild import Source

pytestmark = pytest.mark.docker

SLEEP = 'CMD ["sleep", "1000"]\n'


def images(engine: Engine) -> set[str]:
    return {str(image["Id"]) for image in engine.client.images(all=True)}


def oci_layout(path: Path, reference: str) -> str:
    """Write an OCI image layout with the base image and return the digest of its configuration."""
    layer = base_image()

    def blob(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (path / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        (path / "blobs/sha256" / digest).write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    layers = [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **blob(layer)}]
    config = blob(json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sleep", "1000"]}, "rootfs": {
        "type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}}).encode())
    manifest = blob(json.dumps({"schemaVersion": 2, "config": {
        "mediaType": "application/vnd.oci.image.config.v1+json", **config}, "layers": layers}).encode())
    index = {"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", **manifest,
                                                "annotations": {"org.opencontainers.image.ref.name": reference}}]}
    (path / "index.json").write_text(json.dumps(index))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(config["digest"])


@pytest.mark.parametrize("text", [
    "FROM busybox\nRUN echo one\nRUN false\n", "FROM busybox\nENV A=1\nENV B=2\nCOPY missing /\n", "nonsense\n", "",
    "FROM 127.0.0.1:1/nowhere/nothing\n",
], ids=["command", "copy", "syntax", "empty", "base"])
def test_a_failed_build_removes_its_own_leftovers_only(engine: Engine, text: str) -> None:
    client = engine.client
    client.create_container("busybox", "true", name="somebody-elses")
    list(client.build(fileobj=io.BytesIO(b"FROM busybox\nENV OTHER=1\n"), rm=True))
    before = images(engine)
    output: list[str] = []
    with pytest.raises(ParadropError, match="Building docker image failed"):
        dockerbuild.obtain(client, Source("bad", "main", dockerfile=text.encode()), output.append)
    assert images(engine) == before
    assert [container["Names"] for container in client.containers(all=True)] == [["/somebody-elses"]]


def test_failing_a_create_says_why_and_streams_the_output(router: Router) -> None:
    before = router.state()
    result = router.update("create", name="bad", dockerfile="FROM busybox\nRUN echo trying; false\n")
    assert not result["success"] and "returned a non-zero code: 1" in result["message"]
    assert any("trying" in text for text in router.progress)
    assert router.state() == before


def test_documented_cleanup_raises_and_spares_others(engine: Engine) -> None:
    client = engine.client
    client.create_container("busybox", "true", name="somebody-elses")
    valid = client.create_container("busybox", "true", labels={dockerclient.LABEL: "good"})
    client.create_container("busybox", "true", labels={dockerclient.LABEL: "bad"})
    built = dockerbuild.obtain(client, Source("bad", "main", dockerfile=b"FROM busybox\nENV A=1\n"), lambda text: None)
    with pytest.raises(ParadropError):
        dockerapi.failAndCleanUpDocker(client.images(), [valid])
    assert len(client.containers(all=True)) == 2 and built.id in images(engine)
    with pytest.raises(ParadropError):
        dockerapi.failAndCleanUpDocker([], [valid])
    assert len(client.containers(all=True)) == 2 and built.id not in images(engine)


def test_an_image_of_the_firmware_is_loaded_once(router: Router) -> None:
    client = router.engine.client
    number = oci_layout(Path(settings.CHUTE_IMAGE_DIR), "example.org/app:2")
    assert number not in images(router.engine)
    router.do("create", name="app", external_image="example.org/app:2")
    assert client.inspect_container("app")["Image"] == number
    router.progress.clear()
    router.do("create", name="other", external_image="example.org/app:2")
    assert not any("Loading" in text for text in router.progress)
    router.do("delete", name="app")
    assert number in images(router.engine), "another chute runs from it"
    router.do("delete", name="other")
    assert number not in images(router.engine)


def test_a_build_starts_from_a_base_in_the_firmware(router: Router) -> None:
    oci_layout(Path(settings.CHUTE_IMAGE_DIR), "example.org/base:1")
    router.do("create", name="app", dockerfile=f"# x\nFROM example.org/base:1 AS one\nENV A=1\n{SLEEP}")
    assert router.engine.client.inspect_container("app")["State"]["Running"]


def test_a_changed_layout_is_found_and_a_damaged_one_is_none(home: Path) -> None:
    layout = home / "images"
    settings.addSetting("CHUTE_IMAGE_DIR", str(layout))
    assert carried.find("app") is None
    oci_layout(layout, "example.org/one:1")
    assert carried.find("example.org/one:1") is not None
    oci_layout(layout, "example.org/other:1")
    assert carried.find("example.org/one:1") is None
    found = carried.find("example.org/other:1")
    assert found is not None and found.image_id.startswith("sha256:")
    for damage in ("no json", "[]", '{"manifests": [{"digest": "sha256:../../../etc/passwd", "annotations": {}}]}'):
        (layout / "index.json").write_text(damage)
        assert carried.find("example.org/other:1") is None


def test_a_layer_that_is_missing_is_told_and_nothing_is_loaded(engine: Engine) -> None:
    layout = Path(settings.CHUTE_IMAGE_DIR)
    oci_layout(layout, "example.org/app:2")
    found = carried.find("example.org/app:2")
    assert found is not None
    (layout / carried.blob(found.layers[0])).unlink()
    before = images(engine)
    with pytest.raises(ParadropError, match="cannot load the image example.org/app:2"):
        dockerbuild.load(engine.client, found, lambda text: None)
    assert images(engine) == before


def test_an_image_that_nobody_has_is_a_clear_error(router: Router) -> None:
    before = router.state()
    result = router.update("create", name="app", external_image="127.0.0.1:1/nobody/has:this")
    assert not result["success"] and "cannot pull the image 127.0.0.1:1/nobody/has:this" in result["message"]
    assert router.state() == before


def test_an_absent_engine_is_a_clear_error_at_once(router: Router) -> None:
    settings.addSetting("DOCKER_HOST", "unix:///nowhere/docker.sock")
    before = time.monotonic()
    result = router.update("create", name="app", dockerfile=f"FROM busybox\n{SLEEP}")
    assert not result["success"] and "no Docker engine answers at unix:///nowhere/docker.sock" in result["message"]
    assert time.monotonic() - before < 2


@pytest.fixture
def hung(engine: Engine) -> Iterator[None]:
    """The engine stands still."""
    pids = [engine.pid, *(int(pid) for pid in engine.run("pgrep", "-P", str(engine.pid)).split())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 10
    while set(engine.run("ps", "-L", "-o", "state=", "-p", ",".join(map(str, pids))).split()) != {"T"}:
        assert time.monotonic() < end, "a thread of the engine goes on"
    yield
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("known", [False, True], ids=["first call", "later call"])
def test_a_hung_engine_is_a_clear_error_within_the_limit(engine: Engine, request: pytest.FixtureRequest,
                                                         known: bool) -> None:
    settings.addSetting("DOCKER_TIMEOUT", 1)
    dockerclient._clients.clear()
    if known:
        dockerclient.checkEngine()
    request.getfixturevalue("hung")
    before = time.monotonic()
    with pytest.raises(ParadropError, match="gave no answer"):
        dockerclient.checkEngine()
    assert time.monotonic() - before < 5


def test_dockers_start_options_are_written_once(home: Path) -> None:
    path = home / "docker"
    settings.addSetting("DOCKER_CONFIG_FILE", str(path))
    dockerapi.writeDockerConfig()
    assert path.read_text() == 'DOCKER_OPTS="--restart=false"\n'
    path.write_text("# mine\nDOCKER_OPTS='--dns 8.8.8.8'\nX=1")
    dockerapi.writeDockerConfig()
    dockerapi.writeDockerConfig()
    assert path.read_text() == '# mine\nDOCKER_OPTS="--dns 8.8.8.8 --restart=false"\nX=1'
