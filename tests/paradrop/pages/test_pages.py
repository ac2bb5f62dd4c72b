"""The router's page in a real browser, on a real daemon: everything can be read, and every button does what it says.

With SCREENSHOTS=DIR in the environment the pictures are kept.
"""

import json
import time
from typing import Any

import pytest
from browser import PASSWORD, Window
from process import Daemon

from fussy import status as statuses
from fussy import target as targets
from fussy.updating import record
from fussy.updating import settings as owners
from tests.fussy.channels import Channel

pytestmark = pytest.mark.docker
# Name, address, and a text of each page
READ = (
    ("overview", "/", "firmware-1"),
    ("chutes", "/chutes", "greeter"),
    ("chute", "/chutes/greeter", "<b>ready</b>"),
    ("chute-delete", "/chutes/greeter/delete", "all of its data"),
    ("firmware", "/firmware", "last resort"),
    ("firmware-upgrade", "/firmware/upgrade", "comes back by itself"),
    ("network", "/network", "Home <network>"),
    ("router", "/router", "Log of the runtime"),
    ("reboot", "/router/reboot", "a minute or two"),
    ("reset", "/router/reset", "the chutes greeter"),
    ("nothing", "/toaster", "Nothing of the router"),
    ("no-chute", "/chutes/toaster", "There is no chute toaster."),
)
HAND = {"confirm": "hand", "seconds": 3000, "boots": 3}


def await_text(window: Window, text: str, seconds: float = 60) -> None:
    """Wait for a text, reloading as somebody without scripts does."""
    end = time.monotonic() + seconds
    while text not in window.text():
        assert time.monotonic() < end, window.text()
        time.sleep(0.3)
        window.page.reload()


def containers(router: Daemon) -> dict[str, str]:
    assert router.engine
    return {item["Names"][0]: item["State"] for item in router.engine.client.containers(all=True)}


def test_the_first_password_by_keyboard_alone(router: Daemon, window: Window) -> None:
    window.go("/")
    assert window.page.url.endswith("/first")
    window.look("first")
    page = window.page
    page.focus("[name=name]")
    for keys in ("Tab", "short", "Tab", "shorx", "Tab"):
        if keys == "Tab":
            page.keyboard.press("Tab")
        else:
            page.keyboard.type(keys)
    page.evaluate("document.forms[0].noValidate = true")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=The two passwords are not the same.")
    window.look("first-mistake")
    for name in ("password", "again"):
        page.focus(f"[name={name}]")
        page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:text('Your router')")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    window.press("Log out")
    window.go("/first")
    assert page.url.endswith("/login"), "there is a first password once only"


def test_every_page_can_be_read(greeter: Daemon, window: Window) -> None:
    (greeter.home / "run/link.json").write_text(json.dumps({
        "state": "connected", "line": "Connected to the server.", "server": "https://fleet.example.org",
        "since": time.time() - 4000}))
    window.go("/login")
    window.look("login")
    window.fill(name="admin", password="wrong horse")
    window.press("Log in")
    window.look("login-wrong")
    assert "not the name and password" in window.text()
    window.log_in()
    for name, path, expected in READ:
        window.go(path)
        window.look(name)
        assert expected in window.text()
        assert "never shown anywhere" not in window.page.content()
    (greeter.home / "run/link.json").unlink()


def test_chutes_without_scripts(greeter: Daemon, plain: Window) -> None:
    plain.log_in("operator")
    plain.go("/chutes/greeter")
    plain.press("Stop")
    plain.press("Leave it as it is")
    plain.press("Stop")
    plain.press("Stop")
    await_text(plain, "Done: Chute greeter stop success")
    assert containers(greeter)["/greeter"] == "exited"
    plain.page.click("text=Back to greeter")
    plain.press("Start")
    await_text(plain, "Done: Chute greeter start success")
    assert containers(greeter)["/greeter"] == "running"
    plain.go("/chutes/greeter")
    plain.press("Restart")
    plain.press("Restart")
    await_text(plain, "Done: Chute greeter restart success")
    plain.go("/chutes/greeter")
    plain.press("Delete")
    plain.press("Delete")
    await_text(plain, "Done: Chute greeter delete success")
    assert containers(greeter) == {}
    plain.go("/chutes")
    assert "No chute is installed." in plain.text()
    assert "delete greeter" in plain.text()


