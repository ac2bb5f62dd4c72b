"""What a router and its server say on their link: the contract of both ends. Nothing here reads, writes or waits.

The link is one WebSocket (RFC 6455) that the router opens to ``SERVER/registry/v1/link``, without extensions and
subprotocols. Text frames are messages: JSON objects with ``kind``; unknown fields are ignored, an unknown kind ends the
link. Binary frames are pieces of a stream: its number (4 bytes, big-endian) and 1 to PIECE_BYTES bytes.

::

    router                                    server
       | <------------- challenge {nonce} --------|
       |-- hello {pdid, certificate, signature …} |
       | <------ welcome {seconds, time} ---------|    or the end, with one of the codes below
       |                                          |
       | <--------------- ping -------------------|    every ``seconds``, whatever else is said; the router says pong
       |---------------- pong -----------------> |    at once. No word for SILENCE times ``seconds``: each side takes
       |                                          |    the other for gone and closes
       |------------- report {facts} ----------> |    when facts changed, at most one a minute; an outcome at once
       | <--------------- look -------------------|    the router is to look for an update now
       |                                          |
       | <-- open {stream, method, path, …} ------|    an HTTP request for the router's own API
       | <== pieces ==  end {stream} -------------|    its body, which may be none
       |-- answer {stream, status, headers} ---> |    the answer may begin before the body has ended
       |== pieces ==>  end {stream} -----------> |

**Streams.** The server numbers them from 1, each number once in a link; at most STREAMS are open at once. A stream is
over when both sides have said ``end``, or one of them ``reset`` (at any time; the other says nothing more, and does not
answer it). What still comes for a stream that is over is ignored: it may have crossed the reset.

**Credit.** Each side may send WINDOW bytes of pieces of a stream before it hears ``credit {stream, bytes}``, which adds
to that; credit is given for what was consumed. So neither end ever holds more than WINDOW bytes of a stream, and a slow
reader stops its own stream alone. More than there was credit for ends the link.

**Proof.** ``signature`` is the router's, over :func:`challenge_text` of the host that the router connects to (so no
other server can pass it on) and the nonce (so it is good once): Ed25519, or ECDSA with SHA-256 on P-256 (DER).

**Ends.** The codes with which a server closes; with COME_BACK the reason is a :class:`Later` as JSON. A server that is
too busy for more may answer the WebSocket's request itself: 429 or 503 with ``Retry-After``.
"""

from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

PROTOCOL = b"paradrop-link-1"
PATH = "/registry/v1/link"

MESSAGE_BYTES = 64 << 10
"""The longest text frame."""
PIECE_BYTES = 16 << 10
"""The longest piece of a stream."""
WINDOW = 64 << 10
"""The credit that each direction of a stream begins with, and the most there ever is."""
STREAMS = 16
"""The most streams of a link at once."""
HELLO_SECONDS = 15.0
"""How long the server waits for ``hello``."""
SILENCE = 2.5
"""For how many times ``welcome.seconds`` a side may be silent before it is taken for gone."""
REPORT_SECONDS = 60.0
"""The least time between two reports without an outcome."""

BROKEN = 4400
"""The other side does not keep to this contract; the reason says where."""
UNKNOWN = 4401
"""The router is unknown or revoked, or could not prove who it is: try again hourly."""
CLONE = 4409
"""Another router uses this identity: provision again, don't come back."""
TOO_MANY = 4429
"""The router comes too often: come back later."""
BUSY = 4503
"""The server has as many links as it can have, or is ending: come back later."""
COME_BACK = (TOO_MANY, BUSY)

Name = Annotated[str, Meta(max_length=80)]
Number = Annotated[int, Meta(ge=1, lt=1 << 32)]
Headers = tuple[tuple[str, str], ...]


class Message(msgspec.Struct, frozen=True, tag_field="kind", tag=str.lower, omit_defaults=True):
    """A text frame."""


class Challenge(Message, frozen=True):
    """The server's first word. ``nonce``: 32 random bytes in hexadecimal."""

    nonce: str


class Chute(msgspec.Struct, frozen=True):
    """A chute as the router's API shows it."""

    name: str
    state: str
    version: str = ""


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a router tells of itself. ``paradrop``: its version; ``firmware``: what ``fussy status --json`` says, null
    without a target; ``uptime``: seconds since the machine started; ``boot``: the kernel's boot_id."""

    paradrop: str
    firmware: dict[str, Any] | None = None
    chutes: tuple[Chute, ...] = ()
    uptime: float = 0.0
    boot: str = ""


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an attempt to update ended: the word and the line of ``fussy update``; ``at``: Unix seconds by the router's
    clock."""

    at: float
    outcome: Name
    line: Annotated[str, Meta(max_length=1000)]
    release: Annotated[str, Meta(max_length=200)] = ""


class Hello(Message, frozen=True):
    """The router's proof (see above) and first facts. ``boot``: the kernel's boot_id and a number of this start of the
    daemon; ``machine``: a hash of what belongs to the hardware, made anew each time; ``clock``: Unix seconds."""

    pdid: Name
    certificate: str
    signature: bytes
    boot: Name
    machine: Annotated[str, Meta(max_length=64)]
    version: Annotated[str, Meta(max_length=64)]
    clock: float
    facts: Facts


class Welcome(Message, frozen=True):
    """The router is known. ``seconds``: between pings; ``time``: the server's clock, Unix seconds."""

    seconds: float
    time: float


