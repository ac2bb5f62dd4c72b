"""The documented /v1: what it answers, and to whom."""

import json
import time
from typing import Any
from urllib.parse import unquote

import pytest
from face import Router

from paradrop.lib import settings

CHUTE = {"name": "hello", "dockerfile": "FROM busybox", "owner": "me"}


def result(content: bytes) -> dict[str, Any]:
    """The last line of an answer, as the documented client reads it."""
    line = json.loads(content.decode().strip().splitlines()[-1])
    return {key: unquote(value) if isinstance(value, str) else value for key, value in line.items()}


def test_ping(router: Router) -> None:
    answer = router.v1("test", method="GET")
    assert (answer.status, answer.data) == (200, b"SUCCESS\n")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_create_streams_progress_and_ends_with_the_result(router: Router) -> None:
    router.queue.progress = ["Step 1/2 : FROM busybox\n", "Step 2/2 : CMD x\n"]
    answer = router.v1("chute/create", {"config": CHUTE})
    assert answer.status == 200
    assert answer.data == (b"Step 1/2 : FROM busybox\nStep 2/2 : CMD x\n"
                           b'{"success":true,"message":"Chute hello create success"}\n')
    (update,) = router.queue.updates
    assert {key: update[key] for key in CHUTE} == CHUTE
    assert (update["updateClass"], update["updateType"]) == ("CHUTE", "create")
    assert abs(update["tok"] - time.time()) < 60


def test_progress_comes_while_the_update_runs(router: Router) -> None:
    router.queue.hold = True
    router.queue.progress = ["first\n"]
    answer = router.ask(
        "POST", "/v1/chute/create", {"config": CHUTE}, user=None, preload_content=False)
    assert answer.read1() == b"first\n"
    update = router.queue.updates[0]
    update["pkg"].request.write("second\n")
    assert answer.read1() == b"second\n"
    router.queue.finish(update, success=False, message="50% of /data is used")
    assert answer.read() == b'{"success":false,"message":"50%25 of %2Fdata is used"}\n'


@pytest.mark.parametrize("kind", ["start", "stop", "delete"])
def test_calls_by_name(router: Router, kind: str) -> None:
    answer = router.v1(f"chute/{kind}", {"name": "hello%20there"})
    assert result(answer.data) == {"success": True, "message": f"Chute hello there {kind} success"}
    assert router.queue.updates[0]["updateType"] == kind


def test_update(router: Router) -> None:
    assert result(router.v1("chute/update", {"config": {**CHUTE, "version": 2}}).data)["success"]
    assert router.queue.updates[0]["version"] == 2


def test_texts_are_decoded_on_the_way_in(router: Router) -> None:
    router.v1("chute/create", {"config": {"name": "hello", "dockerfile": "FROM%20busybox%0ARUN echo 100%25"}})
    assert router.queue.updates[0]["dockerfile"] == "FROM busybox\nRUN echo 100%"


@pytest.mark.parametrize(("call", "body", "text"), [
    ("chute/create", {}, "Malformed Body: missing config"),
    ("chute/stop", {"config": {}}, "Malformed Body: missing name"),
    ("chute/create", b"no json", "Malformed Body: not JSON"),
    ("chute/create", b"[1]", "Malformed Body: not a JSON object"),
    ("chute/create", b"[" * 100_000, "Malformed Body: not JSON: nested too deeply"),
    ("chute/create", b'{"config": NaN}', "Malformed Body: not JSON: NaN"),
    ("chute/create", b'{"config": {"name": "\\ud800"}}', "Malformed Body: not JSON"),
    ("chute/create", {"config": "text"}, "Malformed Body: config is not a JSON object"),
    ("chute/stop", {"name": ["a"]}, "Malformed Body: name: missing"),
])
def test_malformed_bodies(router: Router, call: str, body: Any, text: str) -> None:
    answer = router.v1(call, body)
    assert answer.status == 400
    assert answer.data.decode().startswith(text)
    assert not router.queue.updates


