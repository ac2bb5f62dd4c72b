"""A channel on a web server, read with urllib3: plain GET requests, ranges, nothing else.

Nothing that a server does can hold this up: connecting (with TLS and a proxy), and then the head of its answer, must be
over within ``patience`` as a whole; the body must keep the lowest speed. Redirects are followed a few times, never from
https to http. Bodies are taken as they are, not decompressed.
"""

import hashlib
import os
import re
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
    SystemTimeWarning,
)
from urllib3.util import make_headers
from urllib3.util.ssl_ import create_urllib3_context

from fussy import __version__
from fussy.errors import FussyError, SystemSetup, TooSlow, Unreachable
from fussy.updating.pace import Limits, Pace
from fussy.updating.sources import CHUNK, USUAL, Body, Missing, Route

_REDIRECTS = 5
_MOST_REPLY = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")

# A clock in 1970 is told once, by the updater, and not for each connection.
warnings.simplefilter("ignore", SystemTimeWarning)


@dataclass(frozen=True)
class Access:
    """What one server is shown, and what it must show; no other server gets to see it.

    ``origin`` is its scheme, host and port, as :func:`origin` has them. ``authorization``: the header of that name.
    ``certificate``: the one certificate that counts (DER); empty: any that an authority vouches for.
    """

    origin: str
    authorization: str = ""
    certificate: bytes = b""


