"""Groups and roll-outs as people and devices see them, on SQLite and on PostgreSQL."""

import hashlib
import itertools
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from tests.registry.conftest import AMPLE, Person, administrator, register
from tests.registry.devices import Device as Machine
from tests.registry.devices import secret_for
from tests.registry.fleets import Device, begin, counts, make_devices, paradrop, put_file
from tests.server.conftest import Start
from tests.server.serverprocess import Server, wait_until

_number = itertools.count(1)
BUNDLE = bytes(range(256)) * 100


@pytest.fixture
def joe(roomy: Server) -> Person:
    return register(roomy, f"joe{next(_number):05}")


@pytest.fixture
def release(joe: Person) -> str:
    return put_file(joe.server, "8.0", BUNDLE)


def test_a_release_goes_from_step_to_step(joe: Person, release: str) -> None:
    devices = make_devices(joe, 10, "field")
    outside = make_devices(joe, 1, start=10)[0]
    number = begin(joe, release, "field", plan={"steps": [20, 50, 100]})
    asked = [device for device in devices if "deploymentBase" in device.links()]
    assert len(asked) == 2
    first = asked[0]
    deployment = first.fetch()
    assert deployment
    assert (deployment["download"], deployment["update"], "maintenanceWindow" in deployment) == (
        "forced", "forced", False)
    chunk = deployment["chunks"][0]
    assert (chunk["part"], chunk["name"], chunk["version"]) == ("os", "firmware", "8.0")
    artifact = chunk["artifacts"][0]
    assert (artifact["filename"], artifact["size"]) == ("firmware.raucb", len(BUNDLE))
    assert artifact["hashes"] == {name: hashlib.new(name, BUNDLE).hexdigest() for name in ("sha1", "md5", "sha256")}
    assert artifact["_links"]["download"] == artifact["_links"]["download-http"]
    assert outside.ask("GET", artifact["_links"]["download"]["href"].replace(first.name, outside.name)).status == 404

    assert first.say("download", "none", "downloading") == 200
    assert counts(joe, number) == {"running": 1, "waiting": 1}
    assert first.say("closed", "success", "updated to 8.0") == 200
    # half of the first step succeeded, so the second one reaches three more
    asked = [device for device in devices if "deploymentBase" in device.links()]
    assert len(asked) == 4
    assert all(device.install() for device in asked)
    assert sum(device.install() for device in devices) == 5
    assert counts(joe, number) == {"done": 10}
    shown = joe.get(f"/rollouts/{number}").body
    assert (shown["state"], shown["step"], [one["done"] for one in shown["by_step"]]) == ("finished", 2, [2, 3, 5])
    assert "deploymentBase" not in outside.links()
    installed = first.ask("GET", first.links()["installedBase"]).body["deployment"]
    assert installed["chunks"][0]["version"] == "8.0"
    routers = {one["name"]: one for one in joe.get("/fleet?group=field").body["routers"]}
    assert len(routers) == 10
    action = routers[first.name]["action"]
    assert (action["state"], action["reason"], action["version"]) == ("done", "updated to 8.0", "8.0")


def test_files_come_in_parts(joe: Person, release: str) -> None:
    device = make_devices(joe, 1)[0]
    begin(joe, release)
    deployment = device.fetch()
    assert deployment
    links = {name: link["href"] for name, link in deployment["chunks"][0]["artifacts"][0]["_links"].items()}
    whole = device.ask("GET", links["download"])
    assert (whole.status, whole.data) == (200, BUNDLE)
    for tag, status, data in ((whole.headers["ETag"], 206, BUNDLE[100:]), ('"another"', 200, BUNDLE)):
        part = device.ask("GET", links["download"], Range="bytes=100-", **{"If-Range": tag})
        assert (part.status, part.data) == (status, data)
    assert device.ask("GET", links["md5sum"]).data.decode() == f"{hashlib.md5(BUNDLE).hexdigest()}  firmware.raucb\n"
    listed = device.ask("GET", links["download"].rpartition("/")[0]).body
    assert [one["filename"] for one in listed] == ["firmware.raucb"]
    assert joe.server.get(links["download"]).status == 401
    shutil.rmtree(joe.server.data / "rollout-files/firmware/8.0")
    gone = device.ask("GET", links["download"])
    assert (gone.status, gone.body["error"]) == (404, "this file is gone from the server")


