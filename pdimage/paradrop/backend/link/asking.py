"""The one request of provisioning: the router gives its secret, the server tells who it is and whom it may believe."""

import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError

from fussy.moments import utc
from paradrop.backend.link import tls
from paradrop.lib.errors import ParadropError

SECONDS = 30.0
CLOCK_SECONDS = 86400.0
"""How far the clock may be off: certificates, expiry and roll-outs are judged by it."""
_LARGEST = 1 << 20


class Channel(msgspec.Struct, frozen=True):
    """The channel of the router's firmware, and the root that trust in it begins with (JSON)."""

    url: str
    root: str
    product: str = ""


class Hawkbit(msgspec.Struct, frozen=True):
    """Where roll-outs are asked for, by hawkBit's DDI: the tenant, this router's name there, and its token."""

    url: str
    tenant: str
    name: str
    token: str


class Given(msgspec.Struct, frozen=True):
    """What the server gives: certificates are PEM, ``keyring`` has armoured OpenPGP keys, ``signers`` who may sign."""

    pdid: str
    certificate: str
    authority: str
    server: str
    keyring: list[str] = []
    signers: list[str] = []
    channel: Channel | None = None
    hawkbit: Hawkbit | None = None


def ask(server: str, pinned: str, wish: Mapping[str, Any]) -> Given:
    """Send a wish (secret, csr, machine, clock, again) and return what the server gives for it.

    Raises:
        ParadropError: it refuses, cannot be reached or believed, or a clock is far off; one line.
    """
    status, date, content = _post(server, pinned, wish)
    if status != 200:
        raise ParadropError(f"cannot provision: {_refusal(status, content)}")
    if wrong := _wrong_clock(date):
        raise ParadropError(f"cannot provision: {wrong}")
    try:
        return msgspec.json.decode(content, type=Given)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ParadropError(f"cannot provision: what answers at {server} is not a server of routers") from error


def _post(server: str, pinned: str, wish: Mapping[str, Any]) -> tuple[int, str, bytes]:
    """Return status, ``Date`` and content of the answer."""
    extra: dict[str, Any] = {}
    if server.startswith("https:"):
        try:
            extra["ssl_context"] = tls.context(pinned, "")
            if pinned:
                extra["assert_fingerprint"] = tls.fingerprint(ssl.PEM_cert_to_DER_cert(pinned)).replace(":", "")
        except ValueError as error:
            raise ParadropError("cannot provision: server_certificate is not a certificate (PEM)") from error
    with urllib3.PoolManager(retries=False, timeout=SECONDS, **extra) as pool:
        try:
            answer = pool.request("POST", f"{server}/registry/v1/provision", json=dict(wish), redirect=False,
                                  preload_content=False)
            content = answer.read(_LARGEST, decode_content=True)
            answer.close()
        except (HTTPError, OSError, ValueError) as error:
            raise ParadropError(f"cannot provision: {urlsplit(server).hostname} {_why(error)}") from error
    return answer.status, answer.headers.get("Date", ""), content


def _why(error: Exception) -> str:
    cause: BaseException | None = error.reason if isinstance(error, MaxRetryError) else error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return f"cannot be believed: {tls.reason(cause)}"
        if "ingerprint" in str(cause):
            return "cannot be believed: it shows another certificate than the one that was to be expected"
        if isinstance(cause, OSError) and cause.strerror:
            return f"cannot be reached: {cause.strerror}"
        cause = cause.__cause__ or cause.__context__ or (cause.args[0] if cause.args and
                                                         isinstance(cause.args[0], BaseException) else None)
    return f"cannot be reached: {str(error).rpartition(': ')[2]}"


def _wrong_clock(date: str) -> str:
    """Return what is wrong with this router's clock by the ``Date`` of an answer, or nothing."""
    try:
        there = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return ""
    here = time.time()
    if abs(here - there) < CLOCK_SECONDS:
        return ""
    return (f"this router's clock shows {utc(here, 'minute')}, the server's {utc(there, 'minute')}; set the clock and "
            "try again")


def _refusal(status: int, content: bytes) -> str:
    try:
        told = str(msgspec.json.decode(content)["error"])
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
        told = ""
    return told or f"the server answers with status {status}"
