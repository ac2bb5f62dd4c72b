"""Roll-outs that wait for somebody at each device to confirm them, as hawkBit's ``confirmationBase`` has it."""

import pytest

from tests.registry.conftest import AMPLE, Person, register
from tests.registry.fleets import Device, begin, counts, make_devices, paradrop, put_file
from tests.server.conftest import Start

ALL = {"steps": [100], "least": 1}


@pytest.fixture
def joe(start: Start, store: dict[str, object]) -> Person:
    return register(start("--no-worker", **AMPLE, **store), "joejoejoe")


def answer(device: Device, action: int, confirmation: str, *details: str, **more: object) -> int:
    """Say whether somebody at a device agrees; return the status of the answer."""
    return device.ask("POST", f"/confirmationBase/{action}/feedback", {
        "confirmation": confirmation, "details": list(details), **more}).status


def test_an_action_begins_when_it_is_confirmed(joe: Person) -> None:
    device, another, third = make_devices(joe, 3)
    number = begin(joe, put_file(joe.server, "8.0"), plan=ALL, confirm=True)
    assert counts(joe, number) == {"unconfirmed": 3}
    assert device.links() == {"configData": f"{device.server.url}{device.here}/configData",
                              "confirmationBase": f"{device.server.url}{device.here}/confirmationBase/1"}
    shown = device.ask("GET", device.links()["confirmationBase"]).body
    assert (shown["id"], shown["confirmation"]["chunks"][0]["version"]) == ("1", "8.0")
    assert device.ask("GET", "/deploymentBase/1").status == 404, "it begins nothing"
    assert device.ask("GET", "/confirmationBase").body == {"autoConfirm": {"active": False}, "_links": {
        "activateAutoConfirm": {"href": f"{device.server.url}{device.here}/confirmationBase/activateAutoConfirm"},
        "confirmationBase": {"href": f"{device.server.url}{device.here}/confirmationBase/1"}}}
    assert answer(another, 1, "confirmed") == 404, "it is another's"

    assert answer(device, 1, "denied", "not while the show is on", code=20) == 200
    first = joe.get(f"/rollouts/{number}/routers").body["routers"][0]
    assert (first["state"], first["reason"], first["messages"]) == (
        "unconfirmed", "not while the show is on", ["not while the show is on", "confirmation code 20"])
    assert set(device.links()) == {"configData", "confirmationBase"}
    assert answer(device, 1, "confirmed") == 200
    assert answer(device, 1, "confirmed") == 200, "the answer was lost, so it is said again"
    assert answer(device, 1, "denied") == 410
    assert device.ask("GET", "/confirmationBase/1").status == 404
    assert counts(joe, number) == {"unconfirmed": 2, "waiting": 1}
    assert device.install()
    assert answer(device, 1, "confirmed") == 410

    joe.post(f"/rollouts/{number}/pause")
    assert set(another.links()) == {"configData"}, "nothing is to be confirmed while it is paused"
    joe.post(f"/rollouts/{number}/resume")
    said = paradrop(joe, "rollout", "show", str(number))
    assert "begun on a router when somebody there has confirmed it\n" in said
    newer = begin(joe, put_file(joe.server, "9.0"), plan=ALL)
    assert counts(joe, number) == {"done": 1, "cancelled": 2}, "a newer roll-out overtakes what was not confirmed"
    assert another.install()
    assert third.fetch()
    joe.post(f"/rollouts/{newer}/cancel")
    last = begin(joe, put_file(joe.server, "9.1"), plan=ALL, confirm=True)
    cancelled = joe.post(f"/rollouts/{last}/cancel").body
    assert cancelled["reason"].startswith("by joejoejoe; not begun: "), "nobody is asked to let go of what never began"


def test_somebody_agrees_to_all_that_comes(joe: Person) -> None:
    device, another = make_devices(joe, 2)
    release = put_file(joe.server, "8.0")
    number = begin(joe, release, plan=ALL, confirm=True)
    switch = device.ask("GET", "/confirmationBase").body["_links"]["activateAutoConfirm"]["href"]
    assert device.ask("POST", switch, {"initiator": "ann", "remark": "the roof tops"}).status == 200
    assert device.ask("POST", switch, {}).status == 409
    found = device.ask("GET", "/confirmationBase").body
    assert {**found["autoConfirm"], "activatedAt": 0} == {
        "active": True, "initiator": "ann", "remark": "the roof tops", "activatedAt": 0}
    assert list(found["_links"]) == ["deactivateAutoConfirm"]
    assert counts(joe, number) == {"unconfirmed": 1, "waiting": 1}
    assert joe.get(f"/rollouts/{number}/routers").body["routers"][0]["reason"] == "confirmed beforehand at the device"
    assert device.ask("PUT", "/configData", {"data": {"product": "router"}}).status == 200
    assert device.install()
    assert answer(another, another_action(another), "confirmed")
    assert another.install()

    second = begin(joe, put_file(joe.server, "9.0"), plan=ALL, confirm=True)
    assert counts(joe, second) == {"unconfirmed": 1, "waiting": 1}
    assert device.ask("POST", "/confirmationBase/deactivateAutoConfirm").status == 200
    third = begin(joe, put_file(joe.server, "10.0"), plan=ALL, confirm=True)
    assert counts(joe, third) == {"unconfirmed": 2}


def another_action(device: Device) -> int:
    return int(device.links()["confirmationBase"].rpartition("/")[2])
