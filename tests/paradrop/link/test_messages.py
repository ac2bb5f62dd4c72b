"""The contract of the link: what is no message of it is refused, and says why."""

import re

import msgspec
import pytest

from paradrop.backend.link import messages
from paradrop.backend.link.messages import Broken, Chute, Facts, Hello, Outcome, Report

FACTS = Facts("1.0", {"current": None}, (Chute("web", "running", "2"),), 12.5, "boot")


def test_a_message_comes_back_as_it_was() -> None:
    for message in (Hello("pd.joe.aardvark", "PEM", b"\x00\xff", "boot-1", "00ff", "1.0", 1764450000.5, FACTS),
                    Report(FACTS, Outcome(1.0, "updated", "from 1 to 2", "firmware-2")),
                    messages.Answer(1, 200, (("content-type", "text/plain"),)), messages.Pong()):
        assert messages.from_router(messages.encode(message)) == message
    opened = messages.Open(3, "GET", "/api/v1/logs?follow=true", (("accept", "*/*"),), "admin", "joe")
    assert messages.from_server(messages.encode(opened)) == opened
    # a newer server may say more
    assert messages.from_server('{"kind": "look", "why": "a release"}') == messages.Look()


@pytest.mark.parametrize(("frame", "why"), [
    ("", "truncated"), ("{", "truncated"), ("[]", "Expected `object`"), ("[" * 60_000, "Expected `object`"),
    ('{"kind": "welcome", "seconds": 1, "time": 1}', "Invalid value 'welcome'"), ("{}", "missing"),
    ('{"kind": "credit", "stream": 0, "bytes": 1}', ">= 1"), ('{"kind": "credit", "stream": 1, "bytes": -1}', ">= 1"),
    ('{"kind": "answer", "stream": 1, "status": 101, "headers": []}', ">= 200"),
    ('{"kind": "answer", "stream": 1, "status": 200, "headers": [["a"]]}', "length 2"),
    ('{"kind": "report", "facts": {"paradrop": "1", "firmware": ' + '{"a": ' * 10_000 + "1", "recursion"),
    ("\ud800", "surrogates"), ("x" * (messages.MESSAGE_BYTES + 1), "longer than 65536 bytes"),
])
def test_what_is_no_message(frame: str, why: str) -> None:
    with pytest.raises(Broken, match=f"(?i){re.escape(why)}") as refused:
        messages.from_router(frame)
    assert len(str(refused.value)) <= 120  # fits the reason of a WebSocket's end


def test_pieces() -> None:
    most = bytes(messages.PIECE_BYTES)
    assert messages.parse_piece(messages.piece(7, most)) == (7, most)
    for frame in (b"", b"\0\0\0\1", messages.piece(1, most + b"x")):
        with pytest.raises(Broken, match="a piece has 1 to 16384 bytes"):
            messages.parse_piece(frame)


def test_when_to_come_back() -> None:
    said = msgspec.json.encode(messages.Later(37, "too many routers come back at once")).decode()
    assert messages.later(said) == messages.Later(37, "too many routers come back at once")
    assert [messages.later(wrong).seconds for wrong in ("", "soon", '{"seconds": "x"}')] == [60, 60, 60]
