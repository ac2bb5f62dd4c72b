"""Links when something breaks: the server, the database, the network between. In the end all is as it is shown."""

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from paradrop.backend.link.messages import BUSY, Facts, Look, Outcome, Report, later
from pdimage.server.registry.siblings import Siblings
from tests.registry.conftest import HERE
from tests.registry.linked import Closed, Router, linked
from tests.registry.scene import LINKS, Scene, memory, scene
from tests.server.conftest import Start
from tests.server.parts import Postgres, free_port, running
from tests.server.serverprocess import Answered, Server, wait_until

_CLONE_NEWNET = 0x40000000


async def awake(here: Scene) -> list[str]:
    """Return the routers that the server shows as awake."""
    return [router["pdid"] for router in (await here.get("/routers"))["routers"] if router["awake"]]


async def all_awake(here: Scene, number: int) -> None:
    """Wait until so many are."""
    async with asyncio.timeout(60):
        while len(await awake(here)) != number:
            await asyncio.sleep(0.1)


def test_a_server_that_is_killed_corrects_what_it_left_and_all_routers_come_back(start: Start) -> None:
    here = scene(start("--no-worker", **LINKS, listen=f"127.0.0.1:{free_port()}"))
    many = 300

    async def story() -> None:
        cards = here.routers(many + 1)
        gone = Router(cards[many], here.server.url)
        await gone.connect()
        await here.until(gone.card, awake=True)
        before = memory(here.server)
        staying = [asyncio.create_task(Router(card, here.server.url).stay()) for card in cards[:many]]
        await all_awake(here, many + 1)
        assert (memory(here.server) - before) / many < 60  # KiB for each, and for what is done at the first time
        here.server.kill()
        gone.drop()
        await asyncio.to_thread(here.server.start, "--no-worker")
        await all_awake(here, many)
        assert gone.card.pdid not in await awake(here)
        found = await asyncio.to_thread(here.joe.get, f"/routers/{cards[0].pdid}/api/v1/status")
        assert (found.status, found.body) == (200, {"version": "1.0"})

        # told to end, it tells when to come back, and to how many a second
        last = Router(gone.card, here.server.url)
        await last.connect()
        stopping = asyncio.create_task(asyncio.to_thread(here.server.close))
        with pytest.raises(Closed) as closed:
            await last.run()
        await stopping
        assert (closed.value.code, later(closed.value.reason).line) == (BUSY, "the server is restarting")
        await asyncio.to_thread(here.server.start, "--no-worker")
        await all_awake(here, many)
        for task in staying:
            task.cancel()

    asyncio.run(story())


def test_a_server_that_was_stopped_for_a_while_blames_nobody(start: Start) -> None:
    here = scene(start("--no-worker", **LINKS, link_seconds=1.0))

    async def story() -> None:
        card, = here.routers()
        router = Router(card, here.server.url)
        await router.connect()
        run = asyncio.create_task(router.run())
        os.kill(here.server.pid, signal.SIGSTOP)
        await asyncio.sleep(7)
        os.kill(here.server.pid, signal.SIGCONT)
        await asyncio.sleep(4)
        assert not run.done()
        await here.until(card, awake=True)
        run.cancel()

    asyncio.run(story())


@contextmanager
def cable(name: str) -> Iterator[str]:
    """Have a network namespace, connected to this one by a cable of the same name; yield the address of this end."""
    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", name, "type", "veth", "peer", "name", "wan", "netns", name)
        ip("address", "add", "10.213.7.1/30", "dev", name)
        ip("link", "set", name, "up")
        ip("-n", name, "address", "add", "10.213.7.2/30", "dev", "wan")
        ip("-n", name, "link", "set", "wan", "up")
        yield "10.213.7.1"
    finally:
        with suppress(subprocess.CalledProcessError):
            ip("link", "delete", name)
        ip("netns", "delete", name)


def connected_within(namespace: str, where: tuple[str, int]) -> socket.socket:
    """Connect from within a network namespace."""
    made: list[socket.socket] = []

    def work() -> None:
        with Path(f"/run/netns/{namespace}").open() as entry:
            assert ctypes.CDLL(None).setns(entry.fileno(), _CLONE_NEWNET) == 0
        made.append(socket.create_connection(where, timeout=30))
        made[0].setblocking(False)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return made[0]


def test_a_link_whose_packets_are_lost_is_cut_and_the_router_is_let_in_again(start: Start) -> None:
    port = free_port()
    here = scene(start("--no-worker", **LINKS, link_seconds=2.0, listen=f"0.0.0.0:{port}"))

    async def story() -> None:
        card, other = here.routers(2)
        with cable(f"lnk{os.getpid()}") as address:
            url = f"http://{address}:{port}"
            routers = [Router(one, url, made=connected_within(f"lnk{os.getpid()}", (address, port)))
                       for one in (card, other)]
            for router in routers:
                await router.connect()
            await here.until(card, awake=True, address="10.213.7.2")
            subprocess.run(["ip", "link", "set", f"lnk{os.getpid()}", "down"], check=True)
            # by another way, and after a new start of its machine: the old link can't answer, so it is no clone
            async with linked(Router(replace(card, boot="boot-2"), here.server.url)):
                await here.until(card, awake=True, address="127.0.0.1", incident="")
                asked = asyncio.create_task(asyncio.to_thread(here.joe.get, f"/routers/{other.pdid}/api/v1/status"))
                await here.until(other, awake=False)  # nobody said that this one is gone
                assert (await asked).status in (502, 503)  # who asked it is not left waiting

    asyncio.run(story())


