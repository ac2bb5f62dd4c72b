"""Who decides when a router installs what a hawkBit server wants: its owner, then the server."""

from datetime import datetime, timedelta
from pathlib import Path

from tests.fussy.firmware import Firmware

from .ddi import Hawkbit, bundle, has, table
from .router import Router


def closed() -> str:
    """Return a window that opens in three days."""
    return f"{datetime.now() + timedelta(days=3):%a} 03:00-03:01"


def test_the_owner_goes_before_the_server_which_is_told_why(
        tmp_path: Path, firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    has(led, fleet, firmware)
    fleet.offer(8, bundle(firmware, 2), version="2.0", download="attempt")
    led.run("--reason", "the show is on", verb="hold")
    for _ in range(2):
        waits = led.update(expect="held")
    assert (waits.exit_code, waits.waiting and waits.waiting.version) == (11, "2.0")
    assert fleet.lines() == 2 * [
        "proceeding none: held: firmware (version 2.0) waits: the owner holds updates (the show is on)"]
    led.run("2", verb="postpone")
    led.update(expect="postponed")
    led.run("--release", verb="hold")
    led.set(product="", hawkbit=table(fleet, tmp_path), mode="notify")
    led.update(expect="notify-only")
    assert fleet.lines()[-1] == (
        "proceeding none: notify-only: firmware (version 2.0) is there: install it with fussy update --now")
    led.set(product="", hawkbit=table(fleet, tmp_path), window=closed())
    led.update(expect="outside-window")
    assert "firmware-2.tar.gz.gpg" not in fleet.requests
    led.set(product="", hawkbit=table(fleet, tmp_path), mode="off")
    fleet.requests.clear()
    led.update(expect="off")
    assert fleet.requests == []
    led.update(expect="updated", insist=True)
    assert led.current() == "firmware-2"


def test_the_server_says_when_to_download_and_when_to_install(firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    has(led, fleet, firmware)
    new = bundle(firmware, 2)
    fleet.offer(8, new, version="2.0", download="skip", update="skip")
    assert led.update(expect="outside-window").exit_code == 11
    assert new.name not in fleet.requests
    fleet.offer(8, new, version="2.0", download="attempt", update="skip", maintenanceWindow="unavailable")
    led.update(expect="outside-window")
    waits = "downloaded none: firmware (version 2.0) waits for the maintenance window of the server"
    assert fleet.lines()[-1] == waits
    led.update(expect="outside-window")
    assert fleet.lines()[-2:] == [waits, waits], "it is downloaded once"
    fleet.offer(8, new, version="2.0", download="forced", update="forced", maintenanceWindow="available")
    led.update(expect="updated")
    assert fleet.requests.count(new.name) == 1


def test_what_is_forced_to_be_downloaded_is_there_when_the_window_opens(
        tmp_path: Path, firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    has(led, fleet, firmware)
    new = bundle(firmware, 2)
    led.set(product="", hawkbit=table(fleet, tmp_path), window=closed())
    fleet.offer(8, new, version="2.0", download="attempt", update="forced")
    led.update(expect="outside-window")
    assert new.name not in fleet.requests, "what is attempted waits for the owner altogether"
    fleet.offer(8, new, version="2.0", download="forced", update="attempt")
    led.update(check=True, expect="outside-window")
    led.run(verb="hold")
    led.update(expect="held")
    assert new.name not in fleet.requests, "a hold is nothing that can be forced, nor does who only looks download"
    led.run("--release", verb="hold")
    for _ in range(2):
        assert led.update(expect="outside-window").exit_code == 11
        assert fleet.lines()[-1].startswith("proceeding none: outside-window: firmware (version 2.0) waits")
    assert led.current() == "firmware-1"
    led.set(product="", hawkbit=table(fleet, tmp_path))
    led.update(expect="updated")
    assert fleet.requests.count(new.name) == 1


def test_what_is_forced_goes_before_the_window_where_the_owner_says_so(
        tmp_path: Path, firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    has(led, fleet, firmware)
    new = bundle(firmware, 2)

    def settle(mode: str = "automatic") -> None:
        led.set(product="", hawkbit=table(fleet, tmp_path, forced="at-once"), window=closed(), mode=mode)

    settle()
    fleet.offer(8, new, version="2.0", download="attempt", update="attempt")
    led.update(expect="outside-window")
    fleet.offer(8, new, version="2.0", download="forced", update="forced")
    settle("notify")
    led.update(expect="notify-only")
    settle()
    for verb, argument, outcome in (("hold", "--reason=no", "held"), ("postpone", "2", "postponed")):
        led.run(argument, verb=verb)
        led.update(expect=outcome)
        led.run("--release", verb="hold")
    assert new.name not in fleet.requests and led.current() == "firmware-1"
    led.update(expect="updated")
    assert led.current() == "firmware-2"


def test_what_is_to_be_confirmed_is_when_the_owner_lets_it_be_installed(
        tmp_path: Path, firmware: Firmware, fleet: Hawkbit, led: Router) -> None:
    has(led, fleet, firmware)
    new = bundle(firmware, 2)
    fleet.offer(8, new, version="2.0")
    fleet.unconfirmed = True
    led.update(check=True, expect="available")
    assert fleet.told == [], "who only looks says nothing"
    led.run("--reason", "the show is on", verb="hold")
    assert led.update(expect="held").exit_code == 11
    held = "held: firmware (version 2.0) waits: the owner holds updates (the show is on)"
    assert fleet.lines() == [f"denied none: {held}"]
    led.run("--release", verb="hold")
    led.set(product="", hawkbit=table(fleet, tmp_path), mode="notify")
    led.update(expect="notify-only")
    assert fleet.lines()[-1].startswith("denied none: notify-only: ")
    assert new.name not in fleet.requests
    led.set(product="", hawkbit=table(fleet, tmp_path), window=closed())
    led.update(expect="outside-window")
    agreed = "confirmed none: firmware (version 2.0) may be installed on this router"
    assert fleet.lines()[2] == agreed
    assert fleet.lines()[-1].startswith("proceeding none: outside-window: "), "agreed to, for when the window opens"
    led.update(expect="updated", insist=True)
    assert led.current() == "firmware-2"
    fleet.told.clear()
    fleet.offer(9, bundle(firmware, 3), version="3.0")
    fleet.unconfirmed = True
    led.set(product="", hawkbit=table(fleet, tmp_path), mode="notify")
    led.update(expect="updated", insist=True)
    assert fleet.lines()[0] == agreed.replace("2.0", "3.0"), "whoever asks for it at the router agrees"
    assert fleet.lines()[-1] == "closed success: firmware (version 3.0) is in use"
