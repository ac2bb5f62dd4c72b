"""A hawkBit server as a device sees it: Eclipse hawkBit's Direct Device Integration API, version 1.

::

    GET  TENANT/controller/v1/NAME                              what there is: links, or none
    PUT  TENANT/controller/v1/NAME/configData                   what this router is, when the server wants to know
    GET  TENANT/controller/v1/NAME/deploymentBase/ID            what it is to run, and where the files are
    POST TENANT/controller/v1/NAME/deploymentBase/ID/feedback
    GET  TENANT/controller/v1/NAME/cancelAction/ID              what it is to stop
    POST TENANT/controller/v1/NAME/cancelAction/ID/feedback

https://eclipse.dev/hawkbit/rest-api/ddi is the contract. Of a link to the API only the last parts count, whatever host
it names: it is this server that is asked. Files may lie on another host (https), which never sees the token.
"""

import re
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from fussy.errors import SystemSetup, Unreachable, UntrustedChannel
from fussy.trust import printable
from fussy.updating import fetching
from fussy.updating.settings import Hawkbit, Settings
from fussy.updating.web import Access, File, Reply, a_page_answers, origin

_LINK = re.compile(r".*/controller/v1/[^/]+/([A-Za-z]+)/([A-Za-z0-9_-]{1,64})")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_QUERY = re.compile(r"[A-Za-z0-9_=&.-]{0,200}")
_BUSY = (408, 429, 500, 502, 503, 504)
_REFUSED = (401, 403, 404)
A = TypeVar("A")


class Link(msgspec.Struct, frozen=True):
    """Where something is."""

    href: str


class Base(msgspec.Struct, frozen=True):
    """What there is for this router: ``links`` may have ``deploymentBase``, ``confirmationBase``, ``cancelAction`` and
    ``configData``."""

    links: dict[str, Link | list[Link]] = msgspec.field(name="_links", default_factory=dict)


class Hashes(msgspec.Struct, frozen=True):
    """Digests of a file, in hex."""

    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Artifact(msgspec.Struct, frozen=True):
    """A file; ``links`` has where it is as ``download`` or ``download-http``."""

    filename: str
    hashes: Hashes
    size: Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
    links: dict[str, Link | list[Link]] = msgspec.field(name="_links", default_factory=dict)


class Fact(msgspec.Struct, frozen=True):
    """Something that the server says of a piece of software."""

    key: str
    value: str


class Chunk(msgspec.Struct, frozen=True):
    """A piece of software and its files.

    Of ``metadata`` two keys count, which our own server has: ``digest``, that of the release's manifest, and
    ``base:FILENAME``, the digest of the release that this delta starts from.
    """

    artifacts: list[Artifact]
    name: str = ""
    version: str = ""
    metadata: list[Fact] = []

    def digest(self, key: str) -> str:
        """Return the digest that is said to be KEY; "" if none is."""
        return next((fact.value for fact in self.metadata if fact.key == key and _DIGEST.fullmatch(fact.value)), "")


Handling = Literal["skip", "attempt", "forced"]


class Deployment(msgspec.Struct, frozen=True):
    """What is to run, and how urgent it is to download and to install that.

    ``skip``: not yet; ``attempt``: when it suits the device; ``forced``: at once.
    """

    chunks: list[Chunk]
    download: Handling = "attempt"
    update: Handling = "attempt"
    window: Literal["available", "unavailable"] | None = msgspec.field(name="maintenanceWindow", default=None)


class Task(msgspec.Struct, frozen=True):
    """The action ID: to run what DEPLOYMENT says; UNCONFIRMED: once the server is told that this is wanted here."""

    id: str | int
    deployment: Deployment
    unconfirmed: bool = False


class _Unconfirmed(msgspec.Struct, frozen=True):
    id: str | int
    confirmation: Deployment


class _Stop(msgspec.Struct, frozen=True):
    stop: str | int = msgspec.field(name="stopId")


class _Cancel(msgspec.Struct, frozen=True):
    stop: _Stop = msgspec.field(name="cancelAction")


Execution = Literal["confirmed", "denied", "download", "downloaded", "proceeding", "rejected", "closed"]
Finished = Literal["none", "success", "failure"]


class Feedback(msgspec.Struct, frozen=True):
    """What the server is told of an ACTION (if CANCEL, of a cancellation): when, how far it is, a line for people."""

    action: str
    at: int
    execution: Execution
    line: str
    finished: Finished = "none"
    cancel: bool = False

    @property
    def kind(self) -> str:
        """Return of which of the server's links this is the feedback."""
        if self.cancel:
            return "cancelAction"
        return "confirmationBase" if self.execution in ("confirmed", "denied") else "deploymentBase"


