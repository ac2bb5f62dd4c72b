"""The parts of the face by themselves: codes, encoding, feeds, resources, addresses, XML-RPC, failures."""

import asyncio
import contextlib
import logging
import socket
import threading
import time
import xmlrpc.client
from pathlib import Path
from typing import Any

import pytest
from face import Router
from hypothesis import given
from hypothesis import strategies as st

from paradrop.backend.pdfcd import access, apiinternal, apiutils, app, changes, identity, serve, server
from paradrop.backend.pdfcd.journal import Journal
from paradrop.lib import settings
from paradrop.lib.api import pdapi, pdrest, wire
from paradrop.lib.api.feed import Feed
from paradrop.lib.api.pipe import Pipe
from paradrop.lib.errors import ParadropError


def test_codes() -> None:
    assert pdapi.getResponse(400) == (400, "Bad parameter")
    assert pdapi.getResponse(599) == (599, "Unimplemented")
    assert [code for code in range(200, 600) if pdapi.isPDError(code)] == [
        *range(400, 408), *range(501, 509), 599]
    tokens = {pdapi.getErrorToken() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 10 and token.isdigit() for token in tokens)
    assert str(pdapi.PDAPIError(400, "why")) == "PDAPIError 400: why"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(json_values)
def test_the_encoding_can_be_read_back(value: Any) -> None:
    text = wire.json2str(value)
    assert text.isascii()
    assert wire.str2json(text) == value


def follow(feed: Feed, backlog: int | None = None) -> list[str]:
    async def read() -> list[str]:
        return [text async for text in feed.follow(backlog)]
    return asyncio.run(read())


def test_feeds_give_what_is_held_then_what_comes() -> None:
    feed = Feed()
    feed.write("one ")
    threading.Timer(0.05, feed.write, ("two ",)).start()
    threading.Timer(0.1, feed.close).start()
    assert "".join(follow(feed)) == "one two "
    feed.write("never")
    assert follow(feed) == ["one two "]
    assert follow(feed, 1) == ["two "]
    assert follow(feed, 0) == []
    assert feed.readers == 0


def test_feeds_hold_no_more_than_their_limit() -> None:
    feed = Feed(limit=100)
    for number in range(1000):
        feed.write(f"{number:04}")
    assert feed.pieces() == [f"{number:04}" for number in range(975, 1000)]
    feed.write("x" * 500)
    assert feed.pieces() == ["x" * 500], "the last one stays, however long"