def test_it_stops_when_too_many_fail(joe: Person, release: str) -> None:
    devices = make_devices(joe, 10)
    number = begin(joe, release, plan={"steps": [60, 100], "failures": 20, "least": 2})
    reached = [device for device in devices if device.fetch()]
    assert len(reached) == 6
    assert reached[0].say("closed", "failure", "reverted: the radio is dead") == 200
    assert joe.get(f"/rollouts/{number}").body["state"] == "running"
    assert reached[1].say("closed", "failure", "reverted: the radio is dead") == 200
    stopped = joe.get(f"/rollouts/{number}").body
    assert (stopped["state"], stopped["reason"]) == (
        "stopped", "2 of the 2 routers of step 1 that are through failed, which is more than 20 %; asked to let go: 4")
    assert counts(joe, number) == {"failed": 2, "cancelling": 4}
    assert not any(device.install() for device in devices)
    # one lets go, for one it is too late, and one says how it ended without a look at the server
    assert set(reached[2].links()) == {"configData", "cancelAction"}
    assert reached[2].ask("GET", reached[2].links()["cancelAction"]).body == {
        "id": str(reached[2].action), "cancelAction": {"stopId": str(reached[2].action)}}
    assert reached[2].say("closed", "success", to="cancelAction") == 200
    assert reached[3].say("rejected", to="cancelAction") == 200
    assert reached[3].say("closed", "success", "updated") == 200
    assert reached[4].say("closed", "success", "updated") == 200
    assert counts(joe, number) == {"failed": 2, "cancelling": 1, "cancelled": 1, "done": 2}
    assert [entry["text"] for entry in joe.get("/audit").body["entries"] if entry["action"] == "rollout.stop"] == [
        stopped["reason"]]
    for verb in ("resume", "pause", "approve", "cancel"):
        assert joe.post(f"/rollouts/{number}/{verb}").status in (404, 409)


def test_pause_resume_and_cancel(joe: Person, release: str) -> None:
    devices = make_devices(joe, 4)
    number = begin(joe, release, plan={"steps": [100]})
    assert devices[0].fetch()
    assert joe.post(f"/rollouts/{number}/pause").body["state"] == "paused"
    assert devices[0].fetch()  # it is at it
    assert devices[1].fetch() is None
    assert devices[0].say("closed", "success") == 200
    assert joe.post(f"/rollouts/{number}/pause").status == 409
    assert joe.post(f"/rollouts/{number}/resume").body["state"] == "running"
    assert devices[1].fetch()
    cancelled = joe.post(f"/rollouts/{number}/cancel").body
    assert (cancelled["state"], cancelled["reason"]) == (
        "cancelled", f"by {joe.name}; not begun: 2, asked to let go: 1")
    assert counts(joe, number) == {"done": 1, "cancelling": 1, "cancelled": 2}
    assert devices[2].fetch() is None
    assert devices[1].say("canceled", to="cancelAction") == 200
    assert counts(joe, number) == {"done": 1, "cancelled": 3}
    assert sorted(router["reason"] for router in joe.get(f"/rollouts/{number}/routers").body["routers"]) == [
        "", "it let go", "the roll-out was cancelled", "the roll-out was cancelled"]


def test_routers_that_never_let_go_are_not_waited_for(joe: Person, release: str) -> None:
    devices = make_devices(joe, 4)
    number = begin(joe, release, plan={"steps": [100]})
    assert all(device.fetch() for device in devices)
    refused = joe.post(f"/rollouts/{number}/quit", {})
    assert (refused.status, refused.body["error"]) == (
        409, "nothing there waits for a device to let go; cancel the roll-out first")
    joe.post(f"/rollouts/{number}/cancel")
    assert counts(joe, number) == {"cancelling": 4}
    assert joe.post(f"/rollouts/{number}/quit", {"routers": ["R000", f"pd.{joe.name}.r001"]}).status == 200
    assert counts(joe, number) == {"cancelling": 2, "cancelled": 2}
    for name in ("r000", "../x", ""):
        assert joe.post(f"/rollouts/{number}/quit", {"routers": [name]}).status == 409, name
    gone = joe.get(f"/rollouts/{number}/routers").body["routers"][0]
    assert (gone["state"], gone["reason"]) == ("cancelled", f"{joe.name} did not wait for its word")
    assert "cancelAction" not in devices[0].links()
    assert devices[0].say("closed", "success", to="cancelAction") == 200, "it lets go after all, as is written already"
    assert devices[0].say("closed", "success", "updated") == 410
    assert devices[2].say("closed", "success", to="cancelAction") == 200
    assert "routers: 4 cancelled" in paradrop(joe, "rollout", "quit", str(number))
    noted = [entry["text"] for entry in joe.get("/audit").body["entries"] if entry["action"] == "rollout.quit"]
    assert noted == [f"pd.{joe.name}.r003", f"pd.{joe.name}.r000, pd.{joe.name}.r001"]


