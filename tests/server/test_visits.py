"""A router that is led from a page: it comes, looks, is told what to install, reports; and what nobody may do."""

import re
from typing import Any
from urllib.parse import urlencode

import pytest

from fussy import ondemand
from fussy.ondemand import Request
from pdimage.server.visits import Device, Visits
from tests.server.conftest import Start
from tests.server.serverprocess import Answered, Server

DEVICE = {"distro": "tiny", "version": "1.0", "target": "x86/64", "board": "pc", "name": "attic",
          "installed": {"motd": "1", "notes": "1", "old": "1"}}


def come(server: Server, **more: Any) -> tuple[str, str]:
    """Let a router come; return its address in the API and that of its page."""
    answer = server.post("/api/visits", {**DEVICE, **more})
    assert answer.status == 201, answer.data
    assert answer.body["page"] == f"{server.url}/router/{answer.body['token']}"
    return f"/api/visits/{answer.body['token']}", f"/router/{answer.body['token']}"


def press(server: Server, page: str, action: str, **fields: Any) -> Answered:
    """Send the form of a page."""
    return server.ask("POST", page, raw=urlencode({"action": action, **fields}, doseq=True).encode(), headers={
        "Content-Type": "application/x-www-form-urlencoded"})


def test_a_router_follows_what_is_decided_on_its_page(shared: Server) -> None:
    api, page = come(shared)
    seen = shared.get(page).data.decode()
    assert "attic" in seen and "notes is now notes-new" in seen and "old is dropped: nobody liked it" in seen
    assert shared.get(api).body == {"state": "wait"}
    assert press(shared, page, "install", request="0" * 64).status == 409

    pressed = press(shared, page, "build", package=["motd", "notes-new"])
    assert (pressed.status, pressed.headers["Location"]) == (303, page)
    wish = Request("tiny", "1.1", "x86/64", "generic", ("motd", "notes-new"), diff_packages=True)
    built = shared.wait(f"/api/upgrade-request/{ondemand.digest(wish)}")
    assert built.status == 200, built.data
    assert shared.get(api).body == {"state": "wait"}

    ready = shared.get(page).data.decode()
    assert "Upgrade the router now" in ready
    told = re.search(r'name="request" value="([0-9a-f]{64})"', ready)
    assert told and told[1] == ondemand.digest(wish)
    press(shared, page, "install", request=told[1])
    decided = shared.get(api).body
    assert decided["state"] == "install" and decided["request_hash"] == told[1]
    assert ondemand.digest(Request(**{**decided["request"], "packages": tuple(decided["request"]["packages"])})) \
        == told[1]
    assert press(shared, page, "again").status == 409

    assert shared.ask("POST", api, {"stage": "downloading", "percent": 40}).status == 204
    assert "40 %" in shared.get(page).data.decode()
    assert shared.ask("POST", api, {"stage": "failed", "text": "no <space>"}).status == 204
    assert "no &lt;space&gt;" in shared.get(page).data.decode()
    assert shared.ask("POST", api, {"stage": "done"}).status == 409


def test_nothing_is_reported_before_anything_is_decided(shared: Server) -> None:
    api, _ = come(shared)
    assert shared.ask("POST", api, {"stage": "done", "text": "it was not asked"}).status == 409


@pytest.mark.parametrize(("body", "status", "error"), [
    ({"distro": "none"}, 400, "unknown distribution 'none'"),
    ({"board": "a; reboot"}, 400, "'a; reboot' is no profile"),
    ({"installed": {"strange": "1"}}, 422, "could not find packages: strange"),
    ({"request": "abc"}, 400, "'abc' is no hash"),
    ({"name": 7}, 400, "name must be text"),
])
def test_a_router_that_makes_no_sense(shared: Server, body: dict[str, Any], status: int, error: str) -> None:
    answer = shared.post("/api/visits", {**DEVICE, **body})
    assert (answer.status, answer.body["error"]) == (status, error)


@pytest.mark.parametrize(("body", "error"), [
    ({"stage": "dancing"}, "stage must be one of waiting, downloading, installing, done, failed"),
    ({"stage": "done", "percent": 101}, "percent must be a whole number from 0 to 100"),
    ({"stage": "done", "text": ["a"]}, "text must be text"),
])
def test_a_report_that_makes_no_sense(shared: Server, body: dict[str, Any], error: str) -> None:
    api, _ = come(shared)
    answer = shared.ask("POST", api, body)
    assert (answer.status, answer.body["error"]) == (400, error)


def test_who_does_not_know_the_token_sees_nothing(shared: Server) -> None:
    come(shared)
    assert shared.get("/api/visits/AAAA").status == 404
    page = shared.get("/router/AAAA")
    assert page.status == 404 and b"run fussy-update --on-demand --page on the router again" in page.data


def test_a_form_of_another_site_is_refused(shared: Server) -> None:
    _, page = come(shared)
    answer = shared.ask("POST", page, raw=b"action=again", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status == 403 and b"this form was sent from another site" in answer.data


def test_a_visit_ends(start: Start) -> None:
    from pdimage.server import tables

    server = start()
    now = [1000.0]
    engine = tables.connect(f"sqlite:///{server.data / 'server.db'}")
    visits = Visits(engine, lambda: now[0])
    token = visits.come(Device("tiny", "1.0", "x86/64", "generic"))
    now[0] += 3599
    assert visits.find(token, router=True)
    now[0] += 3599
    found = visits.find(token)
    assert found and found.seen == 4599.0
    now[0] += 3601
    assert visits.find(token) is None
    assert not visits.choose(token, "0" * 64)
    engine.dispose()
