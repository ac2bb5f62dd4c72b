"""Servers by https: who may vouch for them, and the way through a proxy."""

import base64
import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fussy.errors import SystemSetup, Unreachable
from fussy.updating import downloads, sources

from .test_http import FILE, limits, no_pause, place, server, whole
from .web import Server

__all__ = ["no_pause", "place", "server"]


def certificate(where: Path, name: str, *more: str | Path) -> Path:
    """Make a certificate with the key beside it; by itself, or as MORE tells openssl."""
    made = where / f"{name}.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-subj", f"/CN={name}", "-keyout", where / f"{name}.key", "-out", made, *more],
                   check=True, capture_output=True)
    return made


@pytest.fixture
def secure(server: Server, tmp_path: Path) -> str:
    """Make the SERVER one by https, whose certificate (``own.pem``) is given by ``ours.pem``; return its URL."""
    for name in ("ours", "other"):
        certificate(tmp_path, name)
    own = certificate(tmp_path, "own", "-CA", tmp_path / "ours.pem", "-CAkey", tmp_path / "ours.key",
                      "-addext", "subjectAltName=DNS:localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, tmp_path / "own.key")
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    return server.url.replace("http://127.0.0.1", "https://localhost")


def get(place: Path, url: str, route: sources.Route) -> Path:
    downloads.forget(place)
    return downloads.fetch(place, FILE, [sources.connect(url, limits(), route)])


def test_the_owner_names_who_may_vouch_for_a_server(server: Server, secure: str, place: Path, tmp_path: Path) -> None:
    """An authority, or the server's own certificate; it must be for the name by which the server is asked."""
    def route(name: str) -> sources.Route:
        return sources.Route("none", str(tmp_path / name) if name else "")

    for name in ("ours.pem", "own.pem"):
        whole(place, get(place, secure, route(name)))
    for url, name in ((secure, "other.pem"), (secure, ""), (secure.replace("localhost", "127.0.0.1"), "ours.pem")):
        with pytest.raises(Unreachable, match="can't prove who it is: .*certificate verify failed"):
            get(place, url, route(name))
    assert len(server.requests) == 2
    (tmp_path / "empty.pem").touch()
    for name, why in (("nobody.pem", "No such file or directory"), ("empty.pem", "it has no certificate")):
        with pytest.raises(SystemSetup, match=f"cannot use .*{name}: {why};.* as `authority` of the settings"):
            get(place, secure, route(name))


class Proxy:
    """Makes tunnels (CONNECT) for who shows PASSWORD; ``asked`` are the first lines of the requests."""

    def __init__(self, password: str) -> None:
        self.asked: list[str] = []
        self.token = base64.b64encode(password.encode())
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.tunnel, args=(client,), daemon=True).start()

    def tunnel(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(1 << 16)
            line = head.split(b"\r\n")[0].decode()
            self.asked.append(line)
            if b"authorization: Basic " + self.token + b"\r\n" not in head:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            host, _, port = line.split()[1].rpartition(":")
            with socket.create_connection((host, int(port)), timeout=20) as there:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=relay, args=(there, client), daemon=True)
                back.start()
                relay(client, there)
                back.join(20)


def relay(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy("joe:pass@word")
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    yield made
    made.listener.shutdown(socket.SHUT_RDWR)
    made.listener.close()
    thread.join(10)


def test_a_proxy_that_wants_a_password(server: Server, secure: str, place: Path, tmp_path: Path, proxy: Proxy,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the server that must prove who it is, as without a proxy."""
    good, ours = f"http://joe:pass%40word@{proxy.address}", str(tmp_path / "ours.pem")
    whole(place, get(place, secure, sources.Route(good, ours)))
    (asked,) = proxy.asked
    assert asked.startswith(f"CONNECT localhost:{secure.rpartition(':')[2]} HTTP/1.")
    monkeypatch.setenv("https_proxy", good.removeprefix("http://"))
    whole(place, get(place, secure, sources.Route(authority=ours)))
    assert (len(proxy.asked), len(server.requests)) == (2, 2)
    with pytest.raises(Unreachable, match="can't prove who it is"):
        get(place, secure, sources.Route(good, str(tmp_path / "other.pem")))
    with pytest.raises(Unreachable, match="reached by the proxy: .*407 Proxy Authentication Required; see `proxy` of"):
        get(place, secure, sources.Route(f"http://{proxy.address}", ours))
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(Unreachable, match="reached by the proxy: Connection refused; see `proxy` of the settings"):
        get(place, secure, sources.Route(f"http://127.0.0.1:{port}", ours))
    assert len(server.requests) == 2
