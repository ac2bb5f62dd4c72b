"""Chutes in the tree: built by a real engine, given as archives, carried without an engine; always the same bytes."""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paradrop.lib import descriptor
from paradrop.lib.utils import carried
from paradrop.lib.utils.dockerclient import LABEL
from pdimage import containers
from pdimage.components import Component
from pdimage.description import ChuteSource
from pdimage.errors import PartFailed
from tests.paradrop.engine import Engine, base_image, running

DOCKERFILE = """FROM busybox
RUN mkdir -p /www && echo {text} > /www/index.html
COPY start /start
CMD ["sleep", "1000"]
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running() as engine:
        yield engine


@pytest.fixture
def clean(engine: Engine) -> Iterator[Engine]:
    yield engine
    engine.clear()


@pytest.fixture(autouse=True)
def no_engine_but_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


def chute(place: Path, name: str, dockerfile: str = DOCKERFILE.format(text="hello"), **config: Any) -> ChuteSource:
    directory = place / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "Dockerfile").write_text(dockerfile)
    (directory / "start").write_text("#!/bin/sh\n")
    return ChuteSource(name, directory, config={"name": name, "dockerfile": {"local": "Dockerfile"}, **config})


def install(tree: Path, *arguments: Any) -> tuple[Component, ...]:
    tree.mkdir(parents=True)
    return containers.install(tree, *arguments)


def contents(tree: Path) -> dict[str, str]:
    return {str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(tree.rglob("*")) if path.is_file()}


def layer(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), 1_700_000_000
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def oci_archive(path: Path, *layers: bytes, packed: bool = False, wrong: bool = False) -> str:
    """Write an OCI archive by hand; return the digest of its configuration."""
    blobs: dict[str, bytes] = {}

    def blob(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"digest": f"sha256:{digest}", "size": len(content)}

    diff_ids = [f"sha256:{hashlib.sha256(b'' if wrong else one).hexdigest()}" for one in layers]
    config = blob(json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sleep", "1000"]}, "rootfs": {
        "type": "layers", "diff_ids": diff_ids}}).encode())
    manifest = blob(json.dumps({"schemaVersion": 2, "config": config, "layers": [
        blob(gzip.compress(one) if packed else one) for one in layers]}).encode())
    index = {"schemaVersion": 2, "manifests": [manifest]}
    with tarfile.open(path, "w") as tar:
        for name, content in {**blobs, "index.json": json.dumps(index).encode(),
                              "oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return str(config["digest"])


@pytest.mark.docker
def test_chutes_are_built_share_layers_and_run_from_the_layout(clean: Engine, tmp_path: Path) -> None:
    one = chute(tmp_path, "one", version=3)
    two = chute(tmp_path, "two", DOCKERFILE.format(text="hello") + "ENV A=1\nRUN echo more > /more\n")
    tree = tmp_path / "tree"
    found = install(tree, [one, two], tmp_path / "cache", clean.url)
    assert (found[0].kind, found[0].name, found[0].version) == ("container", "one", "3")
    assert all((tree / file).is_file() for part in found for file in part.files)
    first, second = carried.images(tree / "share/oci")
    assert first.layers == second.layers[:3] and len(second.layers) == 4
    assert {path.name for path in (tree / "share/oci/blobs/sha256").iterdir()} == {
        file.rpartition("/")[2] for part in found for file in part.files}
    # what the router gets: a descriptor that asks for this very image, and an engine that has never seen it
    described = json.loads((tree / "share/chutes/one/chute.json").read_bytes())
    spec = descriptor.parse(described["descriptor"])
    assert (spec.version, spec.services[0].type, spec.services[0].image) == (3, "image", first.reference)
    clean.clear()
    client = clean.client
    for image in (first, second):
        list(client.load_image(carried.docker_archive(image)))
        assert client.inspect_image(image.image_id)["RepoTags"] == [image.reference]
    container = client.create_container(second.image_id, ["cat", "/www/index.html", "/more"])
    client.start(container)
    assert client.wait(container)["StatusCode"] == 0
    assert client.logs(container) == b"hello\nmore\n"


@pytest.mark.docker
def test_building_again_elsewhere_on_another_day_gives_the_same_bytes(clean: Engine, tmp_path: Path) -> None:
    install(tmp_path / "a/tree", [chute(tmp_path / "a", "one")], tmp_path / "a/cache", clean.url)
    clean.clear()
    time.sleep(1.1)  # files have whole seconds
    again = chute(tmp_path / "b", "one")
    assert again.path
    os.utime(again.path / "start", (1, 2_000_000_000))
    client = clean.client
    list(client.build(path=str(again.path), nocache=True))  # its layers hold other times
    install(tmp_path / "b/tree", [again], tmp_path / "b/cache", clean.url)
    assert contents(tmp_path / "a/tree") == contents(tmp_path / "b/tree")


@pytest.mark.docker
def test_only_the_chute_that_changed_is_built_again(clean: Engine, tmp_path: Path) -> None:
    chutes = [chute(tmp_path, f"chute{number}") for number in range(4)]
    install(tmp_path / "one", chutes, tmp_path / "cache", clean.url)
    clean.clear()  # what the engine builds from now on is all that it has
    changed = [*chutes[:3], chute(tmp_path, "chute3", DOCKERFILE.format(text="bye"))]
    install(tmp_path / "two", changed, tmp_path / "cache", clean.url)
    labels = [image["Labels"] or {} for image in clean.client.images()]
    assert {found[LABEL] for found in labels if LABEL in found} == {"chute3"}
    install(tmp_path / "three", changed, tmp_path / "new cache", clean.url)
    assert contents(tmp_path / "two") == contents(tmp_path / "three")
    old, new = contents(tmp_path / "one"), contents(tmp_path / "two")
    base = max(old, key=lambda path: (tmp_path / "one" / path).stat().st_size)
    assert base in new
    assert {path for path in old if path.startswith("share/chutes") and old[path] != new[path]} == {
        "share/chutes/chute3/chute.json"}


@pytest.mark.docker
@pytest.mark.parametrize("change", ["base", "file", "mode", "link"])
def test_whatever_a_container_is_built_from_counts(clean: Engine, tmp_path: Path, change: str) -> None:
    def base(text: str) -> None:
        list(clean.client.build(fileobj=io.BytesIO(f"FROM busybox\nENV A={text}\n".encode()), tag="base:1", rm=True))

    base("1")
    source = chute(tmp_path, "one", "FROM base:1\nCOPY . /there\n")
    assert source.path
    (source.path / "link").symlink_to("start")
    install(tmp_path / "tree-1", [source], tmp_path / "cache", clean.url)
    if change == "base":
        base("2")
    elif change == "file":
        (source.path / "start").write_text("changed")
    elif change == "mode":
        (source.path / "start").chmod(0o600)
    else:
        (source.path / "link").unlink()
        (source.path / "link").symlink_to("Dockerfile")
    install(tmp_path / "tree-2", [source], tmp_path / "cache", clean.url)
    first, second = (carried.images(tmp_path / tree / "share/oci")[0] for tree in ("tree-1", "tree-2"))
    assert first.image_id != second.image_id


@pytest.mark.docker
def test_a_failing_dockerfile_shows_the_end_of_its_output(clean: Engine, tmp_path: Path) -> None:
    bad = chute(tmp_path, "bad", "FROM busybox\nRUN echo trying hard; echo no luck >&2; exit 3\n")
    with pytest.raises(PartFailed) as failed:
        install(tmp_path / "tree", [bad], tmp_path / "cache", clean.url)
    text = str(failed.value)
    assert text.startswith(f"cannot build the container of bad from {bad.path}: Building docker image failed")
    assert "    trying hard" in text and "    no luck" in text and "returned a non-zero code: 3" in text


@pytest.mark.docker
def test_what_docker_saves_is_taken_as_it_is(clean: Engine, tmp_path: Path) -> None:
    client = clean.client
    list(client.build(fileobj=io.BytesIO(b"FROM busybox\nRUN echo saved > /saved\n"), tag="saved:1", rm=True))
    number = client.inspect_image("saved:1")["Id"]
    archive = tmp_path / "saved.tar"
    archive.write_bytes(b"".join(client.get_image("saved:1")))
    install(tmp_path / "tree", [ChuteSource("saved", archive=archive)], tmp_path / "cache")
    (image,) = carried.images(tmp_path / "tree/share/oci")
    assert image.image_id == number, "it keeps the id that the user knows"
    described = json.loads((tmp_path / "tree/share/chutes/saved/chute.json").read_bytes())["descriptor"]
    assert descriptor.parse(described).services[0].image == image.reference


@pytest.mark.parametrize("packed", [False, True])
def test_oci_archives_are_taken_and_unpacked(tmp_path: Path, packed: bool) -> None:
    base = base_image() if shutil.which("busybox") else layer(bin=b"x" * 5000)
    number = oci_archive(tmp_path / "image.tar", base, layer(page=b"hello"), packed=packed)
    subprocess.run(["gzip", "-k", tmp_path / "image.tar"], check=True, timeout=60)
    for name in ("image.tar", "image.tar.gz"):
        config = {"net": {"lan": {"type": "lan", "intfName": "eth1"}}}
        source = ChuteSource("app", archive=tmp_path / name, config=config)
        install(tmp_path / f"tree-{name}", [source], tmp_path / "cache")
        (image,) = carried.images(tmp_path / f"tree-{name}/share/oci")
        assert image.image_id == number
        assert (image.layout / carried.blob(image.layers[0])).read_bytes() == base
    assert contents(tmp_path / "tree-image.tar") == contents(tmp_path / "tree-image.tar.gz")


@pytest.mark.parametrize(("damage", "said"), [
    ("text", "cannot use .*image.tar as an image"), ("other tar", "neither a manifest.json nor an index.json"),
    ("cut", "cannot use .*image.tar as an image"), ("wrong layer", "is not the one that its configuration names"),
])
def test_what_is_no_image_is_refused(tmp_path: Path, damage: str, said: str) -> None:
    archive = tmp_path / "image.tar"
    oci_archive(archive, layer(page=os.urandom(20000)), packed=True, wrong=damage == "wrong layer")
    if damage == "text":
        archive.write_text("no image")
    elif damage == "other tar":
        archive.write_bytes(layer(page=b"x"))
    elif damage == "cut":
        archive.write_bytes(archive.read_bytes()[:15000])
    with pytest.raises(PartFailed, match=said):
        install(tmp_path / "tree", [ChuteSource("app", archive=archive)], tmp_path / "cache")
    assert not list((tmp_path / "cache/containers/blobs").glob("tmp*"))


def test_an_archive_is_one_service(tmp_path: Path) -> None:
    oci_archive(tmp_path / "image.tar", layer(page=b"x"))
    config = {"services": {"one": {"type": "image", "image": "a"}, "two": {"type": "image", "image": "b"}}}
    with pytest.raises(PartFailed, match="has 2 services"):
        install(tmp_path / "tree", [ChuteSource("app", archive=tmp_path / "image.tar", config=config)], tmp_path / "c")


def test_a_damaged_cache_does_not_become_a_firmware(tmp_path: Path) -> None:
    oci_archive(tmp_path / "image.tar", layer(page=b"hello"))
    source = ChuteSource("app", archive=tmp_path / "image.tar")
    install(tmp_path / "one", [source], tmp_path / "cache")
    (image,) = carried.images(tmp_path / "one/share/oci")
    blob = tmp_path / "cache/containers" / carried.blob(image.layers[0])
    blob.write_bytes(blob.read_bytes().replace(b"hello", b"hxllo"))
    with pytest.raises(PartFailed, match="was damaged; build again"):
        install(tmp_path / "two", [source], tmp_path / "cache")
    install(tmp_path / "three", [source], tmp_path / "cache")
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_without_an_engine_chutes_are_carried_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if Path("/var/run/docker.sock").exists():
        pytest.skip("a Docker engine is here")
    source = chute(tmp_path, "one")
    assert install(tmp_path / "tree", [source], tmp_path / "cache") == ()
    assert "no Docker engine is here" in caplog.text
    described = json.loads((tmp_path / "tree/share/chutes/one/chute.json").read_bytes())
    assert descriptor.parse(described["descriptor"]).services[0].type == "normal"
    assert (tmp_path / "tree/share/chutes/one/files/Dockerfile").is_file()
    assert not (tmp_path / "tree/share/oci").exists()
    assert source.path
    (source.path / "start").write_text("changed")
    install(tmp_path / "other", [source], tmp_path / "cache")
    assert json.loads((tmp_path / "other/share/chutes/one/chute.json").read_bytes())["files"] != described["files"]


def test_an_engine_that_was_named_must_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(PartFailed, match="Docker engine at unix:///nowhere/docker.sock"):
        install(tmp_path / "tree", [chute(tmp_path, "one")], tmp_path / "cache")


def test_what_is_not_carried_is_never_looked_for_in_a_registry() -> None:
    assert containers.REGISTRY.endswith(".invalid")
    assert carried.normal(f"{containers.REGISTRY}/a/b:c") == f"{containers.REGISTRY}/a/b:c"
