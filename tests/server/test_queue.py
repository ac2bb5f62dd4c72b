"""The queue, on SQLite and on PostgreSQL: one build for equal requests, turns, limits, failures, lost workers."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from fussy import ondemand
from fussy.ondemand import Request
from pdimage.server import artifacts, collect, tables
from pdimage.server.asking import Asked
from pdimage.server.entries import Entry, File, Image, Job
from pdimage.server.migrate import migrate
from pdimage.server.refusals import Refused
from pdimage.server.registry.fleet import tables as fleet
from pdimage.server.requests import Requests
from pdimage.server.settings import Settings

DAY = 86400.0


@dataclass
class Queue:
    """A store of requests with a clock that stands, and a shorthand for what is asked."""

    engine: sa.Engine
    settings: Settings
    now: float = 1_000_000.0

    def __post_init__(self) -> None:
        self.requests = Requests(self.engine, self.settings, lambda: self.now)

    def ask(self, name: str, client: str = "a", **more: str) -> Entry:
        request = Request("tiny", "1.0", "x86/64", "generic", (name,), **more)
        self.now += 0.001
        return self.requests.accept(Asked(request), ondemand.digest(request), client)

    def claim(self, worker: str = "w") -> Job:
        job = self.requests.claim(worker)
        assert job
        return job

    def finish(self, job: Job, *, snapshot: bool = False) -> bool:
        files = (File("a.gpg", 1, "0" * 64),)
        return self.requests.finish(job, Image(
            job.hash, job.hash, "0" * 64, "tiny", "1.0", "x86/64", "generic", job.request.defaults, snapshot,
            job.worker, self.now, 1.0, "a.gpg", files), {"a": "1"})


Make = Callable[..., Queue]


@pytest.fixture
def make(parts: dict[str, object], tmp_path: Path) -> Iterator[Make]:
    """Make a queue; settings are arguments."""
    engines = []

    def begin(**settings: object) -> Queue:
        wanted = Settings(data=str(tmp_path), **{**parts, **settings})  # type: ignore[arg-type]
        engines.append(tables.connect(wanted.database_url))
        migrate(engines[-1])
        return Queue(engines[-1], wanted)

    yield begin
    for engine in engines:
        engine.dispose()


def refused(queue: Queue, *arguments: str) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        queue.ask(*arguments)
    return caught.value.status, caught.value.headers["Retry-After"]


def test_equal_requests_at_the_same_moment_are_one(make: Make) -> None:
    queue = make()
    barrier = threading.Barrier(20)

    def ask(number: int) -> str:
        barrier.wait()
        return queue.ask("a", f"client-{number}").hash

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(ask, range(20)))) == 1
    job = queue.claim()
    assert queue.requests.claim("other") is None
    assert queue.finish(job)
    entry = queue.ask("a", "late")
    assert entry.state == "done"
    assert entry.image
    assert entry.image.sysupgrade == "a.gpg"


def test_many_workers_claim_each_request_once(make: Make) -> None:
    queue = make(queue_limit=100, client_queue=100)
    asked = {queue.ask(f"p{number}").hash for number in range(24)}

    def work(worker: int) -> list[str]:
        claimed = []
        while job := queue.requests.claim(str(worker)):
            claimed.append(job.hash)
        return claimed

    with ThreadPoolExecutor(8) as pool:
        claimed = [digest for digests in pool.map(work, range(8)) for digest in digests]
    assert sorted(claimed) == sorted(asked)


def test_clients_take_turns_and_are_told_their_places(make: Make) -> None:
    queue = make()
    first = [queue.ask(f"a{number}", "greedy") for number in range(4)]
    assert [entry.place for entry in first] == [0, 1, 2, 3]
    modest = queue.ask("b", "modest")
    assert modest.place == 1
    places = {entry.hash: place for place, entry in enumerate([first[0], modest, *first[1:]])}
    assert {digest: entry.place for digest in places if (entry := queue.requests.find(digest))} == places
    assert queue.requests.queue() == list(places)
    assert queue.claim().hash == first[0].hash
    assert queue.claim().hash == modest.hash  # greedy has one under way
    later = queue.ask("c", "third")
    assert later.place == 0
    assert queue.claim().hash == later.hash


def test_limits(make: Make) -> None:
    queue = make(queue_limit=4, client_queue=2, client_hourly=3, retry_after=120)
    queue.ask("a")
    queue.ask("b")
    assert refused(queue, "c") == (429, "120")
    assert queue.ask("a").place == 0  # what is there already is no new request
    queue.ask("d", "other")
    queue.ask("e", "other")
    assert refused(queue, "f", "third") == (503, "120")
    assert queue.finish(queue.claim())
    queue.ask("c")
    for _ in range(4):
        queue.finish(queue.claim())
    assert refused(queue, "g") == (429, "3600")
    queue.now += 3601
    assert queue.ask("g").state == "queued"


def test_a_failure_is_remembered_for_a_while_or_until_it_is_flushed(make: Make) -> None:
    queue = make(failure_seconds=600)
    queue.ask("a")
    queue.requests.fail(queue.claim(), "failed", "no disk")
    assert (queue.ask("a").state, queue.ask("a").error) == ("failed", "no disk")
    queue.now += 601
    assert queue.ask("a").state == "queued"
    queue.requests.fail(queue.claim(), "failed", "no disk")
    assert queue.requests.flush("0" * 64) == 0
    assert queue.requests.flush() == 1
    assert queue.ask("a").state == "queued"


def test_a_lost_worker_is_replaced_and_what_it_says_later_does_not_count(make: Make) -> None:
    queue = make(lease_seconds=20, attempts=3)
    asked = queue.ask("a")
    lost = queue.claim("lost")
    assert queue.requests.beat(lost, "building", "half\n")
    queue.now += 19
    assert queue.requests.reap() == 0
    queue.now += 2
    assert queue.requests.reap() == 1
    assert (queue.ask("a").state, queue.ask("a").place) == ("queued", 0)
    second = queue.claim("second")
    assert (second.hash, second.attempt) == (asked.hash, 2)
    assert not queue.requests.beat(lost)
    assert not queue.finish(lost)
    assert not queue.requests.fail(lost, "failed", "mine")
    assert queue.requests.log(asked.hash) == ""
    queue.now += 21
    queue.requests.reap()
    queue.claim("third")
    queue.now += 21
    queue.requests.reap()
    entry = queue.ask("a")
    assert (entry.state, entry.failure) == ("failed", "lost")
    assert entry.error == "the build was begun 3 times, and each time its worker was lost"


def test_the_collector_deletes_what_is_too_old(make: Make, tmp_path: Path) -> None:
    queue = make(keep_image_days=14, keep_defaults_days=7, keep_snapshot_days=1)
    store = artifacts.connect(queue.settings)
    (tmp_path / "a.gpg").write_text("a")
    made = {}
    for name, defaults, snapshot in (("plain", "", False), ("own", "f" * 64, False), ("snap", "", True)):
        made[name] = queue.ask(name, defaults=defaults).hash
        queue.finish(queue.claim(), snapshot=snapshot)
        store.put(made[name], tmp_path / "a.gpg")

    def left(days: float) -> set[str]:
        collect.collect(queue.engine, queue.settings, store, lambda: queue.now + days * DAY)
        there = {name.partition("/")[0] for name, _ in store.names()}
        return {name for name, digest in made.items() if queue.requests.find(digest) and digest in there}

    assert left(0.9) == {"plain", "own", "snap"}
    assert left(1.1) == {"plain", "own"}
    assert left(7.1) == {"plain"}
    assert left(14.1) == set()


def test_migrations_make_what_the_tables_say_however_many_run_at_once(make: Make) -> None:
    queue = make()
    with queue.engine.begin() as connection:
        fleet.metadata.drop_all(connection)  # which has those of the registry, and all others
        connection.execute(sa.text("DROP TABLE alembic_version"))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: migrate(queue.engine), range(4)))
    with queue.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