def origin(url: str) -> str:
    """Return scheme, host and port of a URL.

    >>> origin("https://user@Example.org/a"), origin("http://example.org:80")
    ('https://example.org:443', 'http://example.org:80')
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


@dataclass(frozen=True)
class Reply:
    """What a server answered. The names of ``headers`` are found in upper and lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Bounded(HTTPConnection):
    """A connection whose beginnings take no longer than its time-out as a whole, however they trickle."""

    _twin: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        self._close_twin()
        self._twin = sock.dup()  # TLS takes the other one over
        return sock

    def connect(self) -> None:
        with self._bounded():
            super().connect()

    def getresponse(self) -> Any:
        with self._bounded():
            return super().getresponse()

    def close(self) -> None:
        self._close_twin()
        super().close()

    def _close_twin(self) -> None:
        if self._twin:
            self._twin.close()
            self._twin = None

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        over = threading.Event()
        limit = self.timeout if isinstance(self.timeout, int | float) else None

        def cut() -> None:
            over.set()
            if self._twin:
                with suppress(OSError):
                    self._twin.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(limit or 60, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except Exception as error:
            if over.is_set():
                raise ReadTimeoutError(None, None, "no answer in time") from error  # type: ignore[arg-type]
            raise
        finally:
            timer.cancel()


class _BoundedTls(_Bounded, HTTPSConnection):
    """The same with TLS."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Bounded


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _BoundedTls


class Web:
    """A channel below a URL."""

    def __init__(self, base: str, limits: Limits, route: Route = USUAL, access: Access | None = None) -> None:
        self.name = base.rstrip("/")
        self._limits = limits
        self._route = route
        self._access = access
        self._managers: dict[tuple[str, bytes, str], urllib3.PoolManager] = {}

    @contextmanager
    def open(self, path: str, start: int = 0, validator: str = "") -> Iterator[Body]:
        """See :class:`fussy.updating.sources.Source`; the validator is a strong ETag."""
        headers: dict[str, str] = {}
        if start:
            headers["Range"] = f"bytes={start}-"
            if validator:
                headers["If-Range"] = validator
        response = self._get(self._address(path), headers)
        try:
            yield self._body(response, path, start)
        finally:
            # the rest of a body that nobody wants must not be read
            if response.length_remaining != 0:
                response.close()
            response.release_conn()

    def _address(self, path: str) -> str:
        return f"{self.name}/{quote(path)}"

    def ask(self, method: str, path: str, body: bytes | None = None, query: str = "") -> Reply:
        """Return what a server that answers in JSON says, whatever its status. Redirects are not followed.

        :raises Unreachable: nothing came, or more than an answer can be
        :raises TooSlow: it came too slowly
        """
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        response = self._send(method, self._address(path) + f"?{query}" * bool(query), headers, body)
        found = bytearray()
        try:
            for chunk in self._chunks(response):
                found += chunk
                if len(found) > _MOST_REPLY:
                    raise Unreachable(f"{self.name} answers with more than {_MOST_REPLY} bytes")
        finally:
            if response.length_remaining != 0:
                response.close()
            response.release_conn()
        return Reply(response.status, response.headers, bytes(found))

    def _send(self, method: str, url: str, headers: dict[str, str],
              body: bytes | None = None) -> urllib3.BaseHTTPResponse:
        self._limits.check()
        headers = {"User-Agent": f"fussy/{__version__}", "Accept-Encoding": "identity", **headers}
        with self._failures():
            if (own := self._own(url)) and own.authorization:
                headers["Authorization"] = own.authorization
            timeout = urllib3.Timeout(connect=self._limits.patience, read=self._limits.patience)
            return self._manager(url).urlopen(
                method, url, body=body, redirect=False, retries=False, preload_content=False, decode_content=False,
                timeout=timeout, headers=headers)

    def _get(self, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        for _ in range(_REDIRECTS + 1):
            response = self._send("GET", url, headers)
            if not (location := response.get_redirect_location()):
                return response
            response.close()
            with self._failures():
                url = self._follow(url, location)
        raise Unreachable(f"{self.name} redirects more than {_REDIRECTS} times")

    def _follow(self, url: str, location: str) -> str:
        new = urljoin(url, location)
        old, parts = urlsplit(url), urlsplit(new)
        if parts.scheme not in ("http", "https") or not parts.hostname or \
                (old.scheme, parts.scheme) == ("https", "http"):
            raise Unreachable(f"{self.name} redirects to {new}: from https only https is followed")
        return new

    def _own(self, url: str) -> Access | None:
        """Return the access that goes with a URL; None for a server that it is not meant for."""
        return self._access if self._access and self._access.origin == origin(url) else None

    def _manager(self, url: str) -> urllib3.PoolManager:
        own = self._own(url)
        authority = self._route.authority if url.startswith("https:") else ""
        key = proxy, pinned, _ = self._proxy_for(url), own.certificate if own else b"", authority
        if key not in self._managers:
            settings: dict[str, Any] = {"num_pools": 2, "maxsize": 1}
            if pinned:
                settings |= {"cert_reqs": "CERT_NONE", "assert_fingerprint": hashlib.sha256(pinned).hexdigest()}
            elif authority:
                settings["ssl_context"] = _vouched(authority)
            made = urllib3.ProxyManager(proxy, proxy_headers=_proves(proxy), **settings) if proxy else \
                urllib3.PoolManager(**settings)
            made.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
            self._managers[key] = made
        return self._managers[key]

    def _proxy_for(self, url: str) -> str:
        if self._route.proxy:
            return "" if self._route.proxy == "none" else self._route.proxy
        if not any(name.lower().endswith("_proxy") for name in os.environ):
            return ""
        from urllib.request import getproxies, proxy_bypass  # takes a while to load

        parts = urlsplit(url)
        proxies = getproxies()
        found = "" if proxy_bypass(parts.netloc) else proxies.get(parts.scheme) or proxies.get("all") or ""
        return found if not found or "://" in found else f"http://{found}"

    def _body(self, response: urllib3.BaseHTTPResponse, path: str, start: int) -> Body:
        status = response.status
        if status in (403, 404, 410):
            raise Missing(f"{self.name} has no {path} (HTTP status {status})")
        if status == 511:
            raise a_page_answers(self.name)
        total, begins = -1, 0
        if status == 206:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if not match or int(match[1]) != start:
                raise Unreachable(f"{self.name} sends another part of {path} than was asked for")
            begins, total = start, int(match[2])
        elif status == 200:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() and not response.headers.get("Content-Encoding") else -1
        elif status == 416 and start:
            raise Missing(f"{self.name} has no more of {path}")
        else:
            raise Unreachable(f"{self.name} answers with HTTP status {status}")
        chunks = self._chunks(response)
        # before anything is concluded from its length
        first = next(chunks, b"")
        if status == 200 and first.lstrip()[:1] == b"<":
            raise a_page_answers(self.name)
        tag = response.headers.get("ETag", "")
        return Body(chain([first], chunks), begins, total, "" if tag.startswith("W/") else tag)

    def _chunks(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        pace = Pace(self._limits)
        while True:
            with self._failures():
                chunk = response.read1(CHUNK, decode_content=False)
            if not chunk:
                return
            pace.count(len(chunk))
            yield chunk

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what goes wrong on the network into errors of ours."""
        try:
            yield
        except ProxyError as error:
            raise Unreachable(f"{self.name} can't be reached by the proxy: {_cause(error.original_error)}; see `proxy` "
                              "of the settings, and http_proxy of the environment") from error
        except NewConnectionError as error:
            raise Unreachable(f"{self.name} can't be connected to: {_cause(error)}") from error
        except ConnectTimeoutError as error:
            raise Unreachable(f"{self.name} can't be connected to: it does not answer") from error
        except ReadTimeoutError as error:
            raise TooSlow(f"{self.name} sent nothing for {self._limits.patience:g} s (slow retrieval)") from error
        except SSLError as error:
            raise Unreachable(f"{self.name} can't prove who it is: {_cause(error)}; is the clock right?") from error
        except (HTTPError, OSError, ValueError) as error:
            raise Unreachable(f"{self.name}: {_cause(error)}") from error


class File(Web):
    """One file at a URL, which may have a query; what a source is asked for does not matter then."""

    def _address(self, path: str) -> str:
        return self.name


def a_page_answers(name: str) -> Unreachable:
    """Return the error for HTML that comes in place of NAME."""
    return Unreachable(f"a web page answers in place of {name}: a captive portal? Log in to the network with a browser")


def _proves(proxy: str) -> dict[str, str]:
    """Return the headers by which a proxy is told who asks, if its URL has a user and a password."""
    parts = urlsplit(proxy)
    return make_headers(proxy_basic_auth=f"{unquote(parts.username)}:{unquote(parts.password or '')}") \
        if parts.username else {}


def _vouched(authority: str) -> ssl.SSLContext:
    """Return TLS for which the authorities of a file count, beside those of the system.

    :raises SystemSetup: it can't be read, or has none
    """
    context = create_urllib3_context()
    context.load_default_certs()
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a certificate in the file counts, whoever made it
    try:
        context.load_verify_locations(authority)
    except OSError as error:
        why = "it has no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise SystemSetup(f"cannot use {authority}: {why}; name a file (PEM) with certificates of authorities as "
                          "`authority` of the settings") from error
    return context


def _cause(error: BaseException) -> str:
    """Return the shortest true account of an error: urllib3 packs the real one into others."""
    if isinstance(error, MaxRetryError) and error.reason:
        return _cause(error.reason)
    if isinstance(error, FussyError):
        return str(error)
    inner = error.__cause__ or next((argument for argument in error.args if isinstance(argument, OSError)), None)
    if isinstance(inner, OSError):
        return inner.strerror or str(inner) or type(inner).__name__
    return str(error) or type(error).__name__
