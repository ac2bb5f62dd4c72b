"""Groups and roll-outs as people and devices see them, on SQLite and on PostgreSQL."""

import hashlib
from typing import Any

import pytest

from tests.registry.conftest import AMPLE, Person, register
from tests.registry.fleets import FLEET, Device, counts, make_devices, put_files
from tests.server.conftest import Start

BUNDLE = bytes(range(256)) * 100


@pytest.fixture
def joe(start: Start, store: dict[str, object]) -> Person:
    return register(start("--no-worker", **store, **AMPLE, **FLEET), "joejoejoe")


def begin(person: Person, release: str, group: str = "", **wish: Any) -> int:
    found = person.post("/rollouts", {"release": release, "group": group, **wish})
    assert found.status == 201, found.data
    return int(found.body["id"])


def test_a_release_goes_from_step_to_step(joe: Person) -> None:
    devices = make_devices(joe, 10, "field")
    outside = Device(joe.server, joe.name, "outside")
    assert joe.post("/routers", {"name": outside.name}).status == 201
    release = put_files(joe.server, "firmware", "8.0", firmware__raucb=BUNDLE)
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
    assert artifact["filename"] == "firmware.raucb"
    assert artifact["size"] == len(BUNDLE)
    assert artifact["hashes"] == {name: hashlib.new(name, BUNDLE).hexdigest() for name in ("sha1", "md5", "sha256")}
    links = artifact["_links"]
    assert links["download"] == links["download-http"]
    whole = first.ask("GET", links["download"]["href"])
    assert (whole.status, whole.data) == (200, BUNDLE)
    part = first.ask("GET", links["download"]["href"], Range="bytes=100-", **{"If-Range": whole.headers["ETag"]})
    assert (part.status, part.data) == (206, BUNDLE[100:])
    changed = first.ask("GET", links["download"]["href"], Range="bytes=100-", **{"If-Range": '"another"'})
    assert (changed.status, changed.data) == (200, BUNDLE)
    assert first.ask("GET", links["md5sum"]["href"]).data.decode() == (
        f"{hashlib.md5(BUNDLE).hexdigest()}  firmware.raucb\n")
    assert [one["filename"] for one in first.ask("GET", links["download"]["href"].rpartition("/")[0]).body] == [
        "firmware.raucb"]
    assert outside.ask("GET", links["download"]["href"].replace(first.name, outside.name)).status == 404

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
    installed = devices[0].ask("GET", devices[0].links()["installedBase"]).body["deployment"]
    assert installed["chunks"][0]["version"] == "8.0"
    routers = {one["pdid"]: one for one in joe.get("/fleet?group=field").body["routers"]}
    assert len(routers) == 10
    one = routers[f"pd.joejoejoe.{first.name}"]
    assert (one["action"]["state"], one["action"]["reason"], one["action"]["version"]) == (
        "done", "updated to 8.0", "8.0")
