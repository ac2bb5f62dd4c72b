"""Whatever comes in: never a 500, never a traceback, nothing set that the contract does not name."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from face import Router
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from paradrop.backend.fc import updateObject
from paradrop.backend.pdconfd import main as pdconfd
from paradrop.lib import settings
from paradrop.lib.chute import DESCRIPTOR_KEYS

# What the API itself puts into an update, besides a descriptor
OWN_KEYS = {"updateClass", "updateType", "tok", "pkg", "func", "user", "workdir"}

fuzz = hypothesis_settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.sampled_from(
    ["wifi", "wan", "@host.lan:80", "wlan0", "80", "1.2.3.4/33", "/../..", "busybox", "\x00", "%00", "a" * 300])
names = st.sampled_from(sorted(DESCRIPTOR_KEYS | OWN_KEYS | set(vars(updateObject.UpdateObject)) | {
    "type", "intfName", "ssid", "key", "dhcp", "lease", "start", "limit", "local", "inline", "port_bindings", "main",
    "interfaces", "requests", "wireless", "_cache", "cache", "state", "__init__"})) | st.text(max_size=10)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6),
                      max_leaves=25)
descriptors = st.dictionaries(names, values, max_size=8) | st.builds(
    lambda more: {"name": "hello", "dockerfile": "FROM x", **more}, st.dictionaries(names, values, max_size=3))


def is_harmless(update: dict[str, Any]) -> bool:
    """Whether an update has nothing but what the contract names, and what the API set itself."""
    sent = set(update) - OWN_KEYS
    return sent <= DESCRIPTOR_KEYS and update["workdir"] is None and update["updateClass"] == "CHUTE" \
        and callable(update["func"]) and isinstance(update["tok"], int)


def as_bytes(body: Any) -> bytes:
    return json.dumps(body).encode()


@fuzz
@given(config=descriptors, call=st.sampled_from(["create", "update"]))
def test_descriptors_on_v1(router: Router, config: dict[str, Any], call: str) -> None:
    router.queue.updates.clear()
    answer = router.v1(f"chute/{call}", as_bytes({"config": config}))
    assert answer.status in (200, 400)
    assert b"Traceback" not in answer.data
    assert all(is_harmless(update) for update in router.queue.updates)


@fuzz
@given(body=values, call=st.sampled_from(["create", "update", "start", "stop", "delete", "test", "x"]))
def test_bodies_on_v1(router: Router, body: Any, call: str) -> None:
    answer = router.v1(f"chute/{call}", as_bytes(body))
    assert answer.status in (200, 400, 404)
    assert b"Traceback" not in answer.data


@fuzz
@given(config=descriptors)
def test_descriptors_on_api_v1(router: Router, config: dict[str, Any]) -> None:
    router.queue.updates.clear()
    answer = router.ask("POST", "/api/v1/chutes", as_bytes({"config": config}), headers={
        "Content-Type": "application/json"})
    assert answer.status in (202, 400, 422), answer.data
    assert b"Traceback" not in answer.data
    assert all(is_harmless(update) for update in router.queue.updates)


@fuzz
@given(body=st.binary(max_size=200), media=st.sampled_from(["application/json", "application/x-tar", "text/xml"]),
       path=st.sampled_from(["/v1/chute/create", "/api/v1/chutes", "/api/v1/projects", "/internal", "/api/v1/login"]))
def test_bytes_anywhere(router: Router, body: bytes, media: str, path: str) -> None:
    answer = router.ask("POST", path, body, headers={"Content-Type": media})
    assert answer.status < 500, answer.data
    assert b"Traceback" not in answer.data


@fuzz
@given(headers=st.dictionaries(
    st.sampled_from(["Authorization", "Host", "Origin", "X-Real-IP", "Content-Type", "Range"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40) | st.sampled_from(
        ["Basic Og==", "Basic !!!!", "Bearer .", "Basic", "[::1", "::1", "http://[", "localhost:x"])))
def test_headers(router: Router, headers: dict[str, str]) -> None:
    settings.addSetting("PDFCD_FAILURE_LIMIT", 10**9)
    for path in ("/v1/test", "/api/v1/status", "/api/v1/openapi.json"):
        answer = router.ask("GET", path, user=None, headers=headers)
        assert answer.status < 500, answer.data


def test_updates_take_nothing_else(router: Router) -> None:
    """What the face lets through sets only named attributes of the real update object as well."""
    with mock.patch.object(updateObject, "ChuteStorage"):
        update = updateObject.UpdateObject({"updateClass": "CHUTE", "name": "x", "plans": 1, "old": 2, "chuteStor": 3,
                                            "complete": 4, "__class__": 5})
    assert (update.plans, update.complete) != (1, 4)
    assert not isinstance(update.chuteStor, int)


@pytest.mark.slow
def test_schemathesis(router: Router, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The fuzzer of OpenAPI documents finds no answer that the document does not tell of."""
    if importlib.util.find_spec("schemathesis") is None:
        pytest.skip("schemathesis is missing (pip install schemathesis)")
    settings.addSetting("PDFCD_FAILURE_LIMIT", 10**9)
    router.rest.journal.feed.close()  # so that who follows the log comes to its end
    router.store.add("0", version=1, dockerfile="FROM busybox").setCache("previous", {"name": "0", "version": 0})
    listening = pdconfd.listen()
    request.addfinalizer(listening.close)
    listening.manager.loadConfig()
    token = router.rest.accounts.write_local_token().read_text().strip()
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{router.port}/api/v1/openapi.json",
         "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
         "--header", f"Authorization: Bearer {token}", "--max-examples", "5", "--phases", "coverage,fuzzing",
         "--exclude-path-regex", "/projects",  # it cannot make tar archives; other tests do
         "--exclude-operation-id", "get_chute_log",  # without an engine that is 503, as it should be

         "--seed", "1", "--generation-database", "none", "--request-timeout", "20", "--no-color"],
        capture_output=True, text=True, timeout=400, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