@pytest.mark.parametrize("key", [
    "pkg", "func", "updateClass", "updateType", "tok", "workdir", "boot", "user", "warning", "state", "old", "new",
    "plans", "chuteStor", "result", "failure", "__class__", "_cache"])
def test_no_request_sets_what_the_contract_does_not_name(router: Router, key: str) -> None:
    answer = router.v1("chute/create", {"config": {**CHUTE, key: "mine"}})
    assert answer.status == 400
    assert answer.data.decode() == f"Malformed Body: {key}: not a key of a chute's descriptor"
    answer = router.v1("chute/stop", {"name": "hello", key: "mine"})
    assert answer.status == 200
    assert router.queue.updates[0].get(key) != "mine"


def test_unknown_paths_and_methods(router: Router) -> None:
    assert router.v1("chute/explode", {}).status == 404
    answer = router.v1("chute/create", method="GET")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


def test_too_long_bodies_are_refused(router: Router) -> None:
    answer = router.v1("chute/create", b" " * (2 << 20))
    assert answer.status == 413
    assert json.loads(answer.data)["token"].isdigit()


def test_other_networks_need_a_password(router: Router) -> None:
    settings.addSetting("PDFCD_V1_NETWORKS", "10.0.0.0/8")
    refused = router.v1("chute/stop", {"name": "hello"})
    assert refused.status == 403
    assert "PDFCD_V1_NETWORKS" in refused.data.decode()
    assert router.ask("POST", "/v1/chute/stop", {"name": "hello"}, user="operator").status == 200
    refused = router.ask("POST", "/v1/chute/stop", {"name": "hello"}, user="viewer")
    assert (refused.status, refused.data) == (403, b"this needs the role operator or admin")


def test_a_proxy_tells_the_real_address(router: Router) -> None:
    assert router.v1("test", method="GET", **{"X-Real-IP": "203.0.113.7"}).status == 403
    settings.addSetting("PDFCD_V1_NETWORKS", "203.0.113.0/24")
    assert router.v1("test", method="GET", **{"X-Real-IP": "203.0.113.7"}).status == 200


def test_web_pages_cannot_change_the_router(router: Router) -> None:
    page = {"Origin": "http://evil.example"}
    assert router.v1("chute/stop", {"name": "hello"}, **page).status == 403
    assert router.v1("test", method="GET", Host="evil.example:9999").status == 403
    router.store.add("hello")
    assert router.ask("POST", "/v1/chute/stop", {"name": "hello"}, headers=page).status == 403, "with its password too"
    assert router.ask("POST", "/api/v1/chutes/hello/stop", headers=page).status == 403
    assert router.ask("GET", "/api/v1/chutes", headers=page).status == 200
    assert not router.queue.updates
    own = {"Origin": f"http://127.0.0.1:{router.port}"}
    assert router.ask("POST", "/api/v1/chutes/hello/stop", headers=own).status == 202
    settings.addSetting("PDFCD_HEADER_VALUE", "http://evil.example")
    answer = router.v1("chute/stop", {"name": "hello"}, **page)
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "http://evil.example"


def test_the_answer_ends_when_the_client_goes_and_the_update_goes_on(router: Router) -> None:
    router.queue.hold = True
    router.queue.progress = ["first\n"]
    answer = router.ask("POST", "/v1/chute/create", {"config": CHUTE}, user=None, preload_content=False)
    answer.read1()
    update = router.queue.updates[0]
    assert update["pkg"].feed.readers == 1
    answer.close()
    for _ in range(100):
        if not update["pkg"].feed.readers:
            break
        time.sleep(0.05)
    assert update["pkg"].feed.readers == 0
    update["pkg"].request.write("nobody reads this\n")
    router.queue.finish(update)
    assert router.rest.changes.get(update["pkg"].id).result["success"]  # type: ignore[union-attr, index]
