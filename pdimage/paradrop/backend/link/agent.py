"""The router's end of the link: connects, proves who it is, reports, and has the server's requests answered.

The contract is in :mod:`.messages`. Nothing here decides for the router: updates are the updater's, requests are the
API's. While the server is away all else goes on; the link is tried again after 1 to 300 seconds, each time after a
random part of twice as long, so that a server that comes back is not asked by all routers at once.
"""

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

import fussy
from paradrop.backend.link import keypair, messages, tls
from paradrop.backend.link.facts import same
from paradrop.backend.link.linkstate import Word
from paradrop.backend.link.machine import boot, machine
from paradrop.backend.link.messages import Broken, Facts, Hello, Report
from paradrop.backend.link.outcomes import Outcomes
from paradrop.backend.link.streams import Streams
from paradrop.backend.pdfcd.identity import Identity
from paradrop.lib.errors import ParadropError

log = logging.getLogger(__name__)

SHORTEST, LONGEST = 1.0, 300.0
HOURLY = 3600.0
ANSWER_SECONDS = 30.0
LOOK_SECONDS = 10.0
"""How often facts are looked at."""
STEADY = 60.0
"""A link that held for so many seconds was none in vain: the next is tried at once."""


@dataclass(frozen=True)
class Ended:
    """Why a link is not there: for people, and after how many seconds to try again, if it is told; None: by the count
    of tries. ``for_ever``: not at all."""

    state: Word
    line: str
    seconds: float | None = None
    for_ever: bool = False


@dataclass
class World:
    """What the agent works with: the router's API, its facts, and what is done when they change or the server asks."""

    app: ASGIApp
    facts: Callable[[], Facts]
    outcomes: Outcomes
    look: Callable[[], None]
    show: Callable[[Word, str], None]


