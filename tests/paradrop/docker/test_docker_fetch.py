"""Projects fetched over HTTP: what is unpacked, and what is refused."""

import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from engine import Router

from paradrop.lib.chutespec import Download
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import fetch


def archive(files: dict[str, bytes], mode: str = "w:gz", **entry: object) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in entry.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], str]]:
    """A function that serves some bytes to those who say they are me:secret, and returns the address."""
    content = b""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers["Authorization"] != "Basic bWU6c2VjcmV0":
                self.send_error(401)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def start(what: bytes) -> str:
        nonlocal content
        content = what
        return f"http://127.0.0.1:{server.server_port}/project.tar.gz"

    yield start
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_project_is_fetched_and_its_dockerfile_found(serve: Callable[[bytes], str], tmp_path: Path,
                                                       mode: str) -> None:
    url = serve(archive({"x-1/README": b"", "x-1/app/Dockerfile": b"FROM a", "x-1/app/deep/Dockerfile": b"no"}, mode))
    found = fetch.project(Download(url, "me", "secret"), tmp_path)
    assert found == tmp_path / "x-1" / "app" and (found / "Dockerfile").read_bytes() == b"FROM a"


def test_refusals_of_the_server_are_told(serve: Callable[[bytes], str], tmp_path: Path) -> None:
    with pytest.raises(ParadropError, match="cannot fetch http.*401"):
        fetch.project(Download(serve(b"")), tmp_path)
    with pytest.raises(ParadropError, match="cannot fetch http://127.0.0.1:1/"):
        fetch.project(Download("http://127.0.0.1:1/"), tmp_path)


@pytest.mark.parametrize("content", [
    b"no tar", b"", archive({"../outside": b"x"}), archive({"/abs/../../outside": b"x"}),
    archive({"link": b""}, type=tarfile.SYMTYPE, linkname="../../outside"),
    archive({"device": b""}, type=tarfile.CHRTYPE), archive({"a": b"x" * 100})[:-30],
], ids=["text", "empty", "parent", "absolute", "link", "device", "cut"])
def test_hostile_archives_are_refused(tmp_path: Path, content: bytes) -> None:
    target = tmp_path / "in" / "here"
    target.mkdir(parents=True)
    with pytest.raises(ParadropError, match="cannot unpack the chute"):
        fetch.unpack(io.BytesIO(content), target)
    assert not list(tmp_path.rglob("outside"))


def test_too_large_an_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "LARGEST", 1000)
    with pytest.raises(ParadropError, match="more than 1000 bytes"):
        fetch.unpack(io.BytesIO(archive({"zeros": bytes(5000)})), tmp_path)


@pytest.mark.docker
def test_a_chute_is_built_from_a_download(router: Router, serve: Callable[[bytes], str]) -> None:
    url = serve(archive({"x/page": b"hello",
                         "x/Dockerfile": b'FROM busybox\nCOPY page /www/\nCMD ["sleep", "1000"]\n'}))
    router.do("create", name="app", download={"url": url, "user": "me", "secret": "secret"})
    client = router.engine.client
    assert client.exec_start(client.exec_create("app", ["cat", "/www/page"])["Id"]) == b"hello"


@pytest.mark.docker
def test_a_chute_is_built_from_a_directory(router: Router, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "Dockerfile").write_text('FROM busybox\nCOPY page /www/\nCMD ["sleep", "1000"]\n')
    (tmp_path / "project" / "page").write_text("hello")
    router.do("create", name="app", dockerfile={"local": "Dockerfile"}, workdir=str(tmp_path / "project"))
    client = router.engine.client
    assert client.exec_start(client.exec_create("app", ["cat", "/www/page"])["Id"]) == b"hello"
