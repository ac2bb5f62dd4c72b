"""The local face of pdconfd: a unix socket for the processes of the same user and of root.

A connection carries one request and one answer, each one JSON object on a line: ``{"method": NAME, "arguments":
[...]}`` and ``{"result": ...}`` or ``{"error": TEXT}``. Methods and results are those of the D-Bus interface.
"""

import contextlib
import json
import logging
import os
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paradrop.lib import settings
from paradrop.lib.utils import pdosq

log = logging.getLogger(__name__)

REQUEST_LIMIT = 64 * 1024  # bytes
REQUEST_TIME = 10.0  # seconds for a request to come in, and for an answer to go out

Answer = Callable[[str, Sequence[Any]], Any]


def socket_path() -> str:
    """Return where the socket is."""
    return f"{settings.PDCONFD_WRITE_DIR}/socket"


def ask(path: str, method: str, arguments: Sequence[Any], timeout: float | None = None) -> Any:
    """Call a method of the service behind a socket and return its result.

    Raises:
        OSError: nobody listens there, no answer came in ``timeout`` seconds, or the service refused.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(path)
        connection.sendall(json.dumps({"method": method, "arguments": list(arguments)}).encode() + b"\n")
        with connection.makefile("rb") as file:
            line = file.readline()
    if not line.endswith(b"\n"):
        raise OSError(f"cannot call {method}: the service went away")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise OSError(f"cannot call {method}: {answer['error']}")
    return answer["result"]


class _Handler(socketserver.StreamRequestHandler):
    timeout = REQUEST_TIME
    server: "SocketServer"

    def handle(self) -> None:
        if not _is_trusted(self.connection):
            return
        try:
            line = self.rfile.readline(REQUEST_LIMIT)
            request = json.loads(line)
            answer = {"result": self.server.answer(str(request["method"]), list(request["arguments"]))}
        except (ValueError, KeyError, TypeError) as error:
            answer = {"error": f"cannot understand the request: {error}"}
        except Exception as error:
            log.exception("cannot answer %r", line)
            answer = {"error": str(error)}
        with contextlib.suppress(OSError):  # the caller may have given up
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class SocketServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Listens on a socket and answers each request in a thread of its own.

    Args:
        path: the socket; a directory that is missing is made, a socket that nobody listens on replaced.
        answer: called with method and arguments.

    Raises:
        OSError: another process listens there, or the socket cannot be made.
    """

    daemon_threads = True

    def __init__(self, path: str, answer: Answer) -> None:
        self.answer = answer
        self.path = path
        pdosq.makedirs(Path(path).parent)
        _clear_way(path)
        before = os.umask(0o177)
        try:
            super().__init__(path, _Handler)
        finally:
            os.umask(before)

    def start(self) -> threading.Thread:
        """Serve in a new thread until close()."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="pdconfd socket",
                                  daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Stop serving and remove the socket."""
        self.shutdown()
        self.server_close()
        Path(self.path).unlink(missing_ok=True)


def _clear_way(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            Path(path).unlink(missing_ok=True)
            return
    raise OSError(f"cannot listen on {path}: another pdconfd does")


def _is_trusted(connection: socket.socket) -> bool:
    """Return whether the other side is root or the user that we are."""
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return user in (0, os.getuid())