class Agent:
    """One identity's link. ``run`` goes on until it is cancelled, or another router uses the identity."""

    def __init__(self, identity: Identity, world: World) -> None:
        self._identity = identity
        self._world = world
        self._facts = Facts(fussy.__version__)
        self._changed = asyncio.Event()
        # held while facts and outcomes are looked at, in another thread, so that they belong together
        self._looking = asyncio.Lock()

    async def run(self) -> None:
        """Keep the link."""
        await self._look_around()
        watch = asyncio.create_task(self._watch())
        try:
            delay = SHORTEST
            while True:
                began = time.monotonic()
                ended = await self._link()
                log.info("no link to the server: %s", ended.line)
                self._world.show(ended.state, ended.line)
                if ended.for_ever:
                    return
                delay = SHORTEST if time.monotonic() - began > STEADY else min(2 * delay, LONGEST)
                await asyncio.sleep(_when(ended.seconds, delay))
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        """Look again and again at what there is to tell."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self._look_around()

    async def _look_around(self) -> None:
        async with self._looking:
            try:
                facts = await asyncio.to_thread(self._world.facts)
            except Exception:
                log.exception("cannot look at the router's facts")
                return
            if self._world.outcomes.unsent or not same(facts, self._facts):
                self._facts = facts
                self._changed.set()

    async def _link(self) -> Ended:
        """Have one link as long as it lasts; return why it is over."""
        address = self._identity.server
        try:
            async with _connected(self._identity) as connection:
                return await self._talk(connection)
        except ConnectionClosed as error:
            return _closed(error)
        except InvalidStatus as error:
            return _turned_away(error.response.status_code, error.response.headers.get("Retry-After", ""))
        except _Certificate as error:
            return Ended("certificate", f"The server {address} cannot be believed: {error}.", LONGEST)
        except ssl.SSLError as error:
            return Ended("certificate", f"The server {address} cannot be believed: {tls.reason(error)}.", LONGEST)
        except Broken as error:
            return Ended("connecting", f"The server {address} does not keep to the protocol: {error}.")
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI, EOFError) as error:
            return Ended("connecting", f"The server {address} cannot be reached: {_reason(error)}.")
        except (ParadropError, ValueError) as error:
            return Ended("refused", f"This router cannot prove who it is: {error}; provision it again.", HOURLY)

    async def _talk(self, connection: ClientConnection) -> Ended:
        """Say hello, and serve until the link ends with an exception."""
        async with asyncio.timeout(ANSWER_SECONDS):
            challenge = _expect(await connection.recv(), messages.Challenge)
            await connection.send(messages.encode(self._hello(challenge.nonce)).decode())
            welcome = _expect(await connection.recv(), messages.Welcome)
        log.info("linked to the server %s as %s", self._identity.server, self._identity.pdid)
        self._world.show("connected", f"Linked to {self._identity.server} as {self._identity.pdid}.")
        streams = Streams(self._world.app, connection.send)
        report = asyncio.create_task(self._report(connection))
        try:
            while True:
                async with asyncio.timeout(messages.SILENCE * welcome.seconds):
                    frame = await connection.recv()
                    if isinstance(frame, bytes):
                        streams.take_piece(frame)
                    else:
                        await self._take(messages.from_server(frame), connection, streams)
        except Broken as error:
            await connection.close(messages.BROKEN, str(error)[:120])
            raise
        finally:
            report.cancel()
            await streams.close()

    async def _take(self, message: messages.FromServer, connection: ClientConnection, streams: Streams) -> None:
        match message:
            case messages.Ping():
                await connection.send(messages.encode(messages.Pong()).decode())
            case messages.Look():
                self._world.look()
            case messages.Challenge() | messages.Welcome():
                raise Broken("a second welcome")
            case _:
                streams.take(message)

    def _hello(self, nonce: str) -> Hello:
        identity = self._identity
        signature = keypair.sign(identity.key, urlsplit(identity.server).hostname or "", nonce)
        return Hello(identity.pdid, identity.certificate, signature, boot(), machine(), fussy.__version__, time.time(),
                     self._facts)

    async def _report(self, connection: ClientConnection) -> None:
        """Tell what changes: outcomes at once, facts once a minute at most."""
        told, when = self._facts, time.monotonic()
        with contextlib.suppress(ConnectionClosed, TimeoutError):  # that is found out by who receives
            while True:
                self._changed.clear()
                async with self._looking:
                    facts, unsent = self._facts, self._world.outcomes.unsent
                for outcome in unsent:
                    await connection.send(_text(facts, outcome))
                    await asyncio.wait_for(await connection.ping(), ANSWER_SECONDS)  # then the server has read it
                    async with self._looking:
                        self._world.outcomes.told(outcome)
                    told, when = facts, time.monotonic()
                due = when + messages.REPORT_SECONDS - time.monotonic()
                if not same(self._facts, told) and due <= 0:
                    await connection.send(_text(self._facts, None))
                    told, when = self._facts, time.monotonic()
                elif not same(self._facts, told):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), due)
                else:
                    await self._changed.wait()


class _Certificate(Exception):
    """The server shows another certificate than the one that was pinned."""


@contextlib.asynccontextmanager
async def _connected(identity: Identity) -> Any:
    address = identity.server
    extra: dict[str, Any] = {}
    if address.startswith("https:"):
        extra["ssl"] = tls.context(identity.pinned, identity.cert)
    async with connect(f"ws{address.removeprefix('http')}{messages.PATH}", compression=None, ping_interval=None,
                       max_size=messages.MESSAGE_BYTES, max_queue=4, open_timeout=ANSWER_SECONDS, close_timeout=2,
                       user_agent_header=f"paradrop/{fussy.__version__}", **extra) as connection:
        if identity.pinned and extra:
            shown = connection.transport.get_extra_info("ssl_object").getpeercert(True)
            if not tls.is_pinned(shown, identity.pinned):
                raise _Certificate(tls.changed(shown, identity.pinned))
        yield connection


def _expect(frame: str | bytes, kind: type[Any]) -> Any:
    message = messages.from_server(frame)
    if not isinstance(message, kind):
        raise Broken(f"{type(message).__name__.lower()} came before {kind.__name__.lower()}")
    return message


def _text(facts: Facts, outcome: messages.Outcome | None) -> str:
    return messages.encode(Report(facts, outcome)).decode()


def _closed(error: ConnectionClosed) -> Ended:
    code, reason = (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")
    if code == messages.UNKNOWN:
        return Ended("refused", f"The server refuses this router: {reason or 'it does not know it'}.", HOURLY)
    if code == messages.CLONE:
        return Ended("clone", "Another router uses this identity: provision this one again.", for_ever=True)
    if code in messages.COME_BACK:
        later = messages.later(reason)
        return Ended("connecting", f"The server has no room now: {later.line}.", float(later.seconds))
    return Ended("connecting", f"The server has ended the link{f': {reason}' if reason else ''}.")


def _turned_away(status: int, retry_after: str) -> Ended:
    seconds = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None
    if status in (429, 503):
        return Ended("connecting", "The server has no room now.", seconds)
    return Ended("connecting", f"The server answers with status {status}; is it a server of routers?", LONGEST)


def _when(told: float | None, delay: float) -> float:
    """Return after how many seconds to try again: a random time around what was told, or within the delay."""
    if told is None:
        return random.uniform(delay / 2, delay)
    return told + random.uniform(0, max(SHORTEST, told / 2))


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
