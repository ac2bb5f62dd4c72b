"""/api/v1: chutes, changes, accounts and their roles, the router, problems and the document."""

import errno
import io
import json
import logging
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from face import PASSWORD, Router

from paradrop.backend.pdconfd import client as pdconfd
from paradrop.backend.pdfcd import oprouter
from paradrop.backend.pdfcd.accounts import Accounts
from paradrop.backend.pdfcd.app import OPERATIONS, make_app
from paradrop.lib import settings
from paradrop.lib.utils import pdosq, uci

CHUTE = {"name": "hello", "dockerfile": "FROM busybox", "owner": "me"}


def content(answer: Any, status: int = 200) -> Any:
    assert answer.status == status, answer.data
    return json.loads(answer.data) if answer.data else None


def problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status == status, answer.data
    assert answer.headers["Content-Type"] == "application/problem+json"
    found: dict[str, Any] = json.loads(answer.data)
    assert found["status"] == status
    assert len(found["token"]) == 10
    return found


def test_the_life_of_a_chute(router: Router) -> None:
    router.queue.hold = True
    answer = router.ask("POST", "/api/v1/chutes", {"config": CHUTE}, "operator")
    change = content(answer, 202)
    assert [change[key] for key in ("kind", "chute", "user", "state")] == ["create", "hello", "operator", "queued"]
    place = answer.headers["Location"]
    update = router.queue.updates[0]
    update["pkg"].request.write("Step 1/1 : FROM busybox\n")
    assert content(router.ask("GET", place))["state"] == "running"
    router.queue.finish(update)
    change = content(router.ask("GET", place))
    assert (change["state"], change["success"]) == ("done", True)
    assert change["message"] == "Chute hello create success"
    assert router.ask("GET", f"{place}/messages").data == b"Step 1/1 : FROM busybox\n"
    assert [one["id"] for one in content(router.ask("GET", "/api/v1/changes"))] == [change["id"]]

    router.store.add("hello", version=1, description="greets", dockerfile="FROM busybox")
    assert content(router.ask("GET", "/api/v1/chutes", user="viewer")) == [{
        "name": "hello", "state": "running", "containers": [], "version": "1", "description": "greets", "owner": None,
        "warning": None, "rollback": False, "previous": None}]
    assert content(router.ask("GET", "/api/v1/chutes/hello/config"))["config"]["dockerfile"] == "FROM busybox"
    for verb in ("start", "stop"):
        assert content(router.ask("POST", f"/api/v1/chutes/hello/{verb}"), 202)["kind"] == verb
    change = content(router.ask("POST", "/api/v1/chutes/hello/restart", {"environment": {"A": "b"}}), 202)
    assert router.queue.updates[-1]["environment"] == {"A": "b"}
    assert content(router.ask("DELETE", "/api/v1/chutes/hello"), 202)["kind"] == "delete"


def test_versions_and_rollback(router: Router) -> None:
    chute = router.store.add("hello", version=2, dockerfile="FROM busybox")
    assert problem(router.ask("POST", "/api/v1/chutes/hello/rollback"), 409)["detail"].startswith("cannot roll back")
    chute.setCache("previous", {"name": "hello", "version": 1})
    assert content(router.ask("GET", "/api/v1/chutes/hello/versions")) == [
        {"version": "2", "current": True}, {"version": "1", "current": False}]
    assert content(router.ask("POST", "/api/v1/chutes/hello/rollback"), 202)["kind"] == "rollback"
    newer = {**CHUTE, "version": 3}
    assert content(router.ask("PUT", "/api/v1/chutes/hello", {"config": newer}), 202)["kind"] == "update"
    wrong = problem(router.ask("PUT", "/api/v1/chutes/hello", {"config": {**CHUTE, "name": "other"}}), 422)
    assert wrong["mistakes"] == ["name: not hello"]


def test_progress_can_be_followed(router: Router) -> None:
    router.queue.hold = True
    router.store.add("hello")
    place = router.ask("POST", "/api/v1/chutes/hello/stop").headers["Location"]
    answer = router.ask("GET", f"{place}/messages?follow=true", preload_content=False)
    update = router.queue.updates[0]
    update["pkg"].request.write("one\n")
    assert answer.read1() == b"one\n"
    threading.Timer(0.1, router.queue.finish, (update,)).start()
    assert answer.read() == b""


