"""All links that end in this process: who may come, who is there, who is gone, and that no identity is used twice."""

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, Protocol

import msgspec
import sqlalchemy as sa

from fussy import moments
from paradrop.backend.link.messages import (
    BUSY,
    CLONE,
    SILENCE,
    UNKNOWN,
    Facts,
    Hello,
    Later,
    Look,
    Outcome,
    Report,
    encode,
)
from pdimage.server.http import in_thread
from pdimage.server.registry import proof
from pdimage.server.registry.admission import Admission
from pdimage.server.registry.batch import Batch
from pdimage.server.registry.link import Link, Socket
from pdimage.server.registry.linkmetrics import LinkMetrics
from pdimage.server.registry.presence import BEAT, Changes, Claim, Known, Presence
from pdimage.server.registry.rota import Rota

log = logging.getLogger(__name__)

# How long a linked router has to answer when another one comes with its identity.
CLONE_SECONDS = 5.0
# What routers told and could not be written yet may have so many characters.
_MOST_WAITING = 32 << 20
_WRITE_SECONDS = 1.0
# A process that was stopped for longer than this can't blame the routers for their silence.
_STALLED = 5.0


class Newcomer(msgspec.Struct, frozen=True):
    """A router that has proved who it is. ``home``: the machine that was provisioned."""

    pdid: str
    machine: str
    boot: str
    address: str
    home: str


Verdict = Literal["free", "clone"]


class Others(Protocol):
    """The other processes that have links."""

    async def make_room(self, hub: str, newcomer: Newcomer) -> Verdict | None:
        """Have one of them give up a router's link; None: it can't be asked."""

    async def look(self, pdids: list[str]) -> int:
        """Tell routers that are linked to them to look for an update; return how many were told."""

    async def cut(self, pdid: str) -> None:
        """End the link of a router that is revoked, if one of them has it."""


