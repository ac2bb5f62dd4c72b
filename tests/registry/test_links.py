"""Routers' links: who may make one, who is awake, and what ends a link."""

import asyncio
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from paradrop.backend.link.messages import (
    BROKEN,
    CLONE,
    UNKNOWN,
    Chute,
    Facts,
    Hello,
    Look,
    Outcome,
    Ping,
    Report,
    encode,
    later,
)
from tests.registry.fleets import begin, put_file
from tests.registry.linked import Card, Closed, Router, Wire, linked
from tests.registry.scene import LINKS, Scene, scene
from tests.server.conftest import Start
from tests.server.serverprocess import Server


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A server that pings each second."""
    server = Server(tmp_path_factory.mktemp("links") / "data", {**LINKS, "link_seconds": 1.0}).start("--no-worker")
    yield scene(server)
    server.close()


async def refused(router: Router) -> tuple[int, str]:
    """Return with which code and reason a router is turned away."""
    with pytest.raises(Closed) as closed:
        await router.connect()
    return closed.value.code, closed.value.reason


async def ended(router: Router) -> tuple[int, str]:
    """Return with which code and reason a link ends."""
    with pytest.raises(Closed) as closed:
        async with asyncio.timeout(30):
            await router.run()
    return closed.value.code, closed.value.reason


def test_a_router_is_awake_while_it_has_a_link_and_tells_of_itself(start: Start, store: dict[str, object]) -> None:
    here = scene(start("--no-worker", **LINKS, **store), str(store.get("database", "")))

    async def story() -> None:
        card, = here.routers()
        assert (await here.shown(card))["awake"] is False
        async with linked(Router(card, here.server.url)) as router:
            found = await here.until(card, awake=True, facts={"paradrop": "1.0"})
            assert (found["address"], found["version"]) == ("127.0.0.1", "1.0")
            assert abs(found["seen"] - time.time()) < 60
            facts = Facts("1.1", {"current": {"name": "firmware-2"}}, (Chute("web", "running"),), 60.0, "boot")
            await router.say(Report(facts))
            await router.say(Report(facts, Outcome(5.0, "updated", "from 1 to 2", "firmware-2")))
            await here.until(card, outcome={"at": 5.0, "outcome": "updated", "line": "from 1 to 2",
                                            "release": "firmware-2"})
            assert (await here.shown(card))["facts"] == msgspec.json.decode(encode(facts))
        assert (await here.until(card, awake=False))["facts"]["paradrop"] == "1.1"

    asyncio.run(story())


def test_who_can_not_prove_who_it_is_stays_out(here: Scene) -> None:
    async def story() -> None:
        card, other, made = here.routers(3)
        here.joe.post("/routers", {"name": "unprovisioned"})

        async def tried(card: Card) -> tuple[int, str]:
            return await refused(Router(card, here.server.url))

        wrong = f"this is not signed with the key of {card.pdid} for 127.0.0.1"
        assert await tried(replace(card, pdid="pd.joe.nobody")) == (
            UNKNOWN, "there is no router pd.joe.nobody, or it was deleted")
        assert await tried(replace(card, pdid="pd.joe.unprovisioned")) == (
            UNKNOWN, "pd.joe.unprovisioned is not provisioned here")
        assert await tried(replace(card, certificate=other.certificate)) == (
            UNKNOWN, f"{card.pdid} was provisioned again, or elsewhere: this certificate is no longer its own")
        assert await tried(replace(card, key=Ed25519PrivateKey.generate())) == (UNKNOWN, wrong)
        assert await tried(Elsewhere(**vars(card))) == (UNKNOWN, wrong)
        old = Replayed(**vars(card))
        assert (await Router(old, here.server.url).connect()).seconds == 1.0
        assert await tried(old) == (UNKNOWN, wrong)
        # case does not matter, and who is refused harms nobody
        async with linked(Router(replace(made, pdid=made.pdid.upper()), here.server.url)):
            await here.until(made, awake=True)

    asyncio.run(story())


class Elsewhere(Card):
    """A router whose proof was made for another server, which passes it on."""

    def hello(self, host: str, nonce: str) -> Hello:
        return super().hello("evil.example", nonce)


class Replayed(Card):
    """Says the same hello each time."""

    def hello(self, host: str, nonce: str) -> Hello:
        said: Hello = self.__dict__.setdefault("said", super().hello(host, nonce))
        return said


@pytest.mark.parametrize(("frames", "code", "why"), [
    (['{"kind": "pong"}'], BROKEN, "the first message is no hello"),
    (["{"], BROKEN, "no message"),
    ([b"\0\0\0\1x"], BROKEN, "the first message is no hello"),
    (["x" * 70_000], 1009, ""),
    (["hello", '{"kind": "reboot"}'], BROKEN, "no message: Invalid value 'reboot'"),
    (["hello", "hello"], BROKEN, "a second hello"),
    (["hello", b"\0\0\0\1"], BROKEN, "a piece has 1 to 16384 bytes"),
    (["hello", bytes(70_000)], 1009, ""),
    (["hello", *['{"kind": "pong"}'] * 2000], BROKEN, "too many messages"),
    (["hello", *[b"\0\0\0\7log"] * 2000], BROKEN, "too many messages"),
])
def test_who_does_not_keep_to_the_messages_is_cut(here: Scene, frames: list[str | bytes], code: int, why: str) -> None:
    async def story() -> None:
        card, = here.routers()
        wire = await Wire.open(here.server.url)
        nonce = msgspec.json.decode(await wire.read())["nonce"]
        hello = encode(card.hello("127.0.0.1", nonce)).decode()
        with pytest.raises(Closed) as closed:
            for frame in frames:
                await wire.send(hello if frame == "hello" else frame)
            while True:
                await wire.read()
        assert closed.value.code in (code, 1006)  # what was sent too much may hide the reason
        if closed.value.code == code:
            assert closed.value.reason.startswith(why)
        await here.until(card, awake=False)

    asyncio.run(story())
    assert "Traceback" not in here.server.log.read_text()


def test_who_only_opens_links_and_says_nothing_keeps_nobody_else_out(here: Scene) -> None:
    async def story() -> None:
        card, = here.routers()
        wires = [await Wire.open(here.server.url, "127.0.0.4") for _ in range(100)]
        with pytest.raises(Closed) as closed:
            await Wire.open(here.server.url, "127.0.0.4")
        assert (closed.value.code, closed.value.reason) == (503, "10")
        async with linked(Router(card, here.server.url, source="127.0.0.5")):
            await here.until(card, awake=True)
        for wire in wires:
            wire.writer.transport.abort()

    asyncio.run(story())


def test_a_second_router_with_the_same_identity_is_refused_and_both_are_seen(here: Scene) -> None:
    async def story() -> None:
        card, = here.routers()
        async with linked(Router(card, here.server.url, source="127.0.0.2")):
            copy = Router(card.on("another"), here.server.url, source="127.0.0.3")
            assert await refused(copy) == (CLONE, f"another router uses the identity {card.pdid}: provision this one "
                                                  "again")
            found = await here.shown(card)
            assert found["awake"] and found["address"] == "127.0.0.2"
            assert "at 127.0.0.2 and at 127.0.0.3" in found["incident"]
            assert "the newer, at 127.0.0.3, was told to be provisioned again" in found["incident"]
            entry = (await here.get("/audit"))["entries"][0]
            assert (entry["action"], entry["who"], entry["address"], entry["text"]) == (
                "router.clone", card.pdid, "127.0.0.3", found["incident"])

    asyncio.run(story())


def test_a_copy_that_came_first_gives_way_to_the_machine_that_was_provisioned(here: Scene) -> None:
    async def story() -> None:
        card, = here.routers()
        copy = Router(card.on("another"), here.server.url, source="127.0.0.3")
        await copy.connect()
        turned_away = asyncio.create_task(ended(copy))
        async with linked(Router(card, here.server.url, source="127.0.0.2")):
            assert (await turned_away)[0] == CLONE
            found = await here.until(card, awake=True, address="127.0.0.2")
            assert "the one at 127.0.0.3 is not the machine that was provisioned" in found["incident"]

    asyncio.run(story())


def test_a_router_that_comes_back_takes_the_place_of_its_old_link(here: Scene) -> None:
    async def story() -> None:
        card, = here.routers()
        old = Router(card, here.server.url)
        await old.connect()
        async with linked(Router(card, here.server.url)):  # at once: it is the same start of the same daemon
            code, reason = await ended(old)
            assert (code, later(reason).line) == (4503, "it has made a new link")
            await here.until(card, awake=True, incident="")
        # started again, while its old link, on which nobody answers, is still there
        silent = Router(card, here.server.url)
        await silent.connect()
        async with linked(Router(replace(card, boot="boot-2"), here.server.url)):
            await here.until(card, awake=True, incident="")
            with pytest.raises(Closed):
                while isinstance(await silent.read(), Ping):
                    pass

    asyncio.run(story())


def test_a_router_that_is_deleted_is_cut_at_once(here: Scene) -> None:
    async def story() -> None:
        card, = here.routers()
        router = Router(card, here.server.url)
        await router.connect()
        cut = asyncio.create_task(ended(router))
        assert (await asyncio.to_thread(here.joe.ask, "DELETE", f"/routers/{card.pdid}")).status == 204
        assert await cut == (UNKNOWN, f"{card.pdid} is no longer known here")
        assert (await refused(router))[0] == UNKNOWN

    asyncio.run(story())


def test_a_silent_router_is_pinged_and_cut_and_one_that_answers_is_not(here: Scene) -> None:
    async def story() -> None:
        good, silent = here.routers(2)
        async with linked(Router(good, here.server.url)):
            router = Router(silent, here.server.url)
            began = time.monotonic()
            await router.connect()
            with pytest.raises(Closed):
                while True:
                    assert await router.read() == Ping()
            assert 2 < time.monotonic() - began < 20
            await here.until(silent, awake=False)
            assert (await here.shown(good))["awake"]

    asyncio.run(story())


def test_routers_are_told_to_look_for_an_update(here: Scene) -> None:
    async def story() -> None:
        one, other, asleep = here.routers(3)
        async with linked(Router(one, here.server.url)) as told, linked(Router(other, here.server.url)) as spared:
            async with asyncio.timeout(30):
                while b"\npdimage_links 2.0\n" not in (await asyncio.to_thread(here.server.get, "/metrics")).data:
                    await asyncio.sleep(0.1)
            assert await asyncio.to_thread(process_asked, here.server, "look", [one.pdid, asleep.pdid]) == b"1"
            async with asyncio.timeout(30):
                while not told.heard:
                    await asyncio.sleep(0.05)
            assert (told.heard, spared.heard) == ([Look()], [])

    asyncio.run(story())


def test_a_router_hears_its_welcome_before_what_others_say_to_it_while_it_comes(here: Scene) -> None:
    async def story() -> None:
        card, = here.routers()
        router = Router(card, here.server.url)
        with closing(sqlite3.connect(here.server.data / "server.db", isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")  # so that nothing is written, and no router let in, for a while
            coming = asyncio.create_task(router.connect())
            async with asyncio.timeout(20):
                while await asyncio.to_thread(process_asked, here.server, "look", [card.pdid]) != b"1":
                    await asyncio.sleep(0.05)
            asked = asyncio.create_task(here.get(f"/routers/{card.pdid}/api/v1/status"))
            await asyncio.sleep(1.5)  # a ping is due as well
            assert not coming.done()
        assert (await coming).seconds == 1.0
        running = asyncio.create_task(router.run())
        assert await asked == {"version": "1.0"}
        assert router.heard == [Look()]
        router.drop()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(story())


def test_a_router_is_told_at_once_that_a_roll_out_reaches_it(here: Scene) -> None:
    async def story() -> None:
        one, other = here.routers(2)
        release = put_file(here.server, "8.0")
        here.joe.ask("PUT", "/groups/field", {})
        assert here.joe.ask("PUT", f"/groups/field/routers/{one.pdid}").status == 204
        async with linked(Router(one, here.server.url)) as told, linked(Router(other, here.server.url)) as spared:
            number = await asyncio.to_thread(begin, here.joe, release, "field")
            async with asyncio.timeout(30):
                while not told.heard:
                    await asyncio.sleep(0.05)
            assert (told.heard, spared.heard) == ([Look()], [])
            await asyncio.to_thread(here.joe.post, f"/rollouts/{number}/cancel")

    asyncio.run(story())


def process_asked(server: Server, verb: str, content: object, slot: int = 0) -> bytes:
    """Ask a serving process what only its siblings may ask, on its own socket; return the body of its answer."""
    body = msgspec.json.encode(content)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server.data / f"links/{slot}.sock"))
        client.sendall(b"POST /links/%s HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (
            verb.encode(), len(body), body))
        return b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")[2]


def test_nobody_else_may_ask_what_processes_ask(here: Scene) -> None:
    for verb in ("room", "look", "cut"):
        assert here.server.post(f"/links/{verb}", []).status == 404
    assert (here.server.data / "links").stat().st_mode & 0o777 == 0o700


def test_links_take_no_place_of_clients_and_have_a_limit_of_their_own(start: Start) -> None:
    here = scene(start("--no-worker", **LINKS, connections=4, links=10))

    async def story() -> None:
        cards = here.routers(11)
        routers = [Router(card, here.server.url) for card in cards[:10]]
        for router in routers:
            await router.connect()
        assert (await here.get("/routers"))["routers"][0]["awake"]
        assert await refused(Router(cards[10], here.server.url)) == (503, "60")
        routers[0].drop()
        await here.until(cards[0], awake=False)
        await Router(cards[10], here.server.url).connect()

    asyncio.run(story())


def test_when_all_come_at_once_the_others_are_told_when_it_is_their_turn(start: Start) -> None:
    here = scene(start("--no-worker", **{**LINKS, "link_rate": 10.0}))

    async def story() -> None:
        async def come(card: Card) -> list[int]:
            waits = []
            while True:
                try:
                    await Router(card, here.server.url).connect()
                    return waits
                except Closed as closed:
                    assert closed.code == 503
                    waits.append(int(closed.reason))
                    await asyncio.sleep(waits[-1])

        began = time.monotonic()
        waits = await asyncio.gather(*map(come, here.routers(40)))
        assert time.monotonic() - began > 2.5  # ten at once, and ten each second
        assert waits.count([]) >= 10
        assert 3 <= max(max(one, default=0) for one in waits) <= 16  # seconds: four times as many if it has much to do

    asyncio.run(story())
