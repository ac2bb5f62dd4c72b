"""A server of routers that does as it is told: certificates, the address for provisioning, and links."""

import contextlib
import datetime
import json
import queue
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from paradrop.backend.link import messages
from paradrop.backend.link.messages import (
    Answer,
    Challenge,
    End,
    FromRouter,
    FromServer,
    Hello,
    Open,
    Welcome,
    challenge_text,
)
from paradrop.backend.pdfcd.identity import Identity

SECRET = "one-time-secret"
NONCE = "00" * 32
HEADERS = {"content-type": "application/json"}


@dataclass
class Authority:
    """Who vouches for routers, and for servers of the test. ``begins`` and ``ends``: validity of what it gives."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    begins: datetime.datetime = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    ends: datetime.datetime = datetime.datetime(2090, 1, 1, tzinfo=datetime.UTC)

    @property
    def certificate(self) -> str:
        return self._pem("test authority", self.key.public_key(), x509.BasicConstraints(True, None))

    def of_request(self, request: str) -> str:
        """Certify the key of a request."""
        public = x509.load_pem_x509_csr(request.encode()).public_key()
        assert isinstance(public, Ed25519PublicKey)
        return self._pem("pd.joe.aardvark", public, x509.BasicConstraints(False, None))

    def server(self, place: Path, name: str = "localhost") -> tuple[Path, str]:
        """Return a file with certificate and key of a server, and the certificate."""
        key = Ed25519PrivateKey.generate()
        text = self._pem(name, key.public_key(), x509.SubjectAlternativeName([x509.DNSName(name)]))
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                    serialization.NoEncryption())
        file = place / f"server-{time.monotonic_ns()}.pem"
        file.write_bytes(private + text.encode())
        return file, text

    def _pem(self, name: str, public: Ed25519PublicKey, extension: x509.ExtensionType) -> str:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        made = x509.CertificateBuilder(named("test authority"), named(name), public, x509.random_serial_number(),
                                       self.begins, self.ends)
        signed = made.add_extension(extension, True).sign(self.key, None)
        return signed.public_bytes(serialization.Encoding.PEM).decode()


@dataclass
class Registry:
    """Answers POST /registry/v1/provision as ``answer`` says; ``asked`` has what came."""

    authority: Authority
    more: dict[str, Any] = field(default_factory=dict)
    """What else the answer holds."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    date: float | None = None
    """What its clock shows."""
    refuse: tuple[int, str] | None = None

    def answer(self, wish: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.asked.append(wish)
        if self.refuse:
            return self.refuse[0], {"error": self.refuse[1]}
        return 200, {"pdid": "pd.joe.aardvark", "certificate": self.authority.of_request(wish["csr"]),
                     "authority": self.authority.certificate, "server": self.url, "keyring": [], "signers": [],
                     "channel": None, "hawkbit": None, **self.more}


@contextlib.contextmanager
def answering(registry: Registry, file: Path | None = None) -> Iterator[Registry]:
    """Have a registry answer on the loopback interface; FILE: with certificate and key, for https."""
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/registry/v1/provision"
            status, content = registry.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = json.dumps(content).encode()
            self.send_response_only(status)
            self.send_header("Date", formatdate(registry.date, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if file:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(file)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        registry.url = f"http{'s' if file else ''}://localhost:{server.server_port}"
        try:
            yield registry
        finally:
            server.shutdown()
            thread.join(10)


@dataclass
class Link:
    """The server's end of one link, after the router's first word."""

    connection: ServerConnection
    hello: Hello
    over: threading.Event = field(default_factory=threading.Event)

    def say(self, message: FromServer | bytes) -> None:
        self.connection.send(message if isinstance(message, bytes) else messages.encode(message).decode())

    def hear(self, seconds: float = 20) -> FromRouter | tuple[int, bytes]:
        """Return the next message, or piece of a stream."""
        frame = self.connection.recv(seconds)
        if isinstance(frame, bytes):
            number, content = messages.parse_piece(frame)
            return number, bytes(content)
        return messages.from_router(frame)

    def ask(self, number: int, method: str, path: str, role: str = "admin", body: bytes = b"") -> tuple[Answer, bytes]:
        """Send a request on a stream of its own; return its answer with its body."""
        self.say(Open(number, method, path, tuple(HEADERS.items()), role, "joe"))
        if body:
            self.say(messages.piece(number, body))
        self.say(End(number))
        head = self.hear()
        assert isinstance(head, Answer), head
        content = b""
        while not isinstance(heard := self.hear(), End):
            assert isinstance(heard, tuple), heard
            content += heard[1]
        return head, content

    def close(self, code: int = 1001, reason: str = "") -> None:
        self.connection.close(code, reason)
        self.over.set()


class Hub:
    """Takes links. Each is welcomed unless ``greet`` does otherwise."""

    def __init__(self) -> None:
        self.url = ""
        self.links: queue.Queue[Link] = queue.Queue()
        self.greet: Callable[[Link], None] = lambda link: link.say(Welcome(30.0, time.time()))
        self.came: list[float] = []
        self.all: list[Link] = []

    def next(self, seconds: float = 20) -> Link:
        return self.links.get(timeout=seconds)

    def handle(self, connection: ServerConnection) -> None:
        self.came.append(time.monotonic())
        with contextlib.suppress(ConnectionClosed):
            connection.send(messages.encode(Challenge(NONCE)).decode())
            hello = messages.from_router(connection.recv(20))
            assert isinstance(hello, Hello)
            link = Link(connection, hello)
            self.all.append(link)
            self.greet(link)
            self.links.put(link)
            link.over.wait()


@contextlib.contextmanager
def linking(file: Path | None = None) -> Iterator[Hub]:
    """Have a server that takes links; FILE as in :func:`answering`."""
    hub, context = Hub(), None
    if file:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
    with serve(hub.handle, "127.0.0.1", 0, ssl=context, compression=None, ping_interval=None) as server:
        hub.url = f"http{'s' if file else ''}://localhost:{server.socket.getsockname()[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            for link in hub.all:
                link.over.set()
            server.shutdown()
            thread.join(10)


def identity(server: str, pinned: str = "") -> tuple[Identity, Ed25519PublicKey]:
    """Return an identity with a new key, and its public half."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption()).decode()
    return Identity("pd.joe.aardvark", private, "", "its certificate", server, pinned), key.public_key()


def proves(public: Ed25519PublicKey, hello: Hello) -> None:
    """Check the signature of a hello to localhost; InvalidSignature if it is wrong."""
    public.verify(hello.signature, challenge_text("localhost", NONCE))
