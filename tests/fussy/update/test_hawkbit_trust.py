"""What a hawkBit server is not believed, and what it may answer."""

import json
import ssl
import subprocess
from pathlib import Path

import pytest

from fussy import state
from tests.fussy.conftest import Keys
from tests.fussy.firmware import Firmware

from .ddi import HERE, TOKEN, Hawkbit, bundle, has, table
from .router import Router
from .web import Answer, running


def test_a_bundle_is_verified_whatever_the_server_says(
        keys: Keys, firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    has(led, fleet, firmware, 2)
    fleet.offer(8, bundle(firmware, 1), version="9.0")
    assert led.update(expect="failed").exit_code == 22
    assert fleet.lines()[-1] == ("closed failure: cannot update: the server wants version 1.0 on a router that has "
                                 "2.0; fussy-install or fussy rollback goes back")
    tree = firmware.tree("firmware-3", {"etc/version": "3"}, {"version": "3.0"})
    fleet.offer(9, firmware.pack_tree(tree, sign_with=keys.foreign), version="3.0")
    assert led.update(expect="failed").exit_code == 20
    assert fleet.lines()[-1].startswith("closed failure: cannot ")
    tree = firmware.tree("firmware-4", {"etc/version": "4"}, {"version": "4.0", "compatible": ["toaster"]})
    fleet.offer(10, firmware.pack_tree(tree), version="4.0")
    assert led.update(expect="failed").exit_code == 22
    assert led.current() == "firmware-2" and state.load(led.found).bad == []


def test_links_lead_nowhere_else(firmware: Firmware, fleet: Hawkbit, led: Router, tmp_path: Path) -> None:
    """The token is shown to the server alone, and the API of another host is never asked."""
    new = bundle(firmware, 1)
    with running(Hawkbit(fleet.directory)) as other:
        fleet.hosts[new.name] = other.url.replace("127.0.0.1", "localhost")
        fleet.offer(8, new, version="1.0")
        done = led.update(expect="untrusted")
        assert "another host, or from https any, is followed by https only" in done.line
        assert fleet.lines()[-1].startswith("proceeding none: ")
        # another port of the same host is another origin
        fleet.hosts[new.name] = other.url
        fleet.offer(8, new, version="1.0")
        fleet.fault = lambda path, answer: Answer(
            answer.status, answer.body.replace(f"{fleet.url}/{HERE}".encode(), f"{other.url}/{HERE}".encode()),
            answer.headers | {"Content-Length": ""}, cut=1 << 20) if path == HERE else answer
        led.update(expect="updated")
        assert other.shown == [""] and other.requests == [new.name]


def test_a_pinned_certificate_is_the_only_one_that_counts(tmp_path: Path, fleet: Hawkbit, led: Router) -> None:
    """Whatever name it has, and whatever the clock says; and it pins this server alone."""
    for name in ("own", "other"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                        "-nodes", "-subj", f"/CN={name}", "-keyout", f"{tmp_path}/{name}.key",
                        "-out", f"{tmp_path}/{name}.pem"], check=True, capture_output=True)
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(tmp_path / "own.pem", tmp_path / "own.key")
    fleet.http.socket = secure.wrap_socket(fleet.http.socket, server_side=True)
    fleet.url = fleet.url.replace("http:", "https:")
    for name, outcome in (("own", "nothing-new"), ("other", "unreachable"), ("", "unreachable")):
        led.set(product="", hawkbit=table(fleet, tmp_path, certificate=str(tmp_path / f"{name}.pem") if name else ""))
        done = led.update(expect=outcome)
        assert name == "own" or "can't prove who it is" in done.line, done.line
    assert len(fleet.shown) == 2, "look, and what the router is; the others never saw the token"


GOOD = json.dumps({"_links": {"deploymentBase": {"href": f"http://x/{HERE}/deploymentBase/8"}}}).encode()
HOSTILE = {
    "endless": (HERE, Answer(200, b"{", {"Content-Length": ""}, endless=True), "more than 1048576 bytes", 50),
    "html": (HERE, Answer(200, b"<html>log in</html>"), "a captive portal?", 50),
    "redirect": (HERE, Answer(302, b"", {"Location": "http://127.0.0.1:9/"}), "HTTP status 302", 50),
    "no json": (HERE, Answer(200, b"{]"), "does not answer as a hawkBit server does", 51),
    "deep": (HERE, Answer(200, b"[" * 100_000), "does not answer as a hawkBit server does", 51),
    "bytes": (HERE, Answer(200, b'{"_links": {"\xff": 1}}'), "does not answer as a hawkBit server does", 51),
    "wrong type": (HERE, Answer(200, b'{"_links": {"deploymentBase": "x"}}'), "does not answer as a hawkBit", 51),
    "odd link": (HERE, Answer(200, GOOD.replace(b"/8", b"/../..\\nx")), "is no link to deploymentBase", 51),
    "token refused": (HERE, Answer(401), "does not know this router by this token", 40),
    "unknown": (HERE, Answer(404), "does not know this router by this token", 40),
    "broken": (HERE, Answer(500), "HTTP status 500", 50),
    "other action": (f"{HERE}/deploymentBase/8", Answer(200, b'{"id": 9, "deployment": {"chunks": []}}'),
                     "asked for the action 8, it answers with the action 9", 51),
    "no chunks": (f"{HERE}/deploymentBase/8", Answer(200, b'{"id": 8, "deployment": {"chunks": []}}'),
                  "names no bundle that this router can use", 21),
    "odd handling": (f"{HERE}/deploymentBase/8", Answer(200, b'{"id": 8, "deployment": {"download": 1}}'),
                     "does not answer as a hawkBit server does", 51),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_answers_that_are_none_are_one_line(what: str, fleet: Hawkbit, led: Router) -> None:
    path, answer, said, code = HOSTILE[what]
    fleet.deployment = {"id": "8", "deployment": {"chunks": []}}
    fleet.wants_data = False
    fleet.fault = lambda asked, right: answer if asked == path else right
    out = led.run("-v", fails=code)
    line = out.splitlines()[-1]
    assert said in line and "Traceback" not in out, out


def test_a_download_that_is_something_else_is_tried_again(firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    fleet.offer(8, bundle(firmware, 1), version="1.0")
    fleet.fault = lambda path, answer: Answer(200, answer.body[:-1] + b"x") if path.endswith(".gpg") else answer
    assert "wrong hash" in led.update(expect="untrusted").line
    fleet.fault = lambda path, answer: Answer(
        answer.status, answer.body, answer.headers, cut=300) if path.endswith(".gpg") and not fleet.ranges else answer
    led.update(expect="updated")
    assert fleet.ranges == ["bytes=300-"]
    assert fleet.lines()[-1] == "closed success: firmware (version 1.0) is in use"


def test_a_token_that_is_none(tmp_path: Path, fleet: Hawkbit, led: Router) -> None:
    for text, said in (("", "token is empty"), ("a\nb", "token is empty or has letters"), (None, "cannot read")):
        (tmp_path / "token").unlink()
        if text is not None:
            (tmp_path / "token").write_text(text)
        assert said in led.update(expect="failed").line
        (tmp_path / "token").touch()
    led.set(product="", hawkbit=table(fleet, tmp_path, certificate=str(tmp_path / "token")))
    (tmp_path / "token").write_text(TOKEN)
    assert "is no certificate" in led.update(expect="failed").line
