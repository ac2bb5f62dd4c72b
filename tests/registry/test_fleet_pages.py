"""The pages of the fleet in a real browser: everything can be read without scripts, and the API decides who may what.
"""

import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import sqlalchemy as sa
import urllib3

from pdimage.server.registry.tables import accounts, routers
from tests.paradrop.process import Daemon, running
from tests.registry.browsing import Window
from tests.registry.conftest import PASSWORD, administrator, database, pdimage, register
from tests.registry.field import Field, state, until
from tests.registry.fleets import begin, make_devices, paradrop, put_file
from tests.server.parts import free_port
from tests.server.serverprocess import Server

PLAN = {"steps": [50, 100], "failures": 20, "least": 1, "success": 100}


def test_from_registering_to_a_router_that_is_awake(window: Window, server: Server, tmp_path: Path) -> None:
    window.go("/fleet")
    window.look("fleet-login")
    window.page.click("text=Register")
    window.fill(name="joe", password=PASSWORD, again="another horse")
    window.press("Register")
    assert "The two passwords are not the same." in window.text()
    window.look("fleet-register")
    window.fill(name="joe", password=PASSWORD, again=PASSWORD)
    window.press("Register")
    window.look("fleet-empty")
    window.fill(name="aardvark")
    window.press("Make it")
    assert "pd.joe.aardvark" in window.text()
    window.press("Provision it")
    window.look("fleet-provision")
    secret = window.page.inner_text(".good code")
    port = free_port()
    router = Daemon(tmp_path, settings={
        "PDFCD_PORT": str(port), "FIRMWARE_TARGET": f"{tmp_path}/opt", "FIRMWARE_KEYRING": f"{tmp_path}/keys",
        "FIRMWARE_SETTINGS": f"{tmp_path}/update.toml"})
    with running(router):
        token = (tmp_path / "run/api/token").read_text().strip()
        done = urllib3.request("POST", f"http://127.0.0.1:{port}/api/v1/provision", json={
            "server": server.url, "secret": secret}, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        assert done.status == 200, done.data
        end = time.monotonic() + 60
        while "awake" not in window.page.inner_text("dl"):
            assert time.monotonic() < end
            time.sleep(0.3)
            window.go("/fleet/routers/pd.joe.aardvark")
        assert "this router is now pd.joe.aardvark" in window.text(), "its log comes through the tunnel"
        assert "None is installed." in window.text(), "its chutes too"
        window.look("fleet-router")
    end = time.monotonic() + 60
    while "asleep" not in window.text():
        assert time.monotonic() < end, window.text()
        time.sleep(0.3)
        window.page.reload()
    window.press("Delete it")
    window.look("fleet-delete")
    window.press("Delete it")
    assert "No router yet." in window.text()
    window.press("Log out")
    window.go("/fleet/routers/pd.joe.aardvark")
    assert window.page.url.endswith("/fleet/login")


def test_a_clone_is_shown_and_seen_to_and_a_router_put_into_a_group(
    server: Server, window: Window, tmp_path: Path,
) -> None:
    zoe = register(server, "zoe")
    with ExitStack() as undo:
        field = Field(server, zoe, tmp_path, undo)
        first = field.router("first")
        field.provision(first, "aardvark")
        until(lambda: field.shown("aardvark")["awake"])
        shutil.copytree(first.home / "lib", tmp_path / "second/lib")
        second = field.router("second")
        until(lambda: state(second) == "clone")
        window.log_in("zoe", PASSWORD)
        incident = window.page.inner_text("p.problem")
        assert incident.startswith("pd.zoe.aardvark: two routers use this identity, at 127.0.0.1 and at 127.0.0.1 (")
        assert incident.endswith("the newer, at 127.0.0.1, was told to be provisioned again")
        window.look("fleet-clone")
        window.page.click(".problem a")
        assert window.page.inner_text(".problem p") == incident.removeprefix("pd.zoe.aardvark: ")
        window.look("fleet-router-clone")
        field.provision(second, "badger", again=True)
        until(lambda: field.shown("badger")["awake"])
        window.press("I have seen to it")
        assert window.page.locator(".problem").count() == 0
        assert field.shown("aardvark")["incident"] == ""

    assert zoe.ask("PUT", "/groups/field", {}).status == 200
    for group in ("field", "none"):
        window.page.reload()
        window.page.select_option("#group", label=group)
        window.press("Put it there")
        assert window.page.inner_text("dt:text-is('Group') + dd") == group
        window.go("/fleet?group=zoe.field")
        assert ("pd.zoe.aardvark" in window.text()) == (group == "field")
        window.go("/fleet/routers/pd.zoe.aardvark")
    assert [entry["action"] for entry in zoe.get("/audit").body["entries"][:2]] == ["group.leave", "group.join"]


def test_a_roll_out_is_started_stopped_and_led_without_scripts(server: Server, plain: Window, window: Window) -> None:
    ann, boss = register(server, "ann"), administrator(server)
    devices = make_devices(ann, 4, "field")
    release = put_file(server, "8.0")
    plain.log_in("ann", PASSWORD)
    plain.go("/fleet/groups")
    plain.fill(group="attic", note="under the roof")
    plain.press("Make it")
    assert "under the roof" in plain.text()
    plain.page.click("[aria-label='Forget the group ann.attic']")
    assert "ann.attic" not in plain.text()
    plain.go("/fleet/rollouts/new")
    assert plain.page.input_value("[name=release]") == release
    plain.page.select_option("[name=group]", "ann.field")
    plain.fill(steps="half, all", failures="20", least="1", success="100", window="02:00-05:00", zone="Europe/Berlin")
    plain.press("Start the roll-out")
    assert "steps: 'half' is not a number" in plain.text()
    plain.page.go_back()
    plain.page.select_option("[name=group]", "ann.field")
    plain.fill(steps="50, 100", failures="20", least="1", success="100", window="", zone="")
    plain.page.check("[name=approval]")
    plain.press("Start the roll-out")
    assert "waits for approval by somebody other than ann" in plain.text()
    assert plain.page.locator("button:text-is('Approve it')").count() == 0, "not by who made it"

    window.log_in(boss.name, PASSWORD)
    window.go("/fleet/rollouts")
    window.look("fleet-rollouts")
    window.page.click("text=ann.field")
    window.press("Approve it")
    window.press("Pause")
    assert ann.get("/rollouts/1").body["state"] == "paused"
    window.press("Go on")
    asked = [device for device in devices if "deploymentBase" in device.links()]
    assert len(asked) == 2
    asked[0].install()
    window.page.reload()
    window.look("fleet-running")
    asked[1].install(good=False)
    window.page.wait_for_selector("p.problem")
    window.look("fleet-stopped")
    assert "reverted: the radio is dead" in window.text()
    window.go("/fleet?group=ann.field")
    window.look("fleet-routers")
    assert window.page.inner_text("tbody").count("failed") == 1
    window.go("/fleet/rollouts/new")
    window.look("fleet-new")
    window.go("/fleet/audit")
    window.look("fleet-audit")
    assert "rollout.approve" in window.text()

    number = begin(ann, release, "field", plan=PLAN)
    late = [device for device in devices if device.fetch()]
    plain.go(f"/fleet/rollouts/{number}")
    plain.press("Cancel it")
    assert ann.get(f"/rollouts/{number}").body["state"] == "cancelled"
    window.go(f"/fleet/rollouts/{number}")
    assert "2\nasked to let go" in window.text()
    window.look("fleet-cancelling")
    plain.page.click(f"[aria-label='Do not wait for pd.ann.{late[0].name}']")
    assert "ann did not wait for its word" in plain.text()
    plain.press("Wait for none of them")
    assert "Cancelled by ann; asked to let go: 2." in plain.text()
    assert plain.page.inner_text(".numbers").split("\n")[-2:] == ["2", "cancelled"]
    assert plain.page.locator("main button").count() == 0

    plain.go("/fleet/rollouts/new")
    plain.page.select_option("[name=group]", "ann.field")
    plain.fill(steps="100")
    plain.page.check("[name=confirm]")
    plain.press("Start the roll-out")
    assert "4\nto be confirmed" in plain.page.inner_text(".numbers")
    assert "by somebody at each router, before it begins there" in plain.text()
    window.go(f"/fleet/rollouts/{number + 1}")
    window.look("fleet-unconfirmed")


def test_pages_may_what_the_api_lets_them(server: Server, plain: Window) -> None:
    eve, owner = register(server, "eve"), register(server, "owner")
    make_devices(owner, 1, "mine")
    number = begin(owner, put_file(server, "8.0"), "mine")
    plain.log_in("eve", PASSWORD)
    for path in ("/fleet/routers/pd.owner.r000", f"/fleet/rollouts/{number}", "/fleet?group=owner.mine",
                 "/fleet/rollouts/none"):
        plain.go(path)
        assert "This did not work" in plain.text(), path
    plain.go("/fleet/audit")
    assert "owner" not in plain.text()
    pdimage(server.data, "role", "eve", "viewer")
    plain.go("/fleet/routers/pd.owner.r000")
    assert "pd.owner.r000" in plain.text()
    assert plain.page.locator("main button").count() == 0
    plain.go(f"/fleet/rollouts/{number}")
    assert plain.page.locator("main button").count() == 0
    assert eve.post(f"/rollouts/{number}/cancel").status == 403


def form(server: Server, path: str, person: dict[str, str], fields: str, **headers: str) -> urllib3.BaseHTTPResponse:
    return urllib3.PoolManager(retries=False).request(
        "POST", server.url + path, body=fields.encode(), redirect=False, timeout=30,
        headers={"Content-Type": "application/x-www-form-urlencoded", **person, **headers})


def test_foreign_pages_stolen_cookies_and_guesses_get_nowhere(server: Server) -> None:
    mallory = register(server, "mallory")
    logged = form(server, "/fleet/login", {}, f"name=mallory&password={PASSWORD.replace(' ', '+')}")
    assert (logged.status, logged.headers["Location"]) == (303, "/fleet")
    cookie = logged.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    session = {"Cookie": cookie.partition(";")[0]}
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                    {"Sec-Fetch-Site": "same-site"}):
        assert form(server, "/fleet", session, "name=stolen", **headers).status == 403
        assert form(server, "/fleet/login", {}, "name=mallory&password=x", **headers).status == 403
    assert mallory.get("/routers").body["routers"] == []
    assert form(server, "/fleet", {}, "name=stolen").headers["Location"] == "/fleet/login"
    assert server.ask("GET", "/registry/v1/account", None, session).status == 401, "the API takes no cookie"
    page = urllib3.request("GET", server.url + "/fleet", headers=session)
    assert page.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert form(server, "/fleet/login", {}, "name=mallory&password=guess").status == 401
    for path in ("/fleet/routers/pd.mallory.none", "/fleet/rollouts/99"):
        assert form(server, path, session, "action=explode").status in (400, 404)
    assert form(server, "/fleet/logout", session, "").status == 303
    assert form(server, "/fleet", session, "name=late").headers["Location"] == "/fleet/login"