@pytest.mark.slow
def test_the_firmware_is_upgraded_kept_and_brought_back(
        owned: Daemon, plain: Window, window: Window, channel: Channel) -> None:
    target = targets.find(channel.firmware.target)
    channel.add(2, trial=HAND)
    plain.log_in()
    plain.go("/firmware")
    plain.press("Look for updates")
    await_text(plain, "2.0 is there")
    await_text(plain, "fussy update is done.")

    plain.fill(until="2999-12-24", reason="the show is on")
    plain.press("Hold updates")
    assert "the show is on" in plain.text()
    assert record.load_owner(target).held
    plain.press("Release the hold")
    assert not record.load_owner(target).held

    plain.fill(window="at night")
    plain.press("Set the window")
    assert "'at night' is no window" in plain.text()
    plain.go("/firmware")
    plain.fill(window="Sat,Sun 02:00-05:00")
    plain.press("Set the window")
    assert owners.load(owned.home / "update.toml").window == "Sat,Sun 02:00-05:00"
    assert "Sat,Sun 02:00-05:00" in plain.text()

    plain.press("Upgrade now")
    plain.press("Upgrade now")
    await_text(plain, "firmware-2 is on trial")
    await_text(plain, "fussy update is done.")
    window.log_in()
    window.go("/")
    window.look("trial")
    window.go("/firmware")
    window.look("firmware-trial")
    window.press("Keep this release")
    window.page.wait_for_selector("text=fussy confirm is done.")
    assert current(channel) == ("firmware-2", None)

    window.press("Go back to firmware-1")
    window.press("Go back to the release before")
    window.page.wait_for_selector("text=fussy rollback is done.")
    assert current(channel) == ("firmware-1", None)

    channel.add(3, trial=HAND)
    window.press("Upgrade now")
    window.press("Upgrade now")
    window.page.wait_for_selector("h2:text('firmware-3 is on trial')")
    window.page.wait_for_selector("text=fussy update is done.")
    window.press("Take it back")
    window.look("firmware-reject")
    window.press("Take it back")
    window.page.wait_for_selector("text=rejected on the router's page")
    window.look("firmware-failed")
    assert current(channel) == ("firmware-1", None)


def current(channel: Channel) -> tuple[str | None, Any]:
    found = statuses.status(targets.find(channel.firmware.target))
    return found.current and found.current.name, found.trial


def test_a_restart_and_a_factory_reset(owned: Daemon, plain: Window, window: Window) -> None:
    window.log_in()
    window.go("/router")
    window.press("Restart the router")
    window.press("Restart the router")
    window.look("rebooting")
    assert (owned.home / "reboots").read_text() == "again\n"

    plain.log_in()
    plain.go("/router")
    plain.press("Factory reset")
    plain.press("Go on")
    plain.fill(password="wrong horse")
    plain.press("Delete everything and restart")
    assert "That is not your password." in plain.text()
    assert not (owned.home / "lib/factory-reset").exists()
    window.go("/router/reset")
    window.press("Go on")
    window.look("reset-again")
    window.fill(password=PASSWORD)
    window.press("Delete everything and restart")
    window.look("resetting")
    assert (owned.home / "reboots").read_text() == "again\n" * 2
    assert (owned.home / "config/network").exists()
    owned.kill()
    owned.start()
    window.go("/")
    assert window.page.url.endswith("/first"), "nobody has an account any more"
    assert not (owned.home / "config/wireless").exists()
    assert "the factory reset is done" in owned.log()