def test_the_owner_of_a_router_decides(joe: Person, release: str) -> None:
    devices = make_devices(joe, 4, "field")
    number = begin(joe, release, "field", plan={"steps": [100], "failures": 0, "least": 1})
    for device, (execution, line) in zip(devices, (
            ("proceeding", "held: firmware waits: the owner holds updates (the show is on)"),
            ("rejected", "not while somebody watches television"), ("proceeding", "half of it is here"),
            ("scheduled", "at night")), strict=True):
        assert device.fetch()
        assert device.say(execution, "none", line) == 200
    assert counts(joe, number) == {"held": 3, "running": 1}
    action = joe.get("/fleet?group=field").body["routers"][0]["action"]
    assert (action["state"], action["reason"]) == (
        "held", "held: firmware waits: the owner holds updates (the show is on)")
    assert devices[0].fetch()  # it may ask as often as it wants, and stays held
    assert devices[0].say("proceeding", "none", "held: still") == 200
    assert devices[2].install()
    assert joe.get(f"/rollouts/{number}").body["state"] == "running"
    # a newer release does not wait for those who never began the old one
    newer = begin(joe, put_file(joe.server, "9.0"), "field", plan={"steps": [100]})
    assert counts(joe, number) == {"done": 1, "cancelled": 3}
    assert joe.get(f"/rollouts/{number}/routers").body["routers"][0]["reason"] == f"roll-out {newer} came after it"
    assert devices[0].say("closed", "success") == 410
    assert all(device.install() for device in devices)
    assert joe.get(f"/rollouts/{newer}").body["state"] == "finished"


def test_routers_that_come_later(joe: Person, release: str) -> None:
    first = make_devices(joe, 1, "field")[0]
    number = begin(joe, release, "field", plan={"steps": [50, 100]})
    assert first.install()
    assert joe.get(f"/rollouts/{number}").body["state"] == "finished"
    late = make_devices(joe, 1, "field", start=1)[0]
    wait_until(late.install)
    wait_until(lambda: joe.get(f"/rollouts/{number}").body["state"] == "finished")
    assert counts(joe, number) == {"done": 2}
    gone = make_devices(joe, 1, "field", start=2)[0]
    wait_until(lambda: "deploymentBase" in gone.links())
    assert joe.ask("DELETE", f"/routers/{gone.name}").status == 204
    wait_until(lambda: counts(joe, number) == {"done": 2, "cancelled": 1})
    assert gone.ask("GET").status == 401


def test_a_device_that_takes_the_place_of_a_router_gets_the_release_too(joe: Person, release: str) -> None:
    assert joe.ask("PUT", "/groups/field", {}).status == 200
    old, new = Machine(), Machine()
    first = provisioned(joe, old)
    assert joe.ask("PUT", "/groups/field/routers/aardvark").status == 204
    number = begin(joe, release, "field", plan={"steps": [100]})
    assert first.ask("PUT", "/configData", {"data": {"hw": "1"}}).status == 200
    assert first.install()
    wait_until(lambda: joe.get(f"/rollouts/{number}").body["state"] == "finished")
    again = provisioned(joe, old)
    assert again.fetch() is None, "it is the same device, with new keys"
    second = provisioned(joe, new)
    wait_until(second.install)
    assert (counts(joe, number), joe.get("/fleet").body["routers"][0]["attributes"]) == ({"done": 1}, {})
    wait_until(lambda: joe.get(f"/rollouts/{number}").body["state"] == "finished")
    assert joe.ask("DELETE", "/routers/aardvark").status == 204
    assert joe.post("/routers", {"name": "Aardvark"}).status == 201
    assert joe.ask("PUT", "/groups/field/routers/aardvark").status == 204
    wait_until(Device(joe.server, joe.name, "aardvark").install)


def provisioned(person: Person, machine: Machine) -> Device:
    """Make a machine the router aardvark, again if it is one; return it as a device with a token of its own."""
    found = machine.provision(person.server, secret_for(person, "aardvark"), again=True)
    assert found.status == 200, found.data
    return Device(person.server, person.name, "aardvark", f"TargetToken {found.body['hawkbit']['token']}")


def test_a_maintenance_window_is_told_to_devices(joe: Person, release: str) -> None:
    device = make_devices(joe, 1)[0]
    now = datetime.now(UTC)
    times = [f"{now + timedelta(hours=hours):%H:%M}" for hours in (-2, 2, 4)]
    for window, update, told in ((f"{times[0]}-{times[1]}", "attempt", "available"),
                                 (f"{times[1]}-{times[2]}", "skip", "unavailable")):
        number = begin(joe, release, window=window, zone="Etc/UTC", forced=False)
        deployment = device.fetch()
        assert deployment
        assert (deployment["download"], deployment["update"], deployment["maintenanceWindow"]) == (
            "attempt", update, told)
        assert joe.post(f"/rollouts/{number}/cancel").status == 200


