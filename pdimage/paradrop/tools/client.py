"""Talking HTTP to a router, directly or through the server, or to the server itself."""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, SSLError

from paradrop.lib.api.wire import json2str, str2json
from paradrop.tools.errors import NotAllowed, ToolError, Unreachable

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0

# A router may have nothing to say for a long time while an image is built, so a stream has no time limit. Whether the
# router is still there is the kernel's to find out: half a minute of silence, then a question every ten seconds.
KEEPALIVE = [
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


@dataclass(frozen=True)
class Result:
    """How an operation on a chute ended."""

    success: bool
    message: str


@dataclass(frozen=True)
class Place:
    """Where requests go; ``prefix`` is before each path. All else is for messages: what answers there, and where that
    is, how one logs in there, how one sees how it is, and what a certificate means that can't be trusted."""

    pool: urllib3.HTTPConnectionPool
    kind: str
    where: str
    login: str
    see: str
    prefix: str = ""
    distrust: str = ""

    @property
    def called(self) -> str:
        """What a message calls it."""
        return f"{self.kind} at {self.where}"


def router_at(host: str, port: int) -> Place:
    """Return the place of a router that is talked to directly."""
    pool = urllib3.HTTPConnectionPool(host.strip("[]"), port, retries=False, socket_options=KEEPALIVE)
    return Place(pool, "a router", f"{host} port {port}", f"paradrop router login {host} {port}",
                 f"paradrop chute list {host} {port}")


@dataclass(frozen=True)
class Client:
    """Asks at a place. ``token`` proves who asks; None asks as nobody."""

    place: Place
    token: str | None = None

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON that the router answers with, None if it answers with nothing.

        Raises:
            ToolError: it refuses, or does not answer.
        """
        answer = self._send(method, path, None if body is None else json.dumps(body).encode(), "application/json")
        return self._json(b"".join(self._pieces(answer)))

    def text(self, path: str) -> Iterator[str]:
        """Yield the lines of a text as they come.

        Raises:
            ToolError: as ask does.
        """
        return self._lines(self._send("GET", path, None, "", endless=True))

    def documented(self, kind: str, arguments: dict[str, Any]) -> Iterator[str | Result]:
        """Do an operation on a chute through ``/v1``: yield the lines of its progress, then its result.

        Raises:
            ToolError: as ask does; Unreachable also if the answer ends without a result.
        """
        answer = self._send("POST", f"/v1/chute/{kind}", json2str(arguments).encode(), "application/json",
                            endless=True)
        held: str | None = None
        for line in self._lines(answer):
            if held is not None:
                yield held
            held = line
        yield self._result(held)

    def change(self, method: str, path: str, body: Any = None, media: str = "application/json",
               ) -> Iterator[str | Result]:
        """Do an operation on a chute through ``/api/v1``: yield the lines of its progress, then its result.

        Raises:
            ToolError: as ask does.
        """
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        answer = self._send(method, path, content, media)
        number = self._json(b"".join(self._pieces(answer)))["id"]
        yield from self.text(f"/api/v1/changes/{number}/messages?follow=true")
        change = self.ask("GET", f"/api/v1/changes/{number}")
        if change["success"] is None:
            raise self._cut()
        yield Result(change["success"], change["message"])

    def _send(self, method: str, path: str, body: bytes | None, media: str, endless: bool = False,
              ) -> urllib3.BaseHTTPResponse:
        headers = {"Content-Type": media} if body is not None else {}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=None if endless else ANSWER_SECONDS)
        try:
            answer = self.place.pool.request(method, self.place.prefix + path, body, headers=headers, timeout=timeout,
                                             preload_content=False, redirect=False)
        except SSLError as error:
            raise Unreachable(f"cannot trust {self.place.called}: {self.place.distrust or _reason(error)}") from error
        except (HTTPError, OSError, ValueError) as error:
            raise Unreachable(f"cannot reach {self.place.called}: {_reason(error)}") from error
        if answer.status >= 300:
            raise self._refused(answer)
        return answer

    def _refused(self, answer: urllib3.BaseHTTPResponse) -> ToolError:
        text = answer.data.decode(errors="replace").strip()
        try:
            problem = json.loads(text)
            token = f" (token {problem['token']})" if answer.status >= 500 and "token" in problem else ""
            detail = problem["detail"] + token
        except (ValueError, KeyError, TypeError):
            detail = text.partition("\n")[0][:300] or f"status {answer.status}"
        if answer.status in (401, 403, 429):
            wants_login = "WWW-Authenticate" in answer.headers and self.place.login not in detail
            return NotAllowed(detail + (f"; log in with: {self.place.login}" if wants_login else ""))
        return ToolError(detail)

    def _pieces(self, answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            yield from answer.stream()
        except (HTTPError, OSError) as error:
            raise self._cut() from error
        finally:
            answer.release_conn()

    def _lines(self, answer: urllib3.BaseHTTPResponse) -> Iterator[str]:
        rest = b""
        for piece in self._pieces(answer):
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace")
        if rest:
            yield rest.decode(errors="replace")

    def _json(self, content: bytes) -> Any:
        try:
            return json.loads(content) if content else None
        except ValueError as error:
            raise Unreachable(f"cannot understand what answers at {self.place.where}: it is not {self.place.kind}'s "
                              "API") from error

    def _result(self, line: str | None) -> Result:
        try:
            content = str2json(line or "")
            return Result(bool(content["success"]), str(content.get("message", "")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._cut() from error

    def _cut(self) -> Unreachable:
        return Unreachable(f"cannot tell how it ended: {self.place.called} stopped answering; see: {self.place.see}")


def segment(name: str) -> str:
    """Return a name as one part of a URL's path.

    >>> segment("a/b c")
    'a%2Fb%20c'
    """
    return quote(name, safe="")


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error.__context__ or error
    return getattr(cause, "strerror", None) or str(error).rpartition(": ")[2]
