"""Clients that mean harm or know no better: an answer with ``error`` and a status of 4xx, and nothing is built."""

import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.server.conftest import MANY, Start
from tests.server.serverprocess import Server, request, write_catalogue

NAMES = ["a\nb", "$(reboot)", "`id`", "../../etc/passwd", "/etc/passwd", "a b", "a;reboot", "a'b", 'a"b', "a\0b", "",
         "-", "--help", "ü", "a" * 101, "a\\", "{{ 7*7 }}", "%s", "PROFILE=x", "a\r\nX-Evil: 1", "\ud800"]
WRONG: list[Any] = [None, 1, 1.5, True, [], {}, [[]], [None], [1], [{}], {"a": []}, {"a": {"b": 1}}, "x", [["a"]]]


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that builds nothing, so that what was let in stays in its queue."""
    place = tmp_path_factory.mktemp("idle")
    server = Server(place / "data", {"catalogue": str(write_catalogue(place / "catalogue", openwrt=True)),
                                     "body_seconds": 1.0, **MANY}).start("--no-worker")
    yield server
    server.close()


def refused(server: Server, path: str, body: Any) -> None:
    content = json.dumps(body).encode("utf-8", "surrogatepass")
    found = server.ask("POST", path, raw=content)
    assert 400 <= found.status < 500, (path, body, found.status, found.data)
    assert found.body["error"], (path, body)
    assert not set("\r\n") & set("".join(found.headers.values()))


PATHS = ("/api/upgrade-request", "/api/build-request", "/api/v1/build")


@pytest.mark.parametrize("path", PATHS)
def test_names_that_no_package_board_or_version_may_have(idle: Server, path: str) -> None:
    openwrt = {"distro": "openwrt", "version": "24.10.0", "target": "ath79/generic"}
    for name in NAMES:
        for wish in (request(profile="generic"), {**openwrt, "profile": "acme_router"}):
            refused(idle, path, {**wish, "packages": [name]})
            refused(idle, path, {**wish, "packages": {name: "1"}})
            if name:
                for key in ("distro", "version", "target", "profile"):
                    refused(idle, path, {**wish, key: name})
        refused(idle, path, {**request(), "packages_versions": {"motd": name or " "}})
    assert idle.get("/api/v1/stats").body == {"queue_length": 0}


@pytest.mark.parametrize("path", ["/api/upgrade-check", *PATHS])
def test_values_of_another_type(idle: Server, path: str) -> None:
    for value in WRONG:
        refused(idle, path, value)
        for key in ("distro", "version", "target", "profile", "packages", "installed", "defaults", "packages_versions"):
            body = {**request(profile="generic"), "installed": {"motd": "2"}, key: value}
            found = idle.post(path, body)
            assert found.status in (200, 202, 204) or (400 <= found.status < 500 and found.body["error"]), (body, found)
    for raw in (b"", b"{", b"\xff\xfe", b"[" * 10_000, b'{"a":' * 10_000, b"null", b'{"distro": "tiny"}{}'):
        found = idle.ask("POST", path, raw=raw)
        assert (found.status, bool(found.body["error"])) == (400, True)


def test_addresses_that_lead_nowhere(idle: Server) -> None:
    for path in ("/store/../../etc/passwd", "/store/%2e%2e/%2e%2e/etc/passwd", f"/store/{'0' * 64}/..%2fkeys",
                 f"/json/{'0' * 64}/../../server.db", "/download/x/buildlog.txt", "/api/image/%00", "/%ff",
                 "/api/manifest/a'b", "/api/models?distro=tiny&version=%00",
                 "/json/v1/releases/%0d%0a/overview.json?distro=tiny"):
        found = idle.get(path)
        assert (found.status in (400, 404), bool(found.body["error"])) == (True, True), path
    assert idle.ask("DELETE", "/api/distros").status == 405


def test_bodies_without_end(idle: Server) -> None:
    host, port = idle.url.removeprefix("http://").split(":")
    head = b"POST /api/build-request HTTP/1.1\r\nHost: a\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(head + b"Content-Length: 10000000000\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(OSError, match=r"reset|pipe"):
            while True:
                client.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")


def test_clients_that_drip(idle: Server) -> None:
    host, port = idle.url.removeprefix("http://").split(":")
    heads = [socket.create_connection((host, int(port)), timeout=20) for _ in range(100)]
    for client in heads:
        client.sendall(b"GET / HTTP/1.1\r\nHost")
    body = socket.create_connection((host, int(port)), timeout=20)
    body.sendall(b"POST /api/build-request HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
    began = time.monotonic()
    assert idle.get("/api/distros").status == 200
    assert body.recv(100).startswith(b"HTTP/1.1 408")
    assert all(client.recv(1) == b"" for client in heads)  # closed
    assert time.monotonic() - began < 15
    for client in (*heads, body):
        client.close()


def test_a_flood_is_held_off_and_others_are_served(start: Start) -> None:
    server = start("--no-worker", client_queue=5, client_hourly=1000, queue_limit=100)

    def ask(number: int) -> tuple[int, bool]:
        wish = request(defaults=f"echo {number}")
        found = urllib3.request("POST", f"{server.url}/api/build-request", json=wish, retries=False,
                                timeout=90)
        return found.status, "Retry-After" in found.headers

    with ThreadPoolExecutor(50) as pool:
        answers = Counter(pool.map(ask, range(300)))
    assert answers == {(202, False): 5, (429, True): 295}
    assert server.get("/api/v1/stats").body == {"queue_length": 5}
    assert server.post("/api/upgrade-check", {"distro": "tiny", "version": "1.0", "target": "x86/64"}).status == 200


@pytest.mark.slow
def test_schemathesis(idle: Server, tmp_path: Path) -> None:
    """The fuzzer of OpenAPI documents finds no answer that the document does not tell of."""
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{idle.url}/openapi.json", "--checks",
         "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
         "--exclude-path-regex", "^/registry/", "--max-examples", "10", "--phases", "coverage,fuzzing", "--seed", "1",
         "--generation-database", "none", "--request-timeout", "20", "--workers", "2", "--no-color"],
        capture_output=True, text=True, timeout=400, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "Traceback" not in idle.log.read_text()