def test_mistakes_are_told_together_and_nothing_is_queued(router: Router) -> None:
    config = {"name": "hello", "dockerfile": {"inline": "FROM x"},
              "net": {"wifi": {"type": "wifi", "intfName": "wlan0", "ssid": "x" * 33}}, "pkg": 1}
    mistakes = problem(router.ask("POST", "/api/v1/chutes", {"config": config}), 422)["mistakes"]
    assert "net.wifi.ssid: longer than 32 bytes" in mistakes
    assert any(mistake.startswith("pkg:") for mistake in mistakes)
    assert not router.queue.updates


def test_unknown_things_are_404_at_once(router: Router) -> None:
    for method, path, body in [
            ("GET", "/api/v1/chutes/no", None), ("DELETE", "/api/v1/chutes/no", None),
            ("PUT", "/api/v1/chutes/no", {"config": CHUTE}), ("POST", "/api/v1/chutes/no/start", None),
            ("POST", "/api/v1/chutes/no/rollback", None), ("GET", "/api/v1/chutes/no/logs", None),
            ("GET", "/api/v1/changes/no", None), ("GET", "/api/v1/changes/no/messages", None),
            ("GET", "/api/v1/config/no", None), ("GET", "/api/v1/config/..%2Fpasswd", None),
            ("DELETE", "/api/v1/users/no", None), ("DELETE", "/api/v1/tokens/no", None), ("GET", "/api/v1/no", None),
            ("GET", "/nowhere", None)]:
        problem(router.ask(method, path, body), 404)
    assert problem(router.ask("PATCH", "/api/v1/chutes"), 405)
    router.store.add("hello")
    assert problem(router.ask("POST", "/api/v1/chutes", {"config": CHUTE}), 409)["detail"].startswith("cannot install")