def test_a_database_that_goes_away_costs_no_link_and_nothing_that_was_told(start: Start) -> None:
    with running(Postgres) as postgres:
        assert isinstance(postgres, Postgres)
        database = postgres.database("links")
        here = scene(start("--no-worker", **LINKS, database=database), database)

        async def story() -> None:
            card, other = here.routers(2)
            async with linked(Router(card, here.server.url)) as router:
                await here.until(card, awake=True)
                postgres.kill()
                await router.say(Report(Facts("2.0"), Outcome(7.0, "failed", "no space")))
                with pytest.raises(Closed) as closed:
                    await Router(other, here.server.url).connect()
                assert (closed.value.code, later(closed.value.reason).line) == (BUSY, "the server can't reach its "
                                                                                      "database")
                assert (await asyncio.to_thread(here.joe.get, "/routers")).status == 503
                await asyncio.to_thread(postgres.start)
                await asyncio.to_thread(wait_until, lambda: here.joe.get("/routers").status == 200)
                await here.until(card, awake=True, facts={"paradrop": "2.0"},
                                 outcome={"at": 7.0, "outcome": "failed", "line": "no space"})
                async with linked(Router(other, here.server.url)):
                    await here.until(other, awake=True)

        asyncio.run(story())
    assert "Traceback" not in here.server.log.read_text()


def test_links_that_end_in_several_processes_are_as_one(start: Start) -> None:
    here = scene(start("--no-worker", **LINKS, processes=3))

    async def story() -> None:
        cards = here.routers(30)
        routers = {card.pdid: Router(card, here.server.url) for card in cards}
        await asyncio.to_thread(wait_until, lambda: len(list(here.server.data.glob("links/*.sock"))) == 3)
        staying = [asyncio.create_task(router.stay()) for router in list(routers.values())[:15]]
        await all_awake(here, 15)
        os.kill(here.server.pid, signal.SIGSTOP)  # so that not the same process takes all of them
        staying += [asyncio.create_task(router.stay()) for router in list(routers.values())[15:]]
        await asyncio.sleep(1)
        os.kill(here.server.pid, signal.SIGCONT)
        await all_awake(here, 30)
        slots = {name: int(hub.rpartition("/")[2]) for name, hub in here.hubs().items()}
        assert len(set(slots.values())) > 1

        async def answers() -> None:
            """Ask all of them, each time by another connection, so that any process is asked."""
            async with asyncio.timeout(60):
                asked = [asyncio.to_thread(here.fresh, "POST", f"{HERE}/routers/{name}/api/v1/chutes", b"x" * 100_000)
                         for name in routers]
                assert {found.status for found in await asyncio.gather(*asked)} == {200}

        await answers()
        # each process is told which routers are to look for an update
        assert await Siblings(here.server.data / "links", "test", 9).look(list(routers)) == 30
        async with asyncio.timeout(30):
            while any(router.heard != [Look()] for router in routers.values()):
                await asyncio.sleep(0.1)
        # a copy is refused whichever process it comes to
        for _ in range(6):
            with pytest.raises(Closed, match="another router uses"):
                await Router(cards[0].on("another"), here.server.url).connect()
        # one process is killed: its routers come back to another, or to the next in its place
        os.kill(here.process(max(slots.values())), signal.SIGKILL)
        await asyncio.sleep(0.5)
        await all_awake(here, 30)
        await answers()
        # a router that is deleted is cut in any process
        await asyncio.gather(*(asyncio.to_thread(here.fresh, "DELETE", f"{HERE}/routers/{card.pdid}")
                               for card in cards[:6]))
        async with asyncio.timeout(60):
            while any(not router.wire.writer.is_closing() for router in list(routers.values())[:6]):
                await asyncio.sleep(0.1)
        for task in staying:
            task.cancel()

    asyncio.run(story())


def test_routers_that_are_linked_to_another_machine(start: Start, postgres: Postgres, tmp_path: Path) -> None:
    port = free_port()
    database = postgres.database("machines")
    here = scene(start("--no-worker", **LINKS, database=database, listen=f"127.0.0.1:{port}",
                       machine_url=f"http://127.0.0.1:{port}"), database)
    with here.another(tmp_path / "other/data", {**LINKS, "database": database}) as other:
        async def ask(server: Server, router: Router) -> Answered:
            return await asyncio.to_thread(
                server.ask, "GET", f"{HERE}/routers/{router.card.pdid}/api/v1/status", None,
                {"Authorization": f"Bearer {here.joe.token}"})

        async def story() -> None:
            cards = here.routers(2)
            async with linked(Router(cards[0], here.server.url)) as one, linked(Router(cards[1], other.url)) as two:
                await all_awake(here, 2)
                found = await ask(other, one)
                assert (found.status, found.body) == (200, {"version": "1.0"})
                found = await ask(here.server, two)  # whose server has no machine_url
                assert found.status == 503
                assert found.body["error"].startswith(f"{two.card.pdid} is linked to another server, ")
                assert found.body["error"].endswith("whose address is not known; see its setting machine_url")

        asyncio.run(story())