def test_more_than_a_page_shows(server: Server, plain: Window) -> None:
    kim, boss = register(server, "kim"), administrator(server)
    rows = [{"pdid": f"pd.kim.r{number:03}", "account": "kim", "name": f"r{number:03}", "made": 1.0,
             "incident": "two routers use this identity" if number == 449 else ""} for number in range(450)]
    many = [{"name": f"many{number:06}", "password": "", "role": "user", "made": 1.0} for number in range(16_000)]
    with database(server) as connection:
        connection.execute(sa.insert(routers), rows)
        connection.execute(sa.insert(accounts), many)
    plain.log_in("kim", PASSWORD)
    shown = []
    for _ in range(3):
        assert plain.page.inner_text(".numbers").split()[:2] == ["450", "routers"]
        assert plain.page.inner_text(".problem") == "pd.kim.r449: two routers use this identity"
        shown += plain.page.locator("tbody th").all_inner_texts()
        if len(shown) < 450:
            plain.page.click("text=More")
    assert shown == [row["pdid"] for row in rows]
    assert plain.page.locator("text=More").count() == 0
    assert kim.get("/fleet?after=../x").status == 400
    plain.press("Log out")
    plain.log_in(boss.name, PASSWORD)
    plain.go("/fleet/accounts")
    assert plain.page.inner_text(".problem") == "this is too long for a page; the command paradrop shows all of it"
    assert "many015999" in paradrop(boss, "list", verb="accounts")
    with database(server) as connection:
        connection.execute(sa.delete(accounts).where(accounts.c.name.startswith("many")))
