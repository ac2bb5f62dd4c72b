"""The server that has accounts and knows routers: what this computer keeps of it, whether it is the one that it was,
and how it, or a router through it, is asked.

::

    config directory           mode 0700
        server.json            mode 0600: url, certificate, account, token

A server whose certificate no authority vouches for is known by its fingerprint: a person compares it once, then the
certificate is kept, and no other one will do.
"""

import hashlib
import json
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3

from fussy.disk import replace_file
from paradrop.tools.client import CONNECT_SECONDS, KEEPALIVE, Client, Place, segment
from paradrop.tools.errors import NotAllowed, ToolError, Unreachable
from paradrop.tools.tokens import directory

API = "/registry/v1"


@dataclass(frozen=True)
class Known:
    """A server as this computer knows it. ``certificate``: the one (PEM) that it must have, if no authority vouches for
    it; ``token`` proves who asks, empty before login."""

    url: str
    certificate: str = ""
    account: str = ""
    token: str = ""


def kept() -> Known | None:
    """Return the server that was used last."""
    try:
        content: dict[str, Any] = json.loads(_file().read_text())
        return Known(**{str(key): str(value) for key, value in content.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def keep(known: Known) -> Path:
    """Keep what is known of a server in a file that only the user can read; return its place."""
    place = _file()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.parent.chmod(0o700)
    replace_file(place, json.dumps(asdict(known), indent=1).encode())
    return place


def chosen(url: str | None = None) -> Known:
    """Return the server at URL, otherwise that of PARADROP_SERVER, otherwise the one that was used last.

    Raises:
        ToolError: there is none, or it has no good address.
    """
    wanted, last = (url or os.environ.get("PARADROP_SERVER", "")).rstrip("/"), kept()
    if last and wanted in ("", last.url):
        return last
    if not wanted:
        raise ToolError("cannot tell which server: name it with --server URL, or in PARADROP_SERVER")
    parts = urlsplit(wanted)
    if parts.scheme not in ("http", "https") or not parts.hostname or not _has_port(wanted):
        raise ToolError(f"cannot use the server {wanted!r}: write its address as in https://server.example.org")
    return Known(wanted)


def logged_in(token: str | None = None) -> Known:
    """Return the server with what proves who asks: TOKEN, or what ``paradrop login`` kept.

    Raises:
        NotAllowed: nobody is logged in.
    """
    known = chosen() if kept() or os.environ.get("PARADROP_SERVER") else None
    if known is None or not (token or known.token):
        raise NotAllowed("You must login first. (paradrop login)")
    return Known(known.url, known.certificate, known.account, token or known.token)


def client(known: Known) -> Client:
    """Return what asks the server itself."""
    return Client(_place(known, API), known.token or None)


def router(known: Known, name: str) -> Client:
    """Return what asks a router through the server, with the same paths as directly. NAME is a pdid or an own router's
    name."""
    return Client(_place(known, f"{API}/routers/{segment(name)}"), known.token or None)


def trust(url: str, confirm: Callable[[str, str], bool]) -> str:
    """Return the certificate by which a server must be known from now on; empty if an authority vouches for it.

    CONFIRM is asked with its fingerprint, and why nobody vouches for it.

    Raises:
        ToolError: it was not confirmed; Unreachable: the server can't be reached.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        return ""
    where = (parts.hostname, parts.port or 443)
    try:
        with socket.create_connection(where, CONNECT_SECONDS) as plain, \
                ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname):
            return ""
    except ssl.SSLCertVerificationError as error:
        why = error.verify_message
    except OSError as error:
        raise Unreachable(f"cannot reach a server at {url}: {error.strerror or error}") from error
    try:
        certificate = ssl.get_server_certificate(where, timeout=CONNECT_SECONDS)
    except OSError as error:
        raise Unreachable(f"cannot reach a server at {url}: {error.strerror or error}") from error
    if not confirm(fingerprint(certificate), why):
        raise ToolError(f"cannot trust the server {url}: its certificate was not accepted")
    return certificate


def fingerprint(certificate: str) -> str:
    """Return the SHA-256 of a certificate (PEM) as OpenSSL shows it."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest().hex(":").upper()


def _place(known: Known, prefix: str) -> Place:
    parts = urlsplit(known.url)
    changed = (f"its certificate is not the one that this computer knows, {fingerprint(known.certificate)}; if it was "
               "changed on purpose: paradrop login --new-certificate") if known.certificate else ""
    return Place(_pool(known), "a server", known.url, "paradrop login", "paradrop list",
                 parts.path.rstrip("/") + prefix, changed)


def _pool(known: Known) -> urllib3.HTTPConnectionPool:
    parts = urlsplit(known.url)
    host = (parts.hostname or "").strip("[]")
    if parts.scheme == "http":
        return urllib3.HTTPConnectionPool(host, parts.port or 80, retries=False, socket_options=KEEPALIVE)
    own = bool(known.certificate)
    return urllib3.HTTPSConnectionPool(
        host, parts.port or 443, retries=False, socket_options=KEEPALIVE,
        cert_reqs="CERT_NONE" if own else "CERT_REQUIRED",
        assert_fingerprint=fingerprint(known.certificate) if own else None)


def _has_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _file() -> Path:
    return directory() / "server.json"
