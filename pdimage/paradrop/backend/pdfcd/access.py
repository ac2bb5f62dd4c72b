"""Who a request comes from and whether it may be done; too many failures lock an address out for a while."""

import base64
import binascii
import hashlib
import ipaddress
import json
import re
import subprocess
import time
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from paradrop.backend.pdfcd.accounts import Accounts, Identity
from paradrop.backend.pdfcd.apiutils import addressWithin, isLoopback
from paradrop.backend.pdfcd.problems import Problem
from paradrop.lib import settings
from paradrop.lib.api.pdrest import Request
from paradrop.lib.config import devices
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import uci

CHALLENGE = {"WWW-Authenticate": 'Basic realm="Paradrop", charset="UTF-8"'}
LOCKED_OUT = 300.0
"""Seconds for which an address with too many failures is refused."""
_ADDRESSES = 1000
# Interfaces of Docker and of chutes: see paradrop.lib.config.devices
_CHUTES_SIDE = re.compile(r"docker|veth|(br-)?v(wlan)?[0-9a-f]{4}$|br-[0-9a-f]{12}$")


class Failures:
    """How often each address has failed lately. The limit is the setting PDFCD_FAILURE_LIMIT."""

    def __init__(self) -> None:
        self._failures: dict[str, tuple[int, float]] = {}

    def count(self, key: str) -> None:
        """Note one failure."""
        number = self._lately(key) + 1
        self._failures.pop(key, None)
        while len(self._failures) >= _ADDRESSES:
            del self._failures[next(iter(self._failures))]
        self._failures[key] = (number, time.monotonic())

    def reset(self, key: str) -> None:
        """Forget the failures of an address."""
        self._failures.pop(key, None)

    def locked_out(self, key: str) -> bool:
        """Return True if the address has failed too often."""
        return self._lately(key) >= int(settings.PDFCD_FAILURE_LIMIT)

    def _lately(self, key: str) -> int:
        number, when = self._failures.get(key, (0, 0.0))
        return number if time.monotonic() - when < LOCKED_OUT else 0


class Access:
    """Turns the Authorization header into an identity."""

    def __init__(self, accounts: Accounts) -> None:
        self.accounts = accounts
        self.failures = Failures()
        self._passed: dict[bytes, tuple[int, Identity]] = {}

    def identify(self, headers: Mapping[str, str], client: str) -> Identity | None:
        """Return who sent the request, None if he does not say. A password may take a while to check.

        Raises:
            Problem: 401 if what he says is wrong, 429 after too many wrong ones from his address.
        """
        header = headers.get("authorization")
        if header is None:
            return None
        if self.failures.locked_out(client):
            raise Problem(429, "cannot log in: too many wrong passwords or tokens; try again in five minutes",
                          {"Retry-After": str(int(LOCKED_OUT))})
        scheme, _, value = header.partition(" ")
        identity = None
        if scheme.lower() == "bearer":
            identity = self.accounts.check_token(value.strip())
        elif scheme.lower() == "basic":
            identity = self._basic(value.strip())
        if identity is None:
            self.failures.count(client)
            raise Problem(401, "cannot log in: the password or token is wrong or has expired", CHALLENGE)
        return identity

    def login(self, user: str, password: str, client: str) -> Identity:
        """Return who has this password; Problems as in identify."""
        pair = base64.b64encode(f"{user}:{password}".encode(errors="replace")).decode()
        identity = self.identify({"authorization": f"Basic {pair}"}, client)
        assert identity is not None
        self.failures.reset(client)
        return identity

    def _basic(self, value: str) -> Identity | None:
        try:
            user, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
        if not colon:
            return None
        digest = hashlib.sha256(value.encode()).digest()
        version, known = self._passed.get(digest, (-1, None))
        if version == self.accounts.version:  # scrypt once, not at each request
            return known
        version = self.accounts.version
        identity = self.accounts.check_password(user, password)
        if identity is not None:
            self._passed = {digest: (version, identity)}
        return identity


def check_settings() -> None:
    """Raise a ParadropError if a setting that says who may do what cannot be understood."""
    for name in ("PDFCD_V1_NETWORKS", "PDFCD_LOCAL_NETWORKS"):
        try:
            for network in str(getattr(settings, name)).split():
                ipaddress.ip_network(network, strict=False)
        except ValueError as error:
            raise ParadropError(f"cannot use the setting {name}: {error}") from error
    if not isinstance(settings.PDFCD_FAILURE_LIMIT, int):
        raise ParadropError("cannot use the setting PDFCD_FAILURE_LIMIT: it is not a whole number")


def may_use_v1(request: Request) -> str | None:
    """Return None if ``/v1``, which has no authentication of its own, may serve the request, else the reason.

    Served are the networks of the setting PDFCD_V1_NETWORKS (the loopback interface), and whoever proves an identity.
    Those who do not must ask for an address or localhost, since a page's own name may be made to point here.
    """
    if reason := from_a_foreign_page(request):
        return reason
    if request.role is not None:
        return None
    if not addressWithin(request.getClientIP(), str(settings.PDFCD_V1_NETWORKS).split()):
        return ("this address may not use /v1: use /api/v1 with a password or token, or add its network to the setting "
                "PDFCD_V1_NETWORKS")
    return asked_for_another_host(request)


def asked_for_another_host(request: Request, names: Collection[str] = ()) -> str | None:
    """Return why not, if a request names a host that is neither an address, localhost, nor one of these names.

    A foreign page may have its own name lead here (DNS rebinding); then the browser takes us for that page's server.
    """
    host = _hostname(request.getHeader("Host") or "localhost")
    if host == "localhost" or host in names or addressWithin(host, ["0.0.0.0/0", "::/0"]):
        return None
    return f"this is not the host {host}: use its address, or localhost"


def on_local_network(client: str) -> bool:
    """Return True if an address is the router's own, or in a network beside it that the owner's devices are in.

    So not behind a gateway, not on the uplink's side, and no chute or guest of one: these three could be anybody's.
    """
    if isLoopback(client):
        return True
    if not addressWithin(client, str(settings.PDFCD_LOCAL_NETWORKS).split()):
        return False
    route = _route(client)
    device = str(route.get("dev", ""))
    return bool(device) and "gateway" not in route and not _is_uplink(device) and not _CHUTES_SIDE.match(device)


def _is_uplink(device: str) -> bool:
    sections = uci.UCIConfig(uci.getSystemPath("network")).getConfigIgnoreComments({"type": "interface", "name": "wan"})
    return devices.isWAN(device) or any(options.get("ifname") == device for _, options in sections)


def _route(client: str) -> dict[str, Any]:
    """Return how the kernel reaches an address, as ip(8) says it; nothing if it does not."""
    done = subprocess.run(["ip", "-json", "route", "get", client], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=5, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)
    except ValueError:
        return {}
    return found[0] if found and done.returncode == 0 else {}


def from_a_foreign_page(request: Request) -> str | None:
    """Return why not, if the request would change something and a browser sent it for a page of another origin.

    A browser beside the router would let any page install chutes. PDFCD_HEADER_VALUE may name an origin whose pages
    may; its default, ``*``, lets all of them read, as documented, but none of them change anything.
    """
    origin, host = request.getHeader("Origin"), request.getHeader("Host")
    if origin is None or request.method in ("GET", "HEAD", "OPTIONS") or \
            origin in (settings.PDFCD_HEADER_VALUE, f"http://{host}", f"https://{host}"):
        return None
    return f"pages of {origin} may not change this router: name it in the setting PDFCD_HEADER_VALUE to let them"


def _hostname(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