class Report(Message, frozen=True):
    """What changed on the router."""

    facts: Facts
    outcome: Outcome | None = None


class Look(Message, frozen=True):
    """Look for an update now."""


class Ping(Message, frozen=True):
    """Say pong."""


class Pong(Message, frozen=True):
    """The router is there."""


class Open(Message, frozen=True):
    """A request. ``path``: with the query, ``/api/v1/…`` or ``/v1/…``; ``headers``: pairs, without those of the
    connection; ``role``: viewer, operator or admin, as the router's API has them; ``user``: the account that asks."""

    stream: Number
    method: str
    path: str
    headers: Headers
    role: str
    user: str


class Answer(Message, frozen=True):
    """The head of the answer."""

    stream: Number
    status: Annotated[int, Meta(ge=200, le=599)]
    headers: Headers


class End(Message, frozen=True):
    """This side's body is complete."""

    stream: Number


class Reset(Message, frozen=True):
    """The stream is over, unfinished."""

    stream: Number
    reason: str


class Credit(Message, frozen=True):
    """So many bytes more may be sent."""

    stream: Number
    bytes: Number


FromServer: TypeAlias = Challenge | Welcome | Look | Ping | Open | End | Reset | Credit
FromRouter: TypeAlias = Hello | Report | Pong | Answer | End | Reset | Credit


class Later(msgspec.Struct, frozen=True):
    """The reason of an end with COME_BACK: after how many seconds, and why."""

    seconds: int
    line: str


class Broken(Exception):
    """The other side does not keep to the contract: close with BROKEN, and this text as the reason."""


encode = msgspec.json.Encoder().encode
_from_server: msgspec.json.Decoder[FromServer] = msgspec.json.Decoder(FromServer)
_from_router: msgspec.json.Decoder[FromRouter] = msgspec.json.Decoder(FromRouter)
_Kinds = TypeVar("_Kinds")
_later = msgspec.json.Decoder(Later)


def from_server(frame: str | bytes) -> FromServer:
    """Return the message of a text frame of the server.

    >>> from_server('{"kind": "welcome", "seconds": 30, "time": 1764450000.5}')
    Welcome(seconds=30.0, time=1764450000.5)

    :raises Broken: it is none
    """
    return _decoded(frame, _from_server)


def from_router(frame: str | bytes) -> FromRouter:
    """Return the message of a text frame of the router.

    >>> from_router('{"kind": "reboot"}')
    Traceback (most recent call last):
    ...
    paradrop.backend.link.messages.Broken: no message: Invalid value 'reboot' - at `$.kind`

    :raises Broken: it is none
    """
    return _decoded(frame, _from_router)


def _decoded(frame: str | bytes, decoder: msgspec.json.Decoder[_Kinds]) -> _Kinds:
    if len(frame) > MESSAGE_BYTES:
        raise Broken(f"a message is longer than {MESSAGE_BYTES} bytes")
    try:
        return decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Broken(f"no message: {error}"[:120]) from None


def piece(stream: int, content: bytes | memoryview) -> bytes:
    """Return the binary frame of a piece of a stream.

    >>> piece(258, b"log")
    b'\\x00\\x00\\x01\\x02log'
    """
    return b"".join((stream.to_bytes(4, "big"), content))


def parse_piece(frame: bytes) -> tuple[int, memoryview]:
    """Return the stream and the bytes of a binary frame.

    :raises Broken: it is none
    """
    if not 4 < len(frame) <= 4 + PIECE_BYTES:
        raise Broken(f"a piece has 1 to {PIECE_BYTES} bytes, not {len(frame) - 4}")
    return int.from_bytes(frame[:4], "big"), memoryview(frame)[4:]


def challenge_text(host: str, nonce: str) -> bytes:
    """Return what the router signs. HOST: of the server's address, without the port.

    >>> challenge_text("Updates.Example", "00ff")
    b'paradrop-link-1\\nupdates.example\\n00ff'
    """
    return b"\n".join((PROTOCOL, host.lower().encode(), nonce.encode()))


def later(reason: str) -> Later:
    """Return what the reason of an end with COME_BACK says; a minute if it makes no sense."""
    try:
        return _later.decode(reason)
    except msgspec.DecodeError:
        return Later(60, reason or "the server is busy")
