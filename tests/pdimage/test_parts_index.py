"""Wheels through pip, from an index of our own on the loopback."""

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pdimage import pythonparts
from pdimage.components import Component
from pdimage.errors import Mistakes, PartFailed
from pdimage.machine import Machine
from tests.pdimage.wheelmaker import make_wheel, sha256


class Index:
    """A package index (PEP 503) that remembers what was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        asked = self.asked

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, form: str, *rest: object) -> None:
                asked.append(self.path)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))

    def add(self, name: str, tag: str = "py3-none-any") -> Path:
        wheel = make_wheel(self.root / name, name, tag=tag)
        files = sorted((self.root / name).glob("*.whl"))
        (self.root / name / "index.html").write_text("".join(
            f'<a href="{file.name}#sha256={sha256(file)}">{file.name}</a>\n' for file in files))
        return wheel

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    found = Index(tmp_path / "index")
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", found.url)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join(10)


def lock(tmp_path: Path, *found: Path) -> Path:
    file = tmp_path / "lock.txt"
    file.write_text("".join(f"{wheel.parent.name}==1.0 --hash=sha256:{sha256(wheel)}\n" for wheel in found))
    return file


def install(tmp_path: Path, tree: str, file: Path, machine: Machine | None = None) -> tuple[Component, ...]:
    return pythonparts.install(
        tmp_path / tree, requirements=file, own=(), cache=tmp_path / "cache", machine=machine)


def test_what_was_fetched_once_is_not_fetched_again(tmp_path: Path, index: Index) -> None:
    file = lock(tmp_path, index.add("demo"))
    first = install(tmp_path, "first", file)
    assert any(path.endswith(".whl") for path in index.asked)
    index.asked.clear()
    assert install(tmp_path, "second", file) == first
    assert not index.asked
    assert (tmp_path / "second/lib/python/demo.py").is_file()


def test_a_package_can_be_locked_by_its_address(tmp_path: Path, index: Index) -> None:
    wheel = index.add("demo")
    file = tmp_path / "lock.txt"
    file.write_text(f"demo @ {index.url}demo/{wheel.name} --hash=sha256:{sha256(wheel)}\n")
    [component] = install(tmp_path, "tree", file)
    assert (component.name, component.version, component.sha256) == ("demo", "1.0", sha256(wheel))


def test_a_damaged_cache_is_noticed(tmp_path: Path, index: Index) -> None:
    file = lock(tmp_path, index.add("demo"))
    install(tmp_path, "first", file)
    [kept] = (tmp_path / "cache").rglob("*.whl")
    kept.write_bytes(b"garbage")
    index.asked.clear()
    install(tmp_path, "second", file)
    assert index.asked


def test_what_the_index_changed_is_not_taken(tmp_path: Path, index: Index) -> None:
    index.add("demo")
    file = tmp_path / "lock.txt"
    file.write_text(f"demo==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(PartFailed, match="DO NOT MATCH THE HASHES"):
        install(tmp_path, "tree", file)
    assert not (tmp_path / "tree").exists()


def test_all_packages_without_a_fitting_wheel_are_told(tmp_path: Path, index: Index) -> None:
    file = lock(tmp_path, index.add("native", "cp311-cp311-manylinux_2_17_s390x"), index.add("plain"),
                index.add("strange", "cp27-cp27m-win32"))
    file.write_text(file.read_text() + f"absent==3 --hash=sha256:{'1' * 64}\n")
    with pytest.raises(Mistakes) as caught:
        install(tmp_path, "tree", file, Machine("3.11", "aarch64", "2.31"))
    text = str(caught.value)
    assert "3 mistakes" in text
    assert f"{file}:1: native-1.0-cp311-cp311-manylinux_2_17_s390x.whl is made for another machine" in text
    assert f"{file}:3: strange-1.0-cp27-cp27m-win32.whl is made for another machine" in text
    assert f"{file}:4: pip finds no wheel of absent==3 for Python 3.11 on aarch64" in text


def test_an_index_that_is_down_is_no_mistake_of_the_user(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lock(tmp_path, index.add("demo"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(PartFailed, match="pip says"):
        install(tmp_path, "tree", file)