@pytest.mark.parametrize(("body", "status"), [
    (b"", 400), (b"{", 400), (b"\xff\xfe", 400), (b"[]", 422), (b"{}", 422), (b'{"config": []}', 422),
    (b'{"config": {}, "pkg": 1}', 422), (b"[" * 200_000, 422), (b'{"config": {"name": "\\ud800"}}', 400),
    (b'{"config": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001, 400),
    (b'{"config": {"net": ' + b"[" * 500 + b"]" * 500 + b"}}", 422),
])
def test_bodies_that_are_something_else(router: Router, body: bytes, status: int) -> None:
    problem(router.ask("POST", "/api/v1/chutes", body, headers={"Content-Type": "application/json"}), status)


def test_media_and_queries_that_are_something_else(router: Router) -> None:
    problem(router.ask("POST", "/api/v1/chutes", b"name: x", headers={"Content-Type": "text/yaml"}), 415)
    router.store.add("hello")
    for query in ("follow=maybe", "tail=-1", "tail=many", "other=1"):
        problem(router.ask("GET", f"/api/v1/chutes/hello/logs?{query}"), 400)


def test_everything_needs_a_password_and_the_right_role(router: Router) -> None:
    router.store.add("hello")
    for operation in OPERATIONS:
        path = operation.path.format(name="hello", id="1", file="network")
        if operation.role is None:
            continue
        refused = router.ask(operation.method, path, user=None)
        problem(refused, 401)
        assert refused.headers["WWW-Authenticate"].startswith("Basic")
        for role in ("viewer", "operator"):
            allowed = {"viewer": ("viewer",), "operator": ("viewer", "operator")}[role]
            if operation.role not in allowed:
                problem(router.ask(operation.method, path, user=role), 403)


def test_wrong_passwords_lock_an_address_out(router: Router) -> None:
    settings.addSetting("PDFCD_FAILURE_LIMIT", 3)
    wrong = {"username": "admin", "password": "not this one"}
    for _ in range(3):
        problem(router.ask("POST", "/api/v1/login", wrong, user=None), 401)
    problem(router.ask("POST", "/api/v1/login", wrong, user=None), 429)
    problem(router.ask("GET", "/api/v1/status"), 429)
    # an address of the loopback interface may speak for others, which are not locked out
    assert content(router.ask("GET", "/api/v1/status", headers={"X-Real-IP": "192.0.2.1"}))


def test_log_in_and_out(router: Router) -> None:
    given = content(router.ask("POST", "/api/v1/login", {"username": "operator", "password": PASSWORD}, user=None))
    bearer = {"Authorization": f"Bearer {given['token']}"}
    assert content(router.ask("GET", "/api/v1/whoami", user=None, headers=bearer)) == {
        "name": "operator", "role": "operator"}
    assert given["expires"] - time.time() == pytest.approx(30 * 86400, abs=60)
    assert router.ask("POST", "/api/v1/logout", user=None, headers=bearer).status == 204
    problem(router.ask("GET", "/api/v1/whoami", user=None, headers=bearer), 401)


def test_tokens(router: Router) -> None:
    problem(router.ask("POST", "/api/v1/tokens", {"label": "x", "role": "admin"}, "operator"), 403)
    made = content(router.ask("POST", "/api/v1/tokens", {"label": "watcher", "days": 1}, "operator"))
    bearer = {"Authorization": f"Bearer {made['token']}"}
    router.store.add("hello")
    assert content(router.ask("GET", "/api/v1/chutes", user=None, headers=bearer))
    problem(router.ask("POST", "/api/v1/chutes/hello/stop", user=None, headers=bearer), 403)
    problem(router.ask("DELETE", f"/api/v1/tokens/{made['id']}", user="viewer"), 404)
    assert [token["label"] for token in content(router.ask("GET", "/api/v1/tokens"))] == ["watcher"]
    assert router.ask("DELETE", f"/api/v1/tokens/{made['id']}").status == 204
    problem(router.ask("GET", "/api/v1/chutes", user=None, headers=bearer), 401)


def test_users(router: Router) -> None:
    put = {"password": "another password", "role": "operator"}
    problem(router.ask("PUT", "/api/v1/users/carol", put, "operator"), 403)
    assert content(router.ask("PUT", "/api/v1/users/carol", put)) == {"name": "carol", "role": "operator"}
    problem(router.ask("PUT", "/api/v1/users/operator", {"password": "my new one", "role": "admin"}, "operator"), 403)
    assert content(router.ask("PUT", "/api/v1/users/operator", {"password": "my new one"}, "operator"))
    problem(router.ask("GET", "/api/v1/whoami", user="operator"), 401)
    problem(router.ask("PUT", "/api/v1/users/x", {"password": "short"}), 422)
    problem(router.ask("PUT", "/api/v1/users/X%2F..", {"password": "long enough"}), 404)
    problem(router.ask("PUT", "/api/v1/users/Big", {"password": "long enough"}), 409)
    problem(router.ask("DELETE", "/api/v1/users/admin"), 409)
    assert router.ask("DELETE", "/api/v1/users/carol").status == 204
    assert "carol" not in [user["name"] for user in content(router.ask("GET", "/api/v1/users"))]


def test_accounts_last_and_tell_nothing(router: Router, home: Path) -> None:
    made = content(router.ask("POST", "/api/v1/tokens", {"label": "x"}))
    file = Path(settings.CONFIG_HOME_DIR) / "api/accounts.json"
    assert file.parent.stat().st_mode & 0o777 == 0o700
    text = file.read_text()
    assert PASSWORD not in text
    assert made["token"].partition(".")[2] not in text
    again = Accounts()
    assert again.users() == {"admin": "admin", "operator": "operator", "viewer": "viewer"}
    found = again.check_token(made["token"])
    assert found and (found.user, found.role) == ("admin", "viewer")
    file.write_text("{")
    assert Accounts().users() == {}
    assert list(file.parent.glob("accounts.json.unreadable-*"))


def test_a_full_disk_changes_nothing(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pdosq, "replaceFile", full)
        found = problem(router.ask("PUT", "/api/v1/users/admin", {"password": "another password"}), 507)
        assert "No space left" in found["detail"]
        problem(router.ask("POST", "/api/v1/tokens", {"label": "x"}), 507)
        problem(router.ask("DELETE", "/api/v1/users/viewer"), 507)
    assert content(router.ask("GET", "/api/v1/whoami", user="admin"))
    assert content(router.ask("GET", "/api/v1/whoami", user="viewer"))
    assert content(router.ask("GET", "/api/v1/tokens")) == []


def test_old_tokens_give_way(router: Router) -> None:
    made = [content(router.ask("POST", "/api/v1/tokens", {"label": str(number)})) for number in range(25)]
    labels = [token["label"] for token in content(router.ask("GET", "/api/v1/tokens"))]
    assert labels == [str(number) for number in range(5, 25)]
    oldest = {"Authorization": f"Bearer {made[0]['token']}"}
    problem(router.ask("GET", "/api/v1/whoami", user=None, headers=oldest), 401)


def test_a_configuration_daemon_that_hangs(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(oprouter, "CONFIG_SECONDS", 0.2)
    monkeypatch.setattr(pdconfd, "waitSystemUp", released.wait)
    assert "still at work" in problem(router.ask("GET", "/api/v1/config-status"), 503)["detail"]
    released.set()
    status = [{"type": "interface", "name": "wan", "comment": "__PARADROP__", "success": True, "age": 1}]
    monkeypatch.setattr(pdconfd, "waitSystemUp", lambda: json.dumps(status))
    assert content(router.ask("GET", "/api/v1/config-status", user="viewer")) == [
        {"type": "interface", "name": "wan", "owner": "__PARADROP__", "success": True, "error": None}]
    monkeypatch.setattr(pdconfd, "reloadAll", lambda: None)
    problem(router.ask("POST", "/api/v1/config-status"), 503)


def test_the_local_root_has_a_token(router: Router) -> None:
    path = router.rest.accounts.write_local_token()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    bearer = {"Authorization": f"Bearer {path.read_text().strip()}"}
    assert content(router.ask("GET", "/api/v1/whoami", user=None, headers=bearer)) == {"name": "root", "role": "admin"}
    assert content(router.ask("PUT", "/api/v1/users/first", {"password": "long enough", "role": "admin"}, user=None,
                              headers=bearer))


def test_status_and_configuration(router: Router) -> None:
    router.store.add("a")
    router.store.add("b", "stopped")
    status = content(router.ask("GET", "/api/v1/status", user="viewer"))
    assert status["chutes"] == {"running": 1, "stopped": 1}
    file = uci.UCIConfig(uci.getSystemPath("wireless"))
    file.addConfig({"type": "wifi-iface", "comment": "a"}, {"ssid": "It's", "list": {"dns": ["1", "2"]}})
    file.save()
    section = {"type": "wifi-iface", "name": None, "owner": "a", "options": {"ssid": "It's"},
               "lists": {"dns": ["1", "2"]}}
    assert content(router.ask("GET", "/api/v1/config")) == {"wireless": [section]}
    assert content(router.ask("GET", "/api/v1/config/wireless")) == [section]


def test_changing_the_configuration(router: Router) -> None:
    section = {"type": "interface", "name": "lan", "options": {"proto": "static", "note": "It's\na 'quote'"},
               "lists": {"dns": ["1.1.1.1"]}}
    problem(router.ask("PUT", "/api/v1/config/network", {"sections": [section]}, "operator"), 403)
    change = content(router.ask("PUT", "/api/v1/config/network", {"sections": [section]}), 202)
    assert (change["kind"], change["chute"]) == ("setconfig", "__PARADROP__")
    (update,) = router.queue.updates
    assert (update["updateClass"], update["configFile"]) == ("ROUTER", "network")
    assert update["sections"] == [({"type": "interface", "name": "lan"},
                                   {**section["options"], "list": {"dns": ["1.1.1.1"]}})]
    for wrong in ({"type": "x y"}, {"type": "x", "name": "a\nconfig"}, {"type": "x", "owner": "hello"},
                  {"type": "x", "options": {"k": 1}}, {"type": "x", "options": {"list": "c"}}):
        problem(router.ask("PUT", "/api/v1/config/network", {"sections": [wrong]}), 422)
    problem(router.ask("PUT", "/api/v1/config/passwd", {"sections": []}), 404)
    assert len(router.queue.updates) == 1


def test_the_log_is_there_to_read_and_follow(router: Router) -> None:
    log = logging.getLogger("paradrop.test")
    log.addHandler(router.rest.journal)
    log.setLevel(logging.INFO)
    try:
        log.info("one")
        log.info("two")
        lines = router.ask("GET", "/api/v1/logs?tail=1").data.splitlines()
        assert [json.loads(line)["message"] for line in lines] == ["two"]
        answer = router.ask("GET", "/api/v1/logs?follow=true&tail=1", preload_content=False)
        assert json.loads(answer.read1())["message"] == "two"
        log.info("three")
        assert json.loads(answer.read1())["message"] == "three"
        answer.close()
    finally:
        log.removeHandler(router.rest.journal)


def test_bugs_are_told_with_a_token_only(router: Router, caplog: pytest.LogCaptureFixture,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("secret detail")

    monkeypatch.setattr(router.store, "getChuteList", broken)
    found = problem(router.ask("GET", "/api/v1/chutes"), 500)
    assert "secret" not in json.dumps(found)
    (record,) = [record for record in caplog.records if found["token"] in record.getMessage()]
    assert "secret detail" in str(record.exc_info)


def test_the_document_is_true(router: Router) -> None:
    document = content(router.ask("GET", "/api/v1/openapi.json", user=None))
    told = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert told == {(operation.method, operation.path) for operation in OPERATIONS}
    routes = {route.path for route in make_app(router.rest).routes}  # type: ignore[attr-defined]
    assert {path for path in routes if path.startswith("/api/")} == set(document["paths"])
    ids = [item["operationId"] for methods in document["paths"].values() for item in methods.values()]
    assert len(ids) == len(set(ids))
    for method, path in [("GET", "/api/v1/chutes"), ("POST", "/api/v1/chutes")]:
        others = {name for name in ("GET", "POST", "PUT", "DELETE") if (name, path) not in told}
        for other in others:
            assert router.ask(other, path).status == 405
        assert (method, path) in told


def project(**files: str) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name.replace("__", "/").replace("_", "."))
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return target.getvalue()


TAR = {"Content-Type": "application/x-tar"}
DESCRIPTOR = "name: hello\nservices:\n  web: {type: normal}\n"


def test_a_project_is_unpacked_for_its_update_and_removed_after(router: Router) -> None:
    router.queue.hold = True
    archive = project(paradrop_yaml=DESCRIPTOR, Dockerfile="FROM busybox\nCOPY www /www\n", www__index_html="hello")
    assert content(router.ask("POST", "/api/v1/projects", archive, headers=TAR), 202)["kind"] == "create"
    update = router.queue.updates[0]
    place = Path(update["workdir"])
    assert (place / "www/index.html").read_text() == "hello"
    assert list(update["services"]) == ["web"]
    router.queue.finish(update)
    assert not place.exists()
    assert list(place.parent.iterdir()) == []


def hostile(name: str, kind: bytes, target: str = "") -> bytes:
    content = io.BytesIO(project(paradrop_yaml=DESCRIPTOR))
    with tarfile.open(fileobj=content, mode="a") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        tar.addfile(member)
    return content.getvalue()


@pytest.mark.parametrize("archive", [
    b"", b"no tar", project(Dockerfile="FROM x"), project(paradrop_yaml="[1]"), project(paradrop_yaml="a: [" * 3000),
    project(paradrop_yaml="a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))),
    hostile("../x", tarfile.REGTYPE), hostile("/x", tarfile.REGTYPE), hostile("x", tarfile.SYMTYPE, "/etc/passwd"),
    hostile("x", tarfile.LNKTYPE, "/etc/passwd"), hostile("x", tarfile.CHRTYPE), hostile("x", tarfile.FIFOTYPE),
    hostile("paradrop.yaml", tarfile.REGTYPE),
])
def test_hostile_projects(router: Router, archive: bytes) -> None:
    answer = router.ask("POST", "/api/v1/projects", archive, headers=TAR)
    assert answer.status in (409, 422), answer.data
    assert not router.queue.updates
    assert list((Path(settings.CONFIG_HOME_DIR) / "uploads").iterdir()) == []