def test_a_second_person_approves(joe: Person, release: str) -> None:
    device = make_devices(joe, 1)[0]
    number = begin(joe, release, approval=True)
    assert joe.get(f"/rollouts/{number}").body["state"] == "proposed"
    assert device.fetch() is None
    own = joe.post(f"/rollouts/{number}/approve")
    assert (own.status, own.body["error"]) == (409, "who made a roll-out can't approve it; ask a second person")
    other = register(joe.server, f"ann{joe.name[3:]}")
    assert other.post(f"/rollouts/{number}/approve").status == 404
    assert other.get(f"/rollouts/{number}").status == 404
    assert other.get("/rollouts").body == {"rollouts": []}
    approved = administrator(joe.server)
    found = approved.post(f"/rollouts/{number}/approve").body
    assert (found["state"], found["made_by"], found["approved_by"]) == ("running", joe.name, approved.name)
    assert device.install()


def test_devices_say_it_twice_too_late_or_for_others(joe: Person, release: str) -> None:
    device, other = make_devices(joe, 2)
    begin(joe, release, plan={"steps": [100]})
    assert device.fetch()
    assert [device.say("closed", "success", "done") for _ in range(2)] == [200, 200]
    assert device.say("closed", "failure", "after all") == 410
    assert device.say("proceeding") == 410
    other.action = device.action
    assert other.say("closed", "failure") == 404
    assert other.ask("GET", f"/deploymentBase/{device.action}").status == 404
    assert other.ask("GET", f"/installedBase/{device.action}").status == 404
    assert other.ask("GET", f"/cancelAction/{device.action}").status == 404
    for token in ("", "TargetToken x", "GatewayToken x", "Bearer x", f"Bearer {joe.token}", "GatewayToken"):
        assert Device(joe.server, joe.name, device.name, token).ask("GET").status == 401
    assert Device(joe.server, joe.name, "nobody").ask("GET").status == 401
    assert Device(joe.server, joe.name.upper(), device.name.upper()).ask("GET").status == 200


def test_attributes_of_devices(joe: Person) -> None:
    device = make_devices(joe, 1)[0]
    assert set(device.links()) == {"configData"}
    for body, kept in (({"data": {"hw": "2", "version": "7.0"}}, {"hw": "2", "version": "7.0"}),
                       ({"mode": "merge", "data": {"hw": "3"}}, {"hw": "3", "version": "7.0"}),
                       ({"mode": "remove", "data": {"hw": ""}}, {"version": "7.0"}),
                       ({"mode": "replace", "data": {"release": "firmware-7", "version": "7.1"}},
                        {"release": "firmware-7", "version": "7.1"})):
        assert device.ask("PUT", "/configData", body).status == 200
        assert joe.get("/fleet").body["routers"][0]["attributes"] == kept
    assert device.links() == {}
    begin(joe, put_file(joe.server, "8.0"))
    assert device.install()
    assert set(device.links()) == {"configData", "installedBase"}  # it may be another one now
    wait_until(lambda: joe.get("/fleet").body["routers"][0]["seen"])
    standing = joe.get("/fleet").body["routers"][0]
    assert (standing["release"], standing["version"], standing["awake"]) == ("firmware-7", "7.1", False)


def test_devices_that_mean_harm(joe: Person, release: str) -> None:
    device = make_devices(joe, 1)[0]
    begin(joe, release)
    assert device.fetch()
    good = {"status": {"execution": "proceeding", "result": {"finished": "none"}}}
    status = good["status"]
    for body in (None, [], {}, {"status": None}, {"status": {**status, "execution": "x"}},
                 {"status": {**status, "details": "x"}}, {"status": {**status, "details": [1]}},
                 {"status": {**status, "details": ["x" * 5000]}}, {"status": {**status, "details": ["x"] * 300}},
                 {"status": {**status, "result": {"finished": "x"}}}, {"status": {**status, "result": {}}}):
        assert device.ask("POST", f"/deploymentBase/{device.action}/feedback", body).status == 400, body
    for data in (None, {"a": 1}, {"a" * 200: ""}, {"a": "x" * 600}, {str(n): "" for n in range(65)}):
        assert device.ask("PUT", "/configData", {"data": data}).status == 400, data
    for path in ("/deploymentBase/x", "/deploymentBase/0", f"/deploymentBase/{'9' * 30}", "/cancelAction/-1",
                 "/softwaremodules/1/artifacts/..%2fserver.db", "/softwaremodules/x/artifacts", "/installedBase/%00"):
        assert device.ask("GET", path).status in (400, 404), path
    assert device.say("proceeding", "none", *[f"line {n}\x1b[31m\0 " for n in range(30)]) == 200
    assert device.ask("POST", f"/deploymentBase/{device.action}/feedback", {"status": {**status, "details": None}},
                      ).status == 200
    document = device.ask("GET", f"/deploymentBase/{device.action}").body
    assert document["actionHistory"]["messages"] == [f"line {n} [31m" for n in range(10, 30)]
    device.ask("POST", f"/deploymentBase/{device.action}/feedback", good)