class Refuse(Exception):
    """A router may not come in, or stay: the code and the reason of its link's end."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def come_back(seconds: int, line: str) -> Refuse:
    """Return the refusal of one that may come later."""
    return Refuse(BUSY, encode(Later(seconds, line)).decode())


class Hub:
    """The links of this process. SECONDS: between pings; MOST: links."""

    def __init__(self, presence: Presence, admission: Admission, others: Others, *, seconds: float, most: int) -> None:
        self.links: dict[str, Link] = {}
        self.seconds = seconds
        self.most = most
        self.metrics = LinkMetrics()
        self._presence = presence
        self._admission = admission
        self._others = others
        self._arriving: set[str] = set()
        self._rota: Rota[Link] = Rota()
        self._changes = Changes()
        self._waiting = 0
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writing = asyncio.Lock()
        self._find = Batch(presence.find, asyncio.Lock())
        self._claim = Batch(presence.claim, self._writing)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin: correct what the database says, and attend to links from now on."""
        await in_thread(self._presence.start)
        self._loop = asyncio.get_running_loop()
        self._spawn(self._watch())
        self._spawn(self._keep())

    async def close(self, rate: float) -> None:
        """End all links: the routers are told to come back RATE each second, to the next server."""
        self._closing, self._loop = True, None
        for task in list(self._tasks):
            task.cancel()
        links = list(self.links.values())
        await asyncio.gather(*(
            link.close(BUSY, encode(Later(int(1 + number / rate), "the server is restarting")).decode())
            for number, link in enumerate(links)))
        for link in links:
            self._drop(link)
        with _warned():
            await self._write()

    # A router comes.

    def may_come(self, now: float, address: str | None = None) -> int:
        """Return 0 if one more router may begin to prove who it is, or in how many seconds it may. It counts as one
        that does if its ADDRESS is told; without, one is not even asked for it."""
        if self._closing:
            return 5
        if len(self.links) >= self.most:
            self.metrics.refused("full")
            return 60
        seconds = self._admission.turn(now) if address is None else self._admission.wait(now, address)
        if seconds:
            self.metrics.refused("rate")
        return seconds

    async def enter(self, socket: Socket, hello: Hello, nonce: str, host: str, address: str) -> Link:
        """Let a router in that proves who it is, or say why not.

        :raises Refuse: it does not, or must come later, or another one uses its identity
        """
        known = await self._find.ask(hello.pdid)
        if known is None:
            raise Refuse(UNKNOWN, f"there is no router {hello.pdid}, or it was deleted")
        try:
            proof.check(hello, known.certificate, known.public_key, host, nonce)
        except proof.Unproved as error:
            raise Refuse(UNKNOWN, str(error)) from None
        if known.pdid in self._arriving:
            raise come_back(5, "this router's last attempt is still under way")
        self._arriving.add(known.pdid)
        try:
            await self._make_room(known, hello, address)
            return await self._take_in(Link(socket, known, hello, address, asyncio.get_running_loop().time()),
                                       Claim(known, known.hub, address, hello.version), hello.facts)
        finally:
            self._arriving.discard(known.pdid)

    async def _make_room(self, known: Known, hello: Hello, address: str) -> None:
        newcomer = Newcomer(known.pdid, hello.machine, hello.boot, address, known.machine)
        verdict: Verdict | None = "free"
        if known.pdid in self.links:
            verdict = await self.make_room(newcomer)
        elif known.hub not in ("", self._presence.hub):
            verdict = await self._others.make_room(known.hub, newcomer)
        if verdict == "clone":
            self.metrics.refused("clone")
            raise Refuse(CLONE, f"another router uses the identity {known.pdid}: provision this one again")
        if verdict is None:
            raise come_back(30, f"{known.pdid} still has a link to {known.hub}")

    async def _take_in(self, link: Link, claim: Claim, facts: Facts) -> Link:
        if self._closing:
            raise come_back(5, "the server is restarting")
        self.links[link.pdid] = link  # at once, so that a write under way does not call it ended
        mine = False
        try:
            mine = await self._claim.ask(claim)
        finally:
            if not mine and self.links.get(link.pdid) is link:
                del self.links[link.pdid]
        if not mine:
            raise come_back(5, "this router's link has just been made elsewhere, or its certificate changed")
        self._note(link.pdid, facts, None)
        self._attend_again(link)
        self.metrics.came()
        log.info("%s is awake, at %s", link.pdid, link.address)
        return link

    async def make_room(self, new: Newcomer) -> Verdict:
        """Give up the link that a router has here, unless another one has it that is alive."""
        old = self.links.get(new.pdid)
        if old is None:
            return "free"
        if (old.machine, old.boot) == (new.machine, new.boot):
            self._drop(old)
            self._spawn(old.close(BUSY, encode(Later(1, "it has made a new link")).decode()))
        elif not await old.answers(CLONE_SECONDS):
            self._lose(old)
        elif new.machine == new.home != old.machine:  # the one that is here is the copy
            await self._incident(new, old, f"the one at {old.address} is not the machine that was provisioned, and")
            self._drop(old)
            await old.close(CLONE, f"another router uses the identity {old.pdid}: provision this one again")
        else:
            await self._incident(new, old, f"the newer, at {new.address},")
            return "clone"
        return "free"

    async def _incident(self, new: Newcomer, old: Link, whom: str) -> None:
        at = moments.utc(time.time())
        text = (f"two routers use this identity, at {old.address} and at {new.address} (seen {at}); {whom} was told "
                "to be provisioned again")
        log.warning("%s: %s", new.pdid, text)
        await in_thread(self._presence.incident, new.pdid, new.address, text)

    # A router is there.

    async def attend(self, link: Link) -> None:
        """Read a link until it ends."""
        try:
            await link.read(lambda report: self._told(link, report))
        except Refuse as refused:
            await link.close(refused.code, str(refused))
        finally:
            self._drop(link)

    async def look(self, pdids: Iterable[str], *, everywhere: bool = True) -> int:
        """Tell those of these routers that are awake to look for an update now; return how many were told.

        EVERYWHERE: those too that are linked to other processes of this machine.
        """
        wanted = set(pdids)
        here = [link for pdid, link in self.links.items() if pdid in wanted]
        for link in here:
            self._spawn(link.say(Look()))
        rest = sorted(wanted - {link.pdid for link in here})
        return len(here) + (await self._others.look(rest) if rest and everywhere else 0)

    def wake(self, pdids: list[str]) -> None:
        """Begin to look, from any thread."""
        if self._loop:
            asyncio.run_coroutine_threadsafe(self.look(pdids), self._loop)

    async def cut(self, pdid: str, *, everywhere: bool = True) -> None:
        """End the link of a router that is revoked, wherever it ends."""
        link = self.links.get(pdid)
        if link:
            self._drop(link)
            await link.close(UNKNOWN, f"{pdid} is no longer known here")
        if everywhere:
            await self._others.cut(pdid)

    async def find(self, pdid: str) -> Known | None:
        """Return what the database knows of a router's link."""
        return await self._find.ask(pdid)

    def _told(self, link: Link, report: Report) -> None:
        if self._waiting > _MOST_WAITING:
            raise come_back(60, "the server can't write down what routers report")
        self._note(link.pdid, report.facts, report.outcome)

    def _note(self, pdid: str, facts: Facts, outcome: Outcome | None) -> None:
        self._changes.facts[pdid] = encode(facts).decode()
        self._waiting += len(self._changes.facts[pdid])
        if outcome:
            self._changes.outcome(pdid, outcome)

    def _drop(self, link: Link) -> None:
        if self.links.get(link.pdid) is link:
            del self.links[link.pdid]
            self._changes.ended.add(link.pdid)
            log.info("%s is asleep", link.pdid)

    def _lose(self, link: Link) -> None:
        log.info("%s does not answer", link.pdid)
        self.metrics.lost()
        self._drop(link)
        link.abort()

    # What goes on meanwhile.

    async def _watch(self) -> None:
        """Ping routers, and cut those that are gone."""
        clock = asyncio.get_running_loop().time
        last = clock()
        while True:
            await asyncio.sleep(1.0)
            now = clock()
            self._admission.pace(now - last - 1.0)
            stalled, last = now - last > _STALLED, now
            if stalled:
                for link in self.links.values():
                    link.heard = max(link.heard, now - self.seconds)
            for link in self._rota.due(now):
                if self.links.get(link.pdid) is link:
                    self._look_after(link, now)

    def _look_after(self, link: Link, now: float) -> None:
        if now >= link.heard + SILENCE * self.seconds:
            self._lose(link)
            return
        if now >= link.pinged + self.seconds:  # also who talks: he must hear from us, too
            link.ping(now)
        self._attend_again(link)

    def _attend_again(self, link: Link) -> None:
        self._rota.add(min(link.pinged + self.seconds, link.heard + SILENCE * self.seconds), link)

    async def _keep(self) -> None:
        """Write what changed, and say that this process is there."""
        clock = asyncio.get_running_loop().time
        beat = clock()
        while True:
            await asyncio.sleep(_WRITE_SECONDS)
            with _warned():
                await self._write()
                if clock() >= beat:
                    beat = clock() + BEAT
                    await self._beat()

    async def _write(self) -> None:
        async with self._writing:
            changes, self._changes = self._changes, Changes()
            changes.ended = {pdid for pdid in changes.ended if pdid not in self.links}
            if not changes:
                return
            try:
                await in_thread(self._presence.write, changes)
            except sa.exc.SQLAlchemyError:
                self._changes.older(changes)
                raise
            self._waiting = self._changes.size

    async def _beat(self) -> None:
        async with self._writing:
            written = await in_thread(self._presence.beat)
            written |= self._arriving
            lacking = [link for pdid, link in self.links.items() if pdid not in written]
        found = await in_thread(self._presence.find, [link.pdid for link in lacking])
        for link, known in zip(lacking, found, strict=True):
            self._drop(link)
            if known is None or not known.certificate:
                await link.close(UNKNOWN, f"{link.pdid} is no longer known here")
            else:
                await link.close(BUSY, encode(Later(1, "the database lost this link")).decode())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@contextmanager
def _warned() -> Iterator[None]:
    """Go on without the database, and say so."""
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        log.warning("cannot write which routers are awake: %s", str(error).partition("\n")[0])


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    with suppress(OSError):  # the link is gone, and its reader knows
        await work
