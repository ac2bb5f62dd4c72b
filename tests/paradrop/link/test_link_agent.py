"""The router's end of the link, before a server that does as it is told."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from face import Router
from firmwareplaces import place_firmware
from registrystub import Authority, Hub, Link, identity, linking, proves

from fussy import disk
from fussy.updating import history
from paradrop.backend.link import agent, facts, linkstate, machine, messages, service
from paradrop.backend.link.messages import (
    WINDOW,
    Answer,
    Credit,
    End,
    Facts,
    Later,
    Look,
    Open,
    Outcome,
    Ping,
    Pong,
    Report,
    Reset,
    Welcome,
)
from paradrop.backend.link.outcomes import KEPT, Outcomes
from paradrop.backend.pdfcd.identity import Identity, IdentityFile
from paradrop.lib import firmware
from paradrop.lib.chute import Chute


@pytest.fixture
def hub() -> Iterator[Hub]:
    with linking() as found:
        yield found


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "SHORTEST", 0.05)
    monkeypatch.setattr(agent, "LOOK_SECONDS", 0.1)


def begin(face: Router, server: str, pinned: str = "") -> Identity:
    """Make a router that belongs to a server, and have it look for it."""
    file, (found, _) = IdentityFile(), identity(server, pinned)
    file.setAttr(found)
    file.saveToDisk()
    face.rest.link.start()
    return found


def await_state(word: str) -> linkstate.State:
    deadline = time.monotonic() + 20
    while (found := linkstate.read()).state != word:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def await_line(line: str) -> None:
    deadline = time.monotonic() + 20
    while (found := linkstate.read()).line != line:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def linked(face: Router, hub: Hub) -> Link:
    begin(face, hub.url)
    return hub.next()


def test_it_proves_who_it_is_and_answers_pings(face: Router, hub: Hub) -> None:
    face.store.add("hello", version=3)
    file, (found, public) = IdentityFile(), identity(hub.url)
    file.setAttr(found)
    file.saveToDisk()
    face.rest.link.start()
    link = hub.next()
    proves(public, link.hello)
    assert link.hello.pdid == "pd.joe.aardvark" and link.hello.certificate == "its certificate"
    assert link.hello.machine == machine.machine() and link.hello.boot == machine.boot()
    assert abs(link.hello.clock - time.time()) < 60
    state = await_state("connected")
    assert state.line == f"Linked to {hub.url} as pd.joe.aardvark."
    link.say(Ping())
    heard = link.hear()
    while isinstance(heard, Report):
        heard = link.hear()
    assert heard == Pong()
    face.rest.link.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "link"]


def test_requests_are_answered_with_the_role_that_the_server_gives(face: Router, hub: Hub) -> None:
    face.store.add("hello")
    link = linked(face, hub)
    head, body = link.ask(1, "GET", "/api/v1/chutes")
    assert (head.status, [one["name"] for one in json.loads(body)]) == (200, ["hello"])
    assert json.loads(link.ask(2, "GET", "/api/v1/whoami", "viewer")[1]) == {"name": "joe@server", "role": "viewer"}
    assert link.ask(3, "POST", "/api/v1/chutes/hello/stop", "viewer")[0].status == 403
    assert link.ask(4, "POST", "/api/v1/chutes/hello/stop", "operator")[0].status == 202
    change = json.loads(link.ask(5, "GET", "/api/v1/changes")[1])[-1]
    assert (change["kind"], change["user"]) == ("stop", "joe@server")
    head, body = link.ask(6, "POST", "/v1/chute/stop", body=b'{"name": "hello"}')
    assert head.status == 200 and json.loads(body.splitlines()[-1])["success"] is True
    assert link.ask(7, "HEAD", "/api/v1/status")[1] == b""


@pytest.mark.parametrize(("method", "path"), [
    ("POST", "/api/v1/login"), ("GET", "/api/v1/users"), ("PUT", "/api/v1/users/admin"), ("POST", "/api/v1/tokens"),
    ("GET", "/api/v1/tokens"), ("POST", "/api/v1/provision"), ("DELETE", "/api/v1/identity"),
    ("GET", "/api/v1/identity"), ("DELETE", "/api/v1/%75sers/admin"),
])
def test_accounts_and_identity_are_not_for_the_server(face: Router, hub: Hub, method: str, path: str) -> None:
    link = linked(face, hub)
    head, body = link.ask(1, method, path, body=b"{}")
    assert head.status == 403
    assert json.loads(body)["detail"] == "cannot do this through the server: ask the router itself"


def test_other_paths_and_roles_are_refused(face: Router, hub: Hub) -> None:
    link = linked(face, hub)
    for number, (path, role) in enumerate([("/internal", "admin"), ("/", "admin"), ("/api/v1/status", "root")], 1):
        link.say(Open(number, "POST", path, (), role, "joe"))
        heard = link.hear()
        assert isinstance(heard, Reset) and heard.stream == number, heard


def test_at_most_sixteen_streams_and_each_can_be_reset(face: Router, hub: Hub) -> None:
    link = linked(face, hub)
    follow = "/api/v1/logs?follow=true&tail=0"
    for number in range(1, messages.STREAMS + 1):
        link.say(Open(number, "GET", follow, (), "admin", "joe"))
        assert isinstance(link.hear(), Answer)
    link.say(Open(99, "GET", follow, (), "admin", "joe"))
    assert link.hear() == Reset(99, "there are as many streams as there can be")
    assert face.rest.journal is not None and face.rest.journal.feed.readers == messages.STREAMS
    link.say(Reset(5, "enough"))
    deadline = time.monotonic() + 10
    while face.rest.journal.feed.readers == messages.STREAMS:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    link.say(Open(100, "GET", follow, (), "admin", "joe"))
    assert isinstance(link.hear(), Answer)
    link.close()
    while face.rest.journal.feed.readers:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def log(face: Router, text: str) -> None:
    assert face.rest.journal is not None
    face.rest.journal.handle(logging.LogRecord("test", logging.INFO, __file__, 1, text, (), None))


def test_a_slow_reader_of_the_log_costs_the_router_nothing(face: Router, hub: Hub) -> None:
    """Nothing is read: the router sends what there is credit for, and drops the rest; others go on."""
    link = linked(face, hub)
    link.say(Open(1, "GET", "/api/v1/logs?follow=true&tail=0", (), "admin", "joe"))
    assert isinstance(link.hear(), Answer)
    assert face.rest.journal is not None
    end = time.monotonic() + 30
    while not face.rest.journal.feed.readers:  # the answer begins before its body does
        assert time.monotonic() < end
        time.sleep(0.01)
    for number in range(5000):
        log(face, f"line {number} {'x' * 100}")
    got = b""
    while len(got) < WINDOW:
        heard = link.hear()
        assert isinstance(heard, tuple), heard
        got += heard[1]
    link.say(Ping())
    assert link.hear() == Pong(), "nothing more came on the stream"
    assert link.ask(2, "GET", "/api/v1/status")[0].status == 200
    log(face, "the last one")
    while b"the last one" not in got:
        link.say(Credit(1, len(heard[1])))
        heard = link.hear()
        assert isinstance(heard, tuple), heard
        got += heard[1]
    records = [json.loads(line) for line in got.splitlines()]
    missing = 5001 - sum(record["module"] == "test" for record in records)
    assert missing > 1000
    told = [record["message"].split(" ", 1) for record in records if record["module"].endswith("pdfcd.journal")]
    assert {text for _, text in told} == {"records are left out here: they came faster than they were read"}
    assert sum(int(number) for number, _ in told) == missing


def test_a_body_comes_as_fast_as_it_is_read(face: Router, hub: Hub) -> None:
    link = linked(face, hub)
    link.say(Open(1, "POST", "/api/v1/projects", (("content-type", "application/x-tar"),), "admin", "joe"))
    left, credit, sent = 300_000, WINDOW, 0
    while left:
        size = min(left, messages.PIECE_BYTES, credit)
        if size:
            link.say(messages.piece(1, b"x" * size))
            left, credit, sent = left - size, credit - size, sent + size
            continue
        heard = link.hear()
        assert isinstance(heard, Credit), heard
        credit += heard.bytes
        assert credit <= WINDOW
    link.say(End(1))
    heard = link.hear()
    while isinstance(heard, Credit):
        heard = link.hear()
    assert isinstance(heard, Answer) and heard.status == 409, "it is no tar"


def test_more_than_the_credit_ends_the_link(face: Router, hub: Hub) -> None:
    link = linked(face, hub)
    link.say(Open(1, "POST", "/api/v1/chutes", (), "admin", "joe"))
    face.rest.accounts.set_user("admin", "long enough", "admin")
    link.say(Open(2, "GET", "/api/v1/logs?follow=true&tail=0", (), "admin", "joe"))
    for _ in range(5):
        link.say(messages.piece(2, b"x" * messages.PIECE_BYTES))
    with pytest.raises(Exception, match="4400"):
        while True:
            link.hear()
    link.over.set()
    assert hub.next().hello.pdid == "pd.joe.aardvark", "it comes again"


def test_what_the_server_says_when_it_ends(face: Router, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    words = {messages.UNKNOWN: ("refused", "The server refuses this router: it was deleted."),
             messages.CLONE: ("clone", "Another router uses this identity: provision this one again.")}
    monkeypatch.setattr(agent, "HOURLY", 0.1)
    for code, (state, line) in words.items():
        hub.greet = lambda link, code=code: link.close(code, "it was deleted")  # type: ignore[misc]
        begin(face, hub.url)
        assert await_state(state).line == line
        face.rest.link.stop()
    hub.greet = Hub().greet
    while not hub.links.empty():
        hub.next().over.set()
    count = len(hub.came)
    begin(face, hub.url)
    hub.next().close(messages.CLONE)
    await_state("clone")
    time.sleep(0.3)
    assert len(hub.came) == count + 1, "a clone does not come back"


def test_it_comes_back_when_it_is_told_and_not_at_once(face: Router, hub: Hub) -> None:
    later = messages.encode(Later(1, "too many routers")).decode()
    hub.greet = lambda link: link.close(messages.BUSY, later)
    begin(face, hub.url)
    hub.next()
    await_line("The server has no room now: too many routers.")
    hub.greet = Hub().greet
    hub.next()
    assert 1.0 <= hub.came[1] - hub.came[0] < 5


def test_reconnects_are_ever_rarer(face: Router, hub: Hub) -> None:
    hub.greet = lambda link: link.close(1011)
    begin(face, hub.url)
    for _ in range(6):
        hub.next()
    gaps = [later - earlier for earlier, later in zip(hub.came, hub.came[1:], strict=False)]
    assert gaps[4] > 0.05 * 2 ** 5 / 2 > gaps[0]


def test_times_between_attempts() -> None:
    assert all(150 <= agent._when(None, 300) <= 300 for _ in range(100))
    assert all(60 <= agent._when(60, 1) <= 90 for _ in range(100))


def test_a_silent_server_is_taken_for_gone(face: Router, hub: Hub) -> None:
    hub.greet = lambda link: link.say(Welcome(0.1, time.time()))
    begin(face, hub.url)
    hub.next()
    hub.next()
    assert hub.came[1] - hub.came[0] > 0.25


def test_a_server_that_shows_another_certificate(face: Router, home: Path) -> None:
    authority = Authority()
    (file, text), (_, other) = authority.server(home), authority.server(home)
    with linking(file) as hub:
        begin(face, hub.url, other)
        state = await_state("certificate")
        assert "its certificate changed: it shows " in state.line and "provision again" in state.line
        assert hub.links.empty()
        begin(face, hub.url)
        assert "nobody vouches for its certificate" in await_state("certificate").line
        begin(face, hub.url, text)
        hub.next()
        await_state("connected")


def test_facts_are_reported_once_a_minute_and_outcomes_at_once(
        face: Router, hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = home / "firmware/.fussy/update"
    place.mkdir(parents=True)
    history.append(place, history.Event(1, "updated", "long ago"))
    monkeypatch.setattr(messages, "REPORT_SECONDS", 1.0)
    link = linked(face, hub)
    face.store.add("one")
    heard = link.hear()
    while isinstance(heard, Report) and not heard.facts.chutes:
        heard = link.hear()
    assert isinstance(heard, Report) and heard.outcome is None
    assert [chute.name for chute in heard.facts.chutes] == ["one"]
    assert heard.facts.firmware is not None and heard.facts.firmware["target"] == str(home / "firmware")
    monkeypatch.setattr(messages, "REPORT_SECONDS", 3600.0)
    face.store.add("two")
    history.append(place, history.Event(2, "reverted", "firmware-9: the page is not there", 3, to_version="9"))
    heard = link.hear()
    assert isinstance(heard, Report) and heard.outcome is not None
    assert (heard.outcome.outcome, heard.outcome.line, heard.outcome.release) == (
        "reverted", "firmware-9: the page is not there", "9")
    assert [chute.name for chute in heard.facts.chutes] == ["one", "two"]


def test_an_outcome_is_told_with_what_was_there_when_it_was_seen() -> None:
    """A report that is due while the router is still being looked at waits for that."""
    outcomes = SimpleNamespace(unsent=(), told=lambda outcome: setattr(outcomes, "unsent", ()))
    seen, go, said = threading.Event(), threading.Event(), list[str]()

    def look_around() -> Facts:
        outcomes.unsent = (Outcome(1, "updated", "to 2", "2"),)
        seen.set()
        assert go.wait(60)
        return Facts("2.0")

    async def send(frame: str) -> None:
        said.append(frame)

    async def ping() -> asyncio.Task[None]:
        return asyncio.create_task(asyncio.sleep(0))

    async def run() -> None:
        world = agent.World(None, look_around, outcomes, lambda: None, lambda word, line: None)  # type: ignore[arg-type]
        one = agent.Agent(Identity("pd.joe.aardvark", "", ""), world)
        looking = asyncio.create_task(one._look_around())
        await asyncio.to_thread(seen.wait)
        report = asyncio.create_task(one._report(SimpleNamespace(send=send, ping=ping)))  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        assert said == []
        go.set()
        await looking
        while outcomes.unsent:
            await asyncio.sleep(0.01)
        report.cancel()

    asyncio.run(asyncio.wait_for(run(), 60))
    heard, = (messages.from_router(frame) for frame in said)
    assert isinstance(heard, Report) and heard.outcome
    assert (heard.facts.paradrop, heard.outcome.line) == ("2.0", "to 2")


def test_what_happened_without_the_server_is_told_later(face: Router, hub: Hub, home: Path) -> None:
    place = home / "firmware/.fussy/update"
    place.mkdir(parents=True)
    begin(face, "http://127.0.0.1:1")
    assert await_state("connecting").line.startswith(("Looking for", "The server http://127.0.0.1:1 cannot be reached"))
    kept = home / "lib/link/outcomes.json"
    for number in range(3):
        deadline = time.monotonic() + 20
        while not kept.exists() or len(json.loads(kept.read_bytes())["unsent"]) < number:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        history.append(place, history.Event(number, "updated", f"to {number}"))
    face.rest.link.stop()
    assert face.ask("GET", "/v1/test", user=None).data == b"SUCCESS\n"
    link = linked(face, hub)
    told: list[str] = []
    while len(told) < 3:
        heard = link.hear()
        if isinstance(heard, Report) and heard.outcome:
            told.append(heard.outcome.line)
    assert told == ["to 0", "to 1", "to 2"]
    deadline = time.monotonic() + 20
    while json.loads(kept.read_bytes())["unsent"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_outcomes_kept_are_bounded(home: Path) -> None:
    place_firmware(home)
    place = home / "firmware/.fussy/update"
    place.mkdir(parents=True)
    target = firmware.target()
    assert target is not None
    outcomes = Outcomes()
    outcomes.look(target)
    lines = b"".join(b'{"at":%d,"outcome":"updated","line":"to %d"}\n' % (n, n) for n in range(KEPT + 50))
    disk.replace_file(place / "history.jsonl", lines)
    outcomes.look(target)
    assert [outcome.at for outcome in outcomes.unsent] == list(range(50, KEPT + 50))
    assert Outcomes().unsent == outcomes.unsent
    outcomes.told(outcomes.unsent[0])
    assert len(Outcomes().unsent) == KEPT - 1
    (home / "lib/link/outcomes.json").write_text("{")
    assert Outcomes().unsent == ()


def test_a_look_starts_the_updater(face: Router, hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "firmware/.fussy").mkdir(parents=True)
    script = home / "fussy-command"
    script.write_text(f'#!/bin/sh\necho "$@" >> {home}/called\n')
    script.chmod(0o755)
    monkeypatch.setattr(firmware, "program", lambda: str(script))
    link = linked(face, hub)
    link.say(Look())
    deadline = time.monotonic() + 20
    while not (home / "called").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    words = (home / "called").read_text().split()
    assert words[0] == "update" and "--no-delay" in words and str(home / "fussy/update.toml") in words
    monkeypatch.setattr(firmware, "program", lambda: None)
    service.look()
    link.say(Ping())
    while not isinstance(link.hear(), Pong):
        pass


def test_facts_fit_into_a_message(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place_firmware(home)
    (home / "firmware/.fussy").mkdir(parents=True)
    chutes = [Chute({"name": f"chute{number}", "version": "1" * 50}) for number in range(1000)]
    found = facts.facts(chutes)
    assert (len(found.chutes), found.chutes[0].version) == (200, "1" * 50)
    assert found.firmware is not None
    for number in range(400):
        (home / f"firmware/release-{number:0100}").mkdir()
    found = facts.facts(chutes)
    assert found.firmware is None and len(messages.encode(Report(found))) < messages.MESSAGE_BYTES


def test_a_machine_is_told_by_its_hardware(tmp_path: Path) -> None:
    for name, address in (("eth0", "02:00:00:00:00:01"), ("veth1", "02:00:00:00:00:02")):
        (tmp_path / "class/net" / name).mkdir(parents=True)
        (tmp_path / "class/net" / name / "address").write_text(address + "\n")
    (tmp_path / "class/net/eth0/device").mkdir()
    one = machine.machine(tmp_path)
    (tmp_path / "class/net/veth1/address").write_text("02:00:00:00:00:03\n")
    assert machine.machine(tmp_path) == one, "an interface without a device is none of the hardware"
    (tmp_path / "class/net/eth0/address").write_text("02:00:00:00:00:04\n")
    assert machine.machine(tmp_path) != one
    assert machine.boot() == machine.boot()


def test_a_damaged_key_is_told(face: Router, hub: Hub) -> None:
    file, (found, _) = IdentityFile(), identity(hub.url)
    file.setAttr(replace(found, key="no key"))
    file.saveToDisk()
    face.rest.link.start()
    assert await_state("refused").line == ("This router cannot prove who it is: cannot use this router's key: it is "
                                           "damaged; provision it again.")