def test_people_who_know_no_better(joe: Person, release: str) -> None:
    assert joe.ask("PUT", "/groups/field", {}).body["routers"] == 0
    for wish, status in (({"release": "x"}, 404), ({"release": "files/../x"}, 404), ({"release": "files/a/.."}, 404),
                         ({"release": "channel/router/firmware-8"}, 404), ({"release": f"image/{'0' * 64}"}, 404),
                         ({"release": release, "group": "none"}, 404), ({"release": release, "group": "x.y"}, 404),
                         ({"release": release, "account": "nobodythere"}, 404), ({}, 400),
                         ({"release": release, "group": "field", "account": joe.name}, 400),
                         ({"release": release, "plan": {"steps": [50, 10]}}, 400),
                         ({"release": release, "plan": {"steps": [0, 100]}}, 400),
                         ({"release": release, "plan": {"least": 0}}, 400), ({"release": release, "window": "x"}, 400),
                         ({"release": release, "zone": "../etc"}, 400), ({"release": release, "more": 1}, 400)):
        found = joe.post("/rollouts", wish)
        assert (found.status, bool(found.body["error"])) == (status, True), wish
    assert joe.get("/rollouts").body == {"rollouts": []}
    ann, boss = register(joe.server, f"ann{joe.name[3:]}"), administrator(joe.server)
    make_devices(ann, 1)
    foreign = boss.ask("PUT", f"/groups/{joe.name}.field/routers/pd.{ann.name}.r000")
    assert (foreign.status, foreign.body["error"]) == (
        409, f"pd.{ann.name}.r000 is no router of {joe.name}; a group has routers of one account")
    make_devices(joe, 1)
    assert paradrop(joe, "group", "add", "field", "r000", "nobody", "r001", code=1) == (
        "r000: now in field\n"
        "paradrop fleet group add: there is no router 'nobody', or it is not yours; see: paradrop list\n")
    (joe.server.data / "rollout-files/firmware/7.0").mkdir(parents=True, exist_ok=True)
    empty = joe.post("/rollouts", {"release": "files/firmware/7.0"})
    assert (empty.status, empty.body["error"]) == (409, "this release has no file that a router could install")
    assert joe.ask("PUT", "/groups/-x", {}).status == 400
    assert joe.ask("PUT", "/groups/field", {"note": "a\0b"}).status == 400
    assert joe.ask("PUT", "/groups/field/routers/nobody").status == 404
    assert joe.get("/groups").body["groups"][0]["note"] == ""
    number = begin(joe, release, "field", approval=True)
    assert joe.ask("DELETE", "/groups/field").body["error"] == (
        f"roll-out {number} to this group goes on; cancel it first")
    assert joe.post(f"/rollouts/{number}/cancel").status == 200
    assert joe.ask("DELETE", "/groups/FIELD").status == 204
    for path in ("/rollouts/0", "/rollouts/x", f"/rollouts/{'9' * 20}", "/rollouts/%00"):
        assert joe.get(path).status in (400, 404), path


@pytest.mark.slow
def test_images_of_the_build_server(start: Start, store: dict[str, object]) -> None:
    server = start(**AMPLE, **store)
    built = server.build(packages=["motd"]).body
    joe = register(server, "joejoejoe")
    device = make_devices(joe, 1)[0]
    begin(joe, f"image/{built['request_hash']}")
    deployment = device.fetch()
    assert deployment
    artifact = deployment["chunks"][0]["artifacts"][0]
    assert (deployment["chunks"][0]["version"], artifact["hashes"]["sha256"], artifact["size"]) == (
        "1.1", built["sha256"], built["size"])
    link = artifact["_links"]["download"]["href"]
    whole = device.ask("GET", link)
    assert hashlib.sha256(whole.data).hexdigest() == built["sha256"]
    part = device.ask("GET", link, Range="bytes=10-", **{"If-Range": whole.headers["ETag"]})
    assert (part.status, part.data) == (206, whole.data[10:])