def test_many_writers_and_readers() -> None:
    feed, got = Feed(), list[str]()
    readers = [threading.Thread(target=lambda: got.append("".join(follow(feed)))) for _ in range(5)]
    writers = [threading.Thread(target=lambda: [feed.write("x") for _ in range(500)]) for _ in range(4)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    feed.close()
    for thread in readers:
        thread.join(20)
    assert [len(text) for text in got] == [2000] * 5


def test_resources_find_their_callbacks() -> None:
    class Things(pdrest.APIResource):
        @pdrest.GET("^/thing/(?P<name>[^/]+)$")
        def one(self, request: pdrest.Request, name: str) -> str:
            return f"thing {name}"

        @pdrest.PUT("^/thing$")
        @pdrest.POST("^/thing$")
        def make(self, request: pdrest.Request) -> str:
            return "made"

        @pdrest.ALL("^/any$")
        def whatever(self, request: pdrest.Request) -> pdrest.Answer:
            return pdrest.Answer("any")

    things = Things()

    def ask(method: str, path: str) -> object:
        request = pdrest.Request(method, path)
        return things.getChild(path, request).render(request)

    assert ask("GET", "/thing/box") == "thing box"
    assert (ask("PUT", "/thing"), ask("POST", "/thing"), ask("DELETE", "/any")) == ("made", "made", "any")
    assert ask("DELETE", "/thing") == "Not Found\n"
    things.register("DELETE", "^/thing$", lambda request: "gone")
    assert ask("DELETE", "/thing") == "gone"
    things.unregister()
    things.unregister(method="DELETE", regex="^/thing$")
    assert ask("DELETE", "/thing") == "Not Found\n"
    things.unregister(callback=things.one)
    assert ask("GET", "/thing/box") == "Not Found\n"
    assert ask("POST", "/thing") == "made"


class Rest(server.ParadropAPIServer):
    """Calls that end in each possible way."""

    @pdrest.POST("^/v1/ends$")
    @pdrest.APIDecorator(requiredArgs=["how"], optionalArgs=["more"])
    def ends(self, package: pdrest.APIPackage) -> None:
        match package.inputArgs["how"]:
            case "success":
                package.setSuccess(f"yes {sorted(package.inputArgs)}")
            case "failure":
                package.setFailure(pdapi.ERR_UPDATEPENDING)
            case "counted":
                package.setFailure(pdapi.ERR_BADAUTH, "no", countFailure=True)

    @pdrest.GET("^/v1/admin$")
    @pdrest.APIDecorator(admin=True)
    def admins(self, package: pdrest.APIPackage) -> None:
        package.setSuccess("secret")


def test_the_decorator(home: Path) -> None:
    rest = Rest(None, None)  # type: ignore[arg-type]

    def ask(method: str, path: str, body: bytes = b"", role: str | None = None) -> tuple[int, object]:
        request = pdrest.Request(method, path, body=body, role=role)
        answer = rest.getChild(path, request).render(request)
        return request.code, answer

    assert ask("POST", "/v1/ends", b'{"how": "success", "more": 1, "other": 2}') == (200, "yes ['how', 'more']")
    assert ask("POST", "/v1/ends", b'{"how": "failure"}') == (505, "Update pending")
    assert ask("POST", "/v1/ends", b'{"how": "nothing"}') == (501, "Contact Paradrop")
    assert ask("POST", "/v1/ends") == (400, "Malformed Body: not JSON: Expecting value: line 1 column 1 (char 0)")
    assert ask("GET", "/v1/admin") == (200, "secret")
    assert ask("GET", "/v1/admin", role="operator") == (403, "this needs the role admin")
    assert ask("GET", "/v1/admin", role="admin") == (200, "secret")
    settings.addSetting("PDFCD_FAILURE_LIMIT", 2)
    rest.failureDict.reset("127.0.0.1")
    for _ in range(2):
        assert ask("POST", "/v1/ends", b'{"how": "counted"}') == (403, "no")
    assert ask("GET", "/v1/admin") == (404, "Too many failed attempts\n")


def test_failures_are_bounded() -> None:
    failures = access.Failures()
    for number in range(5000):
        failures.count(str(number))
    assert len(failures._failures) == 1000
    failures.count("4999")
    assert failures._failures["4999"][0] == 2
    failures.reset("4999")
    failures.reset("nobody")


@pytest.mark.parametrize(("peer", "told", "address"), [
    ("127.0.0.1", None, "127.0.0.1"), ("127.0.0.1", "10.0.0.9", "10.0.0.9"), ("10.1.1.1", "127.0.0.1", "10.1.1.1"),
    ("127.0.0.1", "nonsense", "127.0.0.1"), ("::1", "2001:db8::1", "2001:db8::1"),
])
def test_the_address_of_a_client(peer: str, told: str | None, address: str) -> None:
    headers = {"x-real-ip": told} if told else {}
    assert apiutils.getIP(pdrest.Request("GET", "/", peer, headers)) == address


@given(st.integers(0, 32), st.ip_addresses(v=4))
def test_addresses_and_networks(bits: int, address: Any) -> None:
    net = apiutils.unpackIPAddrWithSlash(f"{address}/{bits}")
    assert apiutils.addressInNetwork(apiutils.unpackIPAddr(str(address)), net)
    assert apiutils.unpackIPAddr(apiutils.calcDottedNetmask(bits)) == net[1]


def test_the_changes_that_are_remembered() -> None:
    known = changes.Changes()
    first = known.add("stop", "a")
    for _ in range(changes.KEPT + 50):
        known.add("stop", "a").finish({"success": True, "message": "x"})
    assert known.get(first.id) is first, "what is not done is not forgotten"
    assert len(known.all()) <= changes.KEPT + 2
    first.finish({"success": True, "message": "yes"})
    first.finish({"success": False, "message": "no"})
    assert first.result == {"success": True, "message": "yes"}
    second = known.add("stop", "b")
    known.finish_all("over")
    assert second.result == {"success": False, "message": "over"}


def test_a_pipe_drops_nothing_and_holds_little() -> None:
    pipe, sent = Pipe(1000), ["".join(f"{number} {line}\n" for line in range(2000)) for number in range(3)]

    def write(text: str) -> None:
        for line in text.splitlines(keepends=True):
            assert pipe.write(line)

    threads = [threading.Thread(target=write, args=(text,)) for text in sent]

    async def read() -> str:
        got = []
        async for text in pipe.read():
            assert len(text) < 1000 + 3 * 10
            got.append(text)
            await asyncio.sleep(0.0005)
            if not any(thread.is_alive() for thread in threads):
                pipe.close()
        return "".join(got)

    for thread in threads:
        thread.start()
    got = asyncio.run(read())
    for number, text in enumerate(sent):
        assert "".join(line for line in got.splitlines(keepends=True) if line.startswith(f"{number} ")) == text


def test_a_pipe_that_nobody_reads_any_more_lets_its_writer_go() -> None:
    pipe, answers = Pipe(10), list[bool]()
    writer = threading.Thread(target=lambda: answers.extend(pipe.write("x" * 10) for _ in range(3)))
    writer.start()
    writer.join(0.1)
    assert writer.is_alive() and answers == [True]
    pipe.close()
    writer.join(10)
    assert answers == [True, False, False] and not pipe.write("late")


def rpc(router: Router, name: str, *arguments: Any, user: str | None = None) -> Any:
    body = xmlrpc.client.dumps(arguments, name, allow_none=True).encode()
    answer = router.ask("POST", "/internal", body, user, {"Content-Type": "text/xml"})
    assert answer.status == 200, answer.data
    return xmlrpc.client.loads(answer.data.decode())[0][0]


def test_provisioning_over_xml_rpc(router: Router, home: Path) -> None:
    assert rpc(router, "provision", "pd.joe.aardvark", "key", "cert") == "Done!"
    file = home / "lib/keys/identity.json"
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert identity.IdentityFile().identity == identity.Identity("pd.joe.aardvark", "key", "cert")
    with pytest.raises(xmlrpc.client.Fault, match="is pd.joe.aardvark already") as fault:
        rpc(router, "provision", "pd.joe.badger", "key", "cert")
    assert fault.value.faultCode == 123


@pytest.mark.parametrize(("name", "arguments", "code"), [
    ("provision", ("no id", "k", "c"), 123), ("provision", (1, 2, 3), 123), ("provision", (), 123),
    ("nothing", (), 8001), ("__init__", (), 8001), ("castFailure", ("x",), 8001), ("os.system", ("true",), 8001),
])
def test_internal_calls_that_fail(router: Router, name: str, arguments: tuple[Any, ...], code: int) -> None:
    with pytest.raises(xmlrpc.client.Fault) as fault:
        rpc(router, name, *arguments)
    assert fault.value.faultCode == code
    assert "Traceback" not in fault.value.faultString
    assert identity.IdentityFile().identity is None


def test_internal_calls_are_for_the_router_itself(router: Router) -> None:
    settings.addSetting("PDFCD_V1_NETWORKS", "10.0.0.0/8")
    assert router.ask("POST", "/internal", b"", user=None).status == 403
    assert router.ask("POST", "/internal", b"", user="operator").status == 403
    settings.addSetting("PDFCD_V1_NETWORKS", "127.0.0.0/8")
    for body in (b"", b"<", b"<x/>", b"\xff", b"<methodCall><methodName>provision</methodName></methodCall>" * 2):
        with pytest.raises(xmlrpc.client.Fault):
            xmlrpc.client.loads(router.ask("POST", "/internal", body, user=None).data.decode())


def test_the_server_subscribes_to_the_log() -> None:
    journal, got = Journal(), list[dict[str, Any]]()
    perspective = apiinternal.ServerPerspective("pds.production", journal)

    def say(text: str) -> None:
        journal.handle(logging.LogRecord("paradrop", logging.INFO, __file__, 1, text, (), None))

    say("before")
    perspective.initialize()
    assert [record["message"] for record in perspective.perspective_subscribeLogs(0, got.append)] == ["before"]
    say("after")
    assert [record["message"] for record in got] == ["after"]
    perspective.destroy()
    say("too late")
    assert len(got) == 1
    assert not apiinternal.pollServer("http://127.0.0.1:1", attempts=1)


def test_errors_of_users_and_bugs_on_the_wire(caplog: pytest.LogCaptureFixture) -> None:
    assert apiinternal.castFailure(ParadropError("cannot do it")).faultString == "cannot do it"
    assert "secret" not in apiinternal.castFailure(KeyError("secret")).faultString
    assert apiinternal.castSuccess({1: (None, Path("/x"))}) == {"1": [None, "/x"]}


def test_slow_and_silent_clients_are_not_waited_for(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(app, "BODY_SECONDS", 0.5)
    place = ("127.0.0.1", router.port)
    head = b"POST /v1/chute/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
    with contextlib.ExitStack() as stack:
        silent, dripping, late = (stack.enter_context(socket.create_connection(place, timeout=10)) for _ in range(3))
        late.sendall(head + b"\r\n{")
        began = time.monotonic()
        while time.monotonic() - began < 5:
            try:
                dripping.sendall(head[:1])
            except OSError:
                break
            time.sleep(0.05)
        assert time.monotonic() - began < 4
        assert silent.recv(100) == b""
        assert late.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert router.v1("test", method="GET").status == 200


def test_preflights_are_answered(router: Router) -> None:
    answer = router.v1("chute/create", method="OPTIONS", Origin="http://other.example")
    assert (answer.status, answer.headers["Access-Control-Allow-Methods"]) == (200, "POST")
