"""A static file server on loopback that can be told to misbehave. It knows ranges, ETags and If-Range."""

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

# Given the path (without "/") and the answer that would be sent, returns the one to send.
Fault = Callable[[str, "Answer"], "Answer"]


@dataclass
class Answer:
    """What is sent. ``cut``: close the connection after so many bytes of the body; ``drip``: seconds between bytes;
    ``endless``: go on with zeros; ``head_drip``: seconds between the bytes of the head."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = -1
    drip: float = 0.0
    endless: bool = False
    head_drip: float = 0.0


class Server:
    """Serves DIRECTORY at ``url``; ``requests`` are the paths asked for, ``ranges`` the Range headers among them,
    ``shown`` what each request was authorized by."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.fault: Fault | None = None
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.shown: list[str] = []
        self.sent = 0
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path).lstrip("/")
                server.requests.append(path)
                server.shown.append(self.headers.get("Authorization", ""))
                if "Range" in self.headers:
                    server.ranges.append(self.headers["Range"])
                answer = server.answer(path, self.headers.get("Range", ""), self.headers.get("If-Range", ""))
                if server.fault:
                    answer = server.fault(path, answer)
                with contextlib.suppress(ConnectionError):
                    server.send(self, answer)

            def do_POST(self) -> None:
                path = unquote(urlsplit(self.path).path).lstrip("/")
                server.shown.append(self.headers.get("Authorization", ""))
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = server.fault(f"{self.command} {path}", Answer(200)) if server.fault else Answer(200)
                if answer.status == 200:
                    taken = server.take(self.command, path, body)
                    answer = taken if answer == Answer(200) else answer
                with contextlib.suppress(ConnectionError):
                    server.send(self, answer)

            do_PUT = do_POST

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def take(self, method: str, path: str, body: bytes) -> Answer:
        """Answer a request that brings something."""
        return Answer(405)

    def answer(self, path: str, wanted: str, if_range: str) -> Answer:
        file = self.directory / path
        if not file.is_file():
            return Answer(404, b"<html>not found</html>", {"Content-Type": "text/html"})
        content = file.read_bytes()
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        match = re.fullmatch(r"bytes=(\d+)-", wanted)
        if not match or (if_range and if_range != tag):
            return Answer(200, content, {"ETag": tag})
        start = int(match[1])
        if start >= len(content):
            return Answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        return Answer(206, content[start:],
                      {"ETag": tag, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"})

    def send(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        lines = [f"HTTP/1.1 {answer.status} X"]
        headers = {"Content-Length": str(len(answer.body)), **answer.headers}
        lines += [f"{name}: {value}" for name, value in headers.items() if value]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        self.drip(handler, head, answer.head_drip)
        body = answer.body if answer.cut < 0 else answer.body[:answer.cut]
        self.drip(handler, body, answer.drip)
        while answer.endless and not self.closing.is_set():
            handler.wfile.write(bytes(1 << 16))
        handler.close_connection = answer.cut >= 0 or "Content-Length" not in {k for k, v in headers.items() if v}

    def drip(self, handler: BaseHTTPRequestHandler, data: bytes, pause: float) -> None:
        step = 1 if pause else 1 << 16
        for i in range(0, len(data), step):
            handler.wfile.write(data[i:i + step])
            self.sent += len(data[i:i + step])
            if pause and self.closing.wait(pause):
                return


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[Server]:
    """Serve DIRECTORY while the block lasts."""
    with running(Server(directory)) as server:
        yield server


S = TypeVar("S", bound=Server)


@contextlib.contextmanager
def running(server: S) -> Iterator[S]:
    """Let SERVER serve while the block lasts."""
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.http.shutdown()
        server.http.server_close()
        thread.join(10)


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until CONDITION holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