class Server:
    """The server of the table ``hawkbit`` of SETTINGS.

    Each method raises Unreachable or TooSlow where it does not answer, UntrustedChannel where it answers something that
    is no answer, and SystemSetup where it does not know this router.

    :raises SystemSetup: the token or the certificate can't be read
    """

    def __init__(self, settings: Settings, own: Hawkbit) -> None:
        self.name = address(own)
        self._settings, self._host = settings, own.url
        self._access = Access(origin(own.url), f"TargetToken {_token(own)}", _certificate(own))

    def look(self) -> Base:
        """Return what there is for this router."""
        return self._read(self._ask("GET"), Base)

    def id_of(self, base: Base, what: str) -> str:
        """Return the id in the link that BASE has to WHAT; "" if it has none."""
        return self._link(base, what)[0]

    def task(self, base: Base) -> Task | None:
        """Return the action that BASE has a link to; None if it has none."""
        kind = "deploymentBase" if "deploymentBase" in base.links else "confirmationBase"
        number, query = self._link(base, kind)
        if not number:
            return None
        reply = self._ask("GET", f"{kind}/{number}", query=query)
        if kind == "deploymentBase":
            found = self._read(reply, Task)
        else:
            asked = self._read(reply, _Unconfirmed)
            found = Task(asked.id, asked.confirmation, unconfirmed=True)
        if str(found.id) != number:
            raise UntrustedChannel(f"{self.name}: asked for the action {number}, it answers with the action "
                                   f"{printable(str(found.id))[:64]}")
        return found

    def stopped(self, cancel: str) -> str:
        """Return the id of the action that the cancellation CANCEL is to stop."""
        return str(self._read(self._ask("GET", f"cancelAction/{cancel}"), _Cancel).stop.stop)

    def configure(self, data: dict[str, str]) -> None:
        """Tell what this router is."""
        self._check(self._ask("PUT", "configData", msgspec.json.encode({"mode": "merge", "data": data})))

    def tell(self, feedback: Feedback) -> bool:
        """Send FEEDBACK; return whether the server took it. Where it did not, it never will: the action is gone."""
        reply = self._ask("POST", f"{feedback.kind}/{feedback.action}/feedback", encoded(feedback))
        if 400 <= reply.status < 500 and reply.status not in (401, 403, *_BUSY):
            return False
        self._check(reply)
        return True

    def file(self, artifact: Artifact) -> File:
        """Return the source of a file.

        :raises UntrustedChannel: its link can't be followed
        """
        link = _href(artifact.links.get("download") or artifact.links.get("download-http"))
        try:
            url = urljoin(f"{self.name}/", link)
            there, here = urlsplit(url), urlsplit(self._host)
            private = here.scheme == "https" or there.hostname != here.hostname
            safe = bool(there.hostname) and there.scheme in ("https", *(() if private else ("http",)))
        except ValueError:
            safe = False
        if not link or not safe:
            raise UntrustedChannel(f"{self.name}: {printable(artifact.filename)[:100]} is to be had at "
                                   f"{printable(link)[:200] or 'no address'}: another host, or from https any, is "
                                   "followed by https only")
        return File(url, fetching.limits(self._settings, self._settings.deadline), fetching.route(self._settings),
                    self._access)

    def _link(self, base: Base, what: str) -> tuple[str, str]:
        """Return id and query of a link of the API."""
        href = _href(base.links.get(what))
        if not href:
            return "", ""
        path, _, query = href.partition("?")
        match = _LINK.fullmatch(path)
        if not match or match[1] != what or not _QUERY.fullmatch(query):
            raise UntrustedChannel(f"{self.name}: {printable(href)[:200]} is no link to {what}")
        return match[2], query

    def _ask(self, method: str, path: str = "", body: bytes | None = None, query: str = "") -> Reply:
        allowed = fetching.limits(self._settings, self._settings.check_deadline)
        place = File(f"{self.name}/{path}", allowed, fetching.route(self._settings), self._access)
        return place.ask(method, "", body, query)

    def _check(self, reply: Reply) -> None:
        if 200 <= reply.status < 300:
            return
        if reply.status in _REFUSED:
            raise SystemSetup(f"cannot ask {self.name}: it does not know this router by this token (HTTP status "
                              f"{reply.status}); check tenant, name and token, or provision the router again")
        raise Unreachable(f"{self.name} answers with HTTP status {reply.status}")

    def _read(self, reply: Reply, kind: type[A]) -> A:
        self._check(reply)
        if reply.body.lstrip()[:1] == b"<":
            raise a_page_answers(self.name)
        try:
            return msgspec.json.decode(reply.body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UntrustedChannel(f"{self.name}: it does not answer as a hawkBit server does ({error})") from error


def address(own: Hawkbit) -> str:
    """Return where the server has what there is for this router."""
    return f"{own.url.rstrip('/')}/{quote(own.tenant, '')}/controller/v1/{quote(own.name, '')}"


def encoded(feedback: Feedback) -> bytes:
    """Return feedback as the API wants it."""
    details = [printable(" ".join(feedback.line.split()))[:500]]
    if feedback.kind == "confirmationBase":
        return msgspec.json.encode({"confirmation": feedback.execution, "details": details})
    status: dict[str, Any] = {"execution": feedback.execution, "result": {"finished": feedback.finished},
                              "details": details}
    time = datetime.fromtimestamp(feedback.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return msgspec.json.encode({"id": feedback.action, "time": time, "status": status})


def _href(link: Link | list[Link] | None) -> str:
    if isinstance(link, list):
        link = link[0] if link else None
    return link.href if link else ""


def _token(own: Hawkbit) -> str:
    token = own.token or _text(own.token_file, "token_file").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise SystemSetup("cannot ask the hawkBit server: its token is empty or has letters that no token has; set "
                          "`token` or `token_file` in the table hawkbit of the settings")
    return token


def _certificate(own: Hawkbit) -> bytes:
    if not own.certificate:
        return b""
    try:
        return ssl.PEM_cert_to_DER_cert(_text(own.certificate, "certificate"))
    except ValueError as error:
        raise SystemSetup(f"cannot ask the hawkBit server: {own.certificate} is no certificate (PEM); set "
                          "`certificate` in the table hawkbit of the settings") from error


def _text(path: str, setting: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SystemSetup(f"cannot ask the hawkBit server: cannot read {path}: {error}; set `{setting}` in the table "
                          "hawkbit of the settings") from error
