"""Requests for a router's own API through its link, with routers and clients that are slow, gone, or mean."""

import asyncio
import hashlib
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress

import pytest
import urllib3

from paradrop.backend.link.messages import (
    STREAMS,
    WINDOW,
    Answer,
    Credit,
    End,
    Open,
    Reset,
    encode,
    piece,
)
from tests.registry.conftest import HERE, Person, register
from tests.registry.linked import Closed, Exchange, Router, linked
from tests.registry.scene import LINKS, Scene, memory, scene
from tests.server.serverprocess import Answered, Server, wait_until


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A server."""
    server = Server(tmp_path_factory.mktemp("tunnel") / "data", LINKS).start("--no-worker")
    yield scene(server)
    server.close()


async def ask(person: Person, router: Router, path: str = "api/v1/status", method: str = "GET",
              body: object = None) -> Answered:
    """Ask a router through the server."""
    return await asyncio.to_thread(person.ask, method, f"/routers/{router.card.pdid}/{path}", body)


def one(here: Scene, **more: object) -> Router:
    """Return a router that is not linked yet."""
    card, = here.routers()
    return Router(card, here.server.url, **more)  # type: ignore[arg-type]


def test_a_request_reaches_the_router_as_it_was_and_its_answer_the_client(here: Scene) -> None:
    asked: list[tuple[Open, bytes]] = []

    async def handle(exchange: Exchange) -> None:
        asked.append((exchange.opened, await exchange.body()))
        await exchange.answer(202, (("Location", "/api/v1/changes/7"), ("X-Two", "1"), ("x-two", "2"),
                                    ("Connection", "close"), ("Set-Cookie", "a=b")), b'{"id": 7}')

    async def story() -> None:
        async with linked(one(here, handle=handle)) as router:
            name = router.card.pdid.split(".")[2]
            found = await asyncio.to_thread(
                here.server.ask, "POST", f"{HERE}/routers/{name}/api/v1/chutes%2Fweb?follow=a%20b&x", {"name": "web"},
                {"Authorization": f"Bearer {here.joe.token}", "Cookie": "c=d", "X-Own": "é", "Origin": "http://evil"})
            assert (found.status, found.body) == (202, {"id": 7})
            assert found.headers["Location"] == "/api/v1/changes/7"
            assert found.headers["X-Two"] == "1, 2"
            assert "Set-Cookie" not in found.headers
            assert found.headers["Content-Security-Policy"] == "sandbox"  # it is no page of this server
            (opened, body), = asked
            assert (opened.method, opened.path, opened.role, opened.user, body) == (
                "POST", "/api/v1/chutes%2Fweb?follow=a%20b&x", "admin", "joe", b'{"name": "web"}')
            headers = dict(opened.headers)
            assert headers["x-own"] == "é"
            assert headers["content-length"] == "15"
            assert not {"authorization", "cookie", "host", "origin"} & headers.keys()
            assert (await here.get("/audit"))["entries"][0]["text"] == "POST /api/v1/chutes%2Fweb"
            # the documented API, and what has no body
            assert (await ask(here.joe, router, "v1/chutes", "HEAD")).status == 202
            assert asked[1][0].path == "/v1/chutes"
            assert (await ask(here.joe, router, "internal")).status == 404

    asyncio.run(story())


def test_who_may_ask_a_router(here: Scene) -> None:
    ann, viewer, admin = (register(here.server, name) for name in ("ann", "viewer", "admin"))
    here.give("viewer", "viewer")
    here.give("admin", "admin")
    reads = Person(here.server, "joe", here.joe.post("/tokens", {"label": "r", "read": True}).body["token"])
    seen: list[tuple[str, str]] = []

    async def handle(exchange: Exchange) -> None:
        seen.append((exchange.opened.user, exchange.opened.role))
        await exchange.answer(200, (), b"{}")

    async def story() -> None:
        async with linked(one(here, handle=handle)) as router:
            for person, reading, changing in ((here.joe, 200, 200), (reads, 200, 403), (viewer, 200, 403),
                                              (admin, 200, 200), (ann, 404, 404), (Person(here.server), 401, 401)):
                for method, status in (("GET", reading), ("POST", changing), ("DELETE", changing)):
                    found = await ask(person, router, method=method)
                    assert (person.name, method, found.status) == (person.name, method, status)
        assert {("joe", "admin"), ("joe", "operator"), ("viewer", "operator"), ("admin", "admin")} == set(seen)

    asyncio.run(story())


def test_a_router_that_is_asleep(here: Scene) -> None:
    async def story() -> None:
        router = one(here)
        found = await ask(here.joe, router)
        said = f"{router.card.pdid} is asleep: it has no link to this server"
        assert (found.status, found.body["error"], found.headers["Retry-After"]) == (503, said, "30")

        async def handle(exchange: Exchange) -> None:
            router.drop()

        router.handle = handle
        async with linked(router):
            found = await ask(here.joe, router)
            assert (found.status, found.body["error"]) == (
                502, f"cannot get an answer from {router.card.pdid}: the link of {router.card.pdid} ended")

    asyncio.run(story())


def test_a_log_is_followed_line_by_line(here: Scene) -> None:
    more = asyncio.Event()

    async def handle(exchange: Exchange) -> None:
        await exchange.answer(200, (("content-type", "application/x-ndjson"),))
        for number in range(3):
            await exchange.send(b'{"line": %d}\n' % number)
            await more.wait()
            more.clear()
        await exchange.say(End(exchange.opened.stream))

    async def story() -> None:
        loop = asyncio.get_running_loop()
        async with linked(one(here, handle=handle)) as router:
            def follow() -> list[int]:
                found = urllib3.request("GET", f"{here.server.url}{HERE}/routers/{router.card.pdid}/api/v1/logs",
                                        headers={"Authorization": f"Bearer {here.joe.token}"}, preload_content=False)
                lines = []
                for line in found:
                    lines.append(json.loads(line)["line"])
                    loop.call_soon_threadsafe(more.set)  # the next line comes only when this one has come
                return lines

            assert await asyncio.to_thread(follow) == [0, 1, 2]

    asyncio.run(story())


def test_large_bodies_go_through_in_little_memory(here: Scene) -> None:
    size = 32 << 20
    block = bytes(range(256)) * 256
    expected = hashlib.sha256(block * (size // len(block))).hexdigest()

    async def handle(exchange: Exchange) -> None:
        digest = hashlib.sha256()
        async for content in exchange.pieces():
            digest.update(content)
        await exchange.answer(200, (("x-digest", digest.hexdigest()),))
        for _ in range(size // len(block)):
            await exchange.send(block)
        await exchange.say(End(exchange.opened.stream))

    async def story() -> None:
        async with linked(one(here, handle=handle)) as router:
            def carry() -> tuple[str, str, int]:
                found = urllib3.request(
                    "POST", f"{here.server.url}{HERE}/routers/{router.card.pdid}/api/v1/chutes",
                    body=(block for _ in range(size // len(block))), preload_content=False,
                    headers={"Authorization": f"Bearer {here.joe.token}"}, timeout=300)
                digest, most = hashlib.sha256(), 0
                for content in found.stream(1 << 20):
                    digest.update(content)
                    most = max(most, memory(here.server))
                return found.headers["x-digest"], digest.hexdigest(), most

            await ask(here.joe, router, method="HEAD")  # what is loaded at the first request is loaded
            before = memory(here.server)
            up, down, most = await asyncio.to_thread(carry)
            assert (up, down) == (expected, expected)
            assert most - before < 8 << 10

    asyncio.run(story())


def reader(here: Scene, router: Router) -> socket.socket:
    """Ask for something, and read nothing."""
    host, port = here.server.url.removeprefix("http://").split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, int(port)))
    client.sendall(f"GET {HERE}/routers/{router.card.pdid}/api/v1/logs HTTP/1.1\r\nHost: a\r\n"
                   f"Authorization: Bearer {here.joe.token}\r\n\r\n".encode())
    return client


def test_slow_readers_stop_their_own_stream_alone_and_one_that_goes_frees_it(here: Scene) -> None:
    sent: dict[int, int] = {}
    lost: list[str] = []

    async def handle(exchange: Exchange) -> None:
        await exchange.answer(200)
        if exchange.opened.path.endswith("status"):
            await exchange.say(End(exchange.opened.stream))
            return
        while not exchange.lost:
            await exchange.send(bytes(1024))
            sent[exchange.opened.stream] = sent.get(exchange.opened.stream, 0) + 1024
        lost.append(exchange.lost)

    async def story() -> None:
        async with linked(one(here, handle=handle)) as router, asyncio.timeout(60):
            assert (await ask(here.joe, router)).status == 200
            before = memory(here.server)
            slow = [reader(here, router) for _ in range(STREAMS - 1)]
            while len(sent) < len(slow) or sum(sent.values()) != await later(sent):
                await asyncio.sleep(0.05)
            # what a stream may have on its way: its credit, and what uvicorn and the kernel hold for a client
            assert max(sent.values()) < WINDOW + (4 << 20)
            assert memory(here.server) - before < len(slow) * 2 * WINDOW // 1024 + 4096
            assert (await ask(here.joe, router)).status == 200  # others are served
            slow.append(reader(here, router))
            while len(sent) < STREAMS:
                await asyncio.sleep(0.05)
            found = await ask(here.joe, router)
            assert (found.status, found.headers["Retry-After"]) == (503, "5")
            assert found.body["error"] == f"{router.card.pdid} has 16 requests under way; try again later"
            for client in slow:
                client.close()
            while len(lost) < STREAMS:
                await asyncio.sleep(0.05)
            assert set(lost) == {"who asked has gone"}
            assert (await ask(here.joe, router)).status == 200

    asyncio.run(story())


async def later(sent: dict[int, int]) -> int:
    """Return how much was sent, some time later."""
    await asyncio.sleep(0.5)
    return sum(sent.values())


def test_routers_that_answer_nonsense_harm_only_their_own(here: Scene) -> None:
    async def answered(*said: object) -> tuple[Answered | str, Closed | None]:
        """Return what a client gets, and how the link ends, when a router says something instead of an answer."""
        async def handle(exchange: Exchange) -> None:
            for message in said:
                frame = message(exchange.opened.stream)  # type: ignore[operator]
                await router.wire.send(frame if isinstance(frame, bytes) else encode(frame).decode())

        router = one(here, handle=handle)
        await router.connect()
        running = asyncio.create_task(router.run())
        try:
            try:
                found: Answered | str = await ask(here.joe, router)
            except urllib3.exceptions.HTTPError as error:
                found = type(error).__name__
            await asyncio.sleep(0.1)
            error = running.exception() if running.done() else None
            assert error is None or isinstance(error, Closed)
            return found, error
        finally:
            router.drop()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def head(*headers: tuple[str, str]) -> object:
        return lambda stream: Answer(stream, 200, headers)

    async def story() -> None:
        async with AsyncExitStack() as stack:
            good = await stack.enter_async_context(linked(one(here)))
            for headers in ((("a\r\nb", "c"),), (("a", "b\r\nSet-Cookie: c"),), (("", ""),),
                            (("content-length", "-1"),), (("content-length", "1"), ("content-length", "1"))):
                found, link = await answered(head(*headers))
                assert isinstance(found, Answered)
                assert (found.status, link) == (502, None)
            found, _ = await answered(lambda stream: Reset(stream, "the daemon is restarting"))
            assert isinstance(found, Answered)
            assert found.body["error"].endswith(": the daemon is restarting")
            # an answer that breaks off is seen as that
            for said in ((lambda stream: piece(stream, b"toolong"),), (lambda stream: End(stream),),
                         (lambda stream: piece(stream, b"x"), lambda stream: Reset(stream, "gone"))):
                found, link = await answered(head(("content-length", "5")), *said)
                assert (found, link) == ("ProtocolError", None)
            for said, why in (
                    ((lambda stream: piece(stream, b"x"),), "before its answer"),
                    ((lambda stream: End(stream),), "before its answer"),
                    ((head(), head()), "a second answer"), ((lambda stream: Credit(stream, 1),), "credit beyond"),
                    ((head(), *[lambda stream: piece(stream, bytes(16384))] * 9), "more in stream 1 than")):
                _, link = await answered(*said)
                assert link
                assert link.code in (4400, 1006)
                assert why in link.reason or link.code == 1006
            assert (await ask(here.joe, good)).status == 200

    asyncio.run(story())
    assert "Traceback" not in here.server.log.read_text()


@pytest.mark.parametrize(("size", "how"), [(300_000, "closes"), (99_999_999, "resets"), (99_999_999, "waits")])
def test_an_upload_that_nobody_takes_waits_and_a_client_that_goes_ends_it(here: Scene, size: int, how: str) -> None:
    ended: list[str] = []
    reads = asyncio.Event()

    async def handle(exchange: Exchange) -> None:
        await reads.wait()
        await exchange.body()
        ended.append(exchange.lost)

    async def story() -> None:
        async with linked(one(here, handle=handle)) as router:
            host, port = here.server.url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"PUT {HERE}/routers/{router.card.pdid}/v1/x HTTP/1.1\r\nHost: a\r\n"
                         f"Content-Length: 99999999\r\nAuthorization: Bearer {here.joe.token}\r\n\r\n".encode())
            with suppress(TimeoutError):
                async with asyncio.timeout(2):
                    for _ in range(size // 65536):
                        writer.write(bytes(65536))
                        await writer.drain()
                    await asyncio.sleep(2)
            exchange, = router.exchanges.values()
            assert sum(map(len, exchange.waiting())) == WINDOW
            if how == "waits":  # its end can't come through before the rest is taken
                reads.set()
            if how == "resets":
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            await asyncio.to_thread(wait_until, lambda: exchange.lost)  # for less than a router's time to answer
            assert exchange.lost == "who asked has gone"
            reads.set()
            await asyncio.to_thread(wait_until, lambda: ended)
            assert ended == ["who asked has gone"]

    asyncio.run(story())
