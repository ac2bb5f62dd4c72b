"""Clients of the registry that mean harm or know no better: an answer with ``error`` and a status of 4xx."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.registry.conftest import HERE, PASSWORD, Person, administrator
from tests.registry.devices import Device, secret_for
from tests.server.conftest import Start
from tests.server.parts import Postgres
from tests.server.serverprocess import Server

WRONG: list[Any] = [None, 1, True, [], {}, [1], {"a": 1}, "x", "", "\0", "\ud800", "a\nb", "../x", "x" * 5000, 1e999]
BODIES: dict[str, dict[str, Any]] = {
    "POST /accounts": {"name": "hostile1", "password": PASSWORD, "invitation": ""},
    "POST /login": {"name": "hostile1", "password": PASSWORD},
    "POST /reset": {"name": "hostile1", "code": "x", "password": PASSWORD},
    "PUT /account/password": {"old": "x" * 8, "new": PASSWORD},
    "POST /tokens": {"label": "", "read": False, "days": 0},
    "PUT /accounts/hostile1": {"role": "", "locked": 0},
    "POST /routers": {"name": ""},
}


def send(person: Person, method: str, path: str, body: Any) -> int:
    raw = json.dumps(body).encode("utf-8", "surrogatepass")
    found = person.server.ask(method, HERE + path, raw=raw, headers={
        "Authorization": f"Bearer {person.token}", "X-Forwarded-For": Person(person.server).address})
    assert found.status < 500, (method, path, body, found.data)
    if found.status >= 400:
        assert set(found.body) >= {"error", "detail", "status"}
        assert "\n" not in found.body["error"]
    return found.status


def test_fields_of_wrong_kinds(either: Server) -> None:
    boss = administrator(either)
    for operation, body in BODIES.items():
        method, path = operation.split()
        for key in body:
            statuses = {send(boss, method, path, {**body, key: wrong}) for wrong in WRONG if wrong != body[key]}
            assert statuses <= {400, 401, 403, 404, 429}, (operation, key)
        assert send(boss, method, path, {**body, "surprise": 1}) == 400
        assert {send(boss, method, path, wrong) for wrong in (None, [], 1, "x", [body])} == {400}


def test_fields_of_a_provisioning_of_wrong_kinds(joe: Person) -> None:
    device, secret = Device(), secret_for(joe, "aardvark")
    good = {"secret": secret, "csr": device.csr, "machine": device.machine, "clock": 0, "again": False}
    for key in good:
        for wrong in WRONG:
            if wrong is not (key == "again") and wrong != good[key]:
                assert send(joe, "POST", "/provision", {**good, key: wrong}) in (400, 403, 409), (key, wrong)
    assert joe.get("/routers/aardvark").body["provisioned"] is None


@pytest.mark.parametrize("name", ["..%2f..%2fetc", "a%00b", "%ff", "pd..x", "pd.a.b.c", "x" * 5000, "'--", "%0aX: y"])
def test_names_in_addresses(joe: Person, name: str) -> None:
    for method, path in (("GET", f"/routers/{name}"), ("DELETE", f"/routers/{name}"),
                         ("POST", f"/routers/{name}/provision"), ("DELETE", f"/tokens/{name}")):
        found = joe.ask(method, path)
        assert found.status == 404, (method, path, found.data)
    boss = administrator(joe.server)
    assert boss.ask("PUT", f"/accounts/{name}", {"role": "user"}).status == 404
    assert boss.ask("DELETE", f"/accounts/{name}").status == 404
    assert boss.post(f"/accounts/{name}/invite").status == (404 if "%2f" in name else 400)


def test_tokens_that_are_none(either: Server) -> None:
    for value in ("", "Bearer", "Bearer ", "Basic am9lOmpvZQ==", "Bearer \xff", "Bearer " + "x" * 5000, "Bearer a b"):
        found = either.ask("GET", f"{HERE}/account", headers={"Authorization": value})
        assert (found.status, found.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_numbers_of_the_query(joe: Person) -> None:
    for query in ("limit=0", "limit=1001", "limit=-1", "limit=x", "limit=%C2%B2", "before=99999999999999999999",
                  "before=2147483648", "limit="):
        assert joe.get(f"/audit?{query}").status == 400
    assert joe.get("/audit?limit=1").body["entries"][0]["action"] == "token.make"
    number = joe.get("/audit").body["entries"][0]["number"]
    assert [entry["action"] for entry in joe.get(f"/audit?before={number}").body["entries"]] == ["account.add"]


def test_a_body_that_is_too_long(joe: Person) -> None:
    assert send(joe, "POST", "/provision", {"csr": "x" * 70_000}) == 413


@pytest.mark.slow
def test_schemathesis(start: Start, postgres: Postgres, tmp_path: Path) -> None:
    """The fuzzer of OpenAPI documents, as the administrator, finds no answer that the document does not tell of."""
    server = start("--no-worker", database=postgres.database("fuzzed"), login_failures=1000)
    boss = administrator(server)
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--checks",
         "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
         "--include-path-regex", "^/registry/", "--exclude-path-regex", "/logout$|/tokens/", "-H",
         f"Authorization: Bearer {boss.token}", "--max-examples", "5", "--phases", "coverage,fuzzing", "--seed", "1",
         "--generation-database", "none", "--request-timeout", "20", "--workers", "2", "--no-color"],
        capture_output=True, text=True, timeout=400, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert boss.get("/account").status == 200
    assert "Traceback" not in server.log.read_text()
