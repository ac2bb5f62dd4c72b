"""A router with a release of its own is led by the fleet's server: fussy-update and the server, both real."""

from pathlib import Path

import pytest

from fussy.updating import actions
from tests.fussy.channels import Channel
from tests.fussy.conftest import Keys, keys
from tests.fussy.update.router import Router
from tests.registry.conftest import AMPLE, Person, register
from tests.registry.devices import Device, secret_for
from tests.server.conftest import Start

__all__ = ["keys"]

pytestmark = pytest.mark.slow

FAILS = "#!/bin/sh\n[ \"$2\" = True ]\n"


def roll_out(person: Person, number: int, **wish: object) -> int:
    found = person.post("/rollouts", {"release": f"channel/router/firmware-{number}", **wish})
    assert found.status == 201, found.data
    return int(found.body["id"])


def standing(person: Person) -> tuple[str, str, str]:
    """Return what the server knows of the router's last action: state, version, reason."""
    action = person.get("/fleet").body["routers"][0]["action"]
    return action["state"], action["version"], action["reason"]


def test_a_router_is_led_by_roll_outs(start: Start, tmp_path: Path, keys: Keys) -> None:
    channel = Channel(tmp_path, keys)
    channel.init()
    channel.add(1)
    channel.add(2)
    channel.add(3, files={"etc/version": "3", ".post-install": FAILS})
    server = start("--no-worker", channel_directory=str(channel.where.channel), **AMPLE)
    joe = register(server, "joejoejoe")
    given = Device().provision(server, secret_for(joe, "aardvark"))
    assert given.status == 200, given.data
    table = {**given.body["hawkbit"], "url": server.url}
    (tmp_path / "none").touch()
    router = Router(tmp_path, keys, tmp_path / "none", product="", hawkbit=table)
    assert router.update(expect="nothing-new").source == f"{server.url}/joejoejoe/controller/v1/aardvark"

    roll_out(joe, 1)
    router.update(expect="updated")
    assert standing(joe) == ("done", "1.0", "firmware-1 (version 1.0) is in use")

    router.run("--reason", "the show is on", verb="hold")
    for state, wish in (("unconfirmed", {"confirm": True}), ("held", {})):
        roll_out(joe, 2, **wish)
        for _ in range(2):
            router.update(expect="held")
            assert standing(joe) == (
                state, "2.0", "held: firmware-2 (version 2.0) waits: the owner holds updates (the show is on)")
    router.run("--release", verb="hold")
    assert "by a delta bundle" in router.update(expect="updated").line
    assert (router.current(), standing(joe)[:2]) == ("firmware-2", ("done", "2.0"))

    number = roll_out(joe, 3, confirm=True)
    router.update(expect="reverted")
    assert joe.get(f"/rollouts/{number}/routers").body["routers"][0]["messages"][0] == \
        "firmware-3 (version 3.0) may be installed on this router"
    state, _, reason = standing(joe)
    assert (state, router.current()) == ("failed", "firmware-2")
    assert reason.startswith("firmware-3 (version 3.0) failed here: cannot finish ")
    joe.post(f"/rollouts/{number}/cancel")

    roll_out(joe, 2)
    server.kill()
    assert router.update(expect="unreachable").exit_code == 50
    server.start("--no-worker", "--listen", server.url.removeprefix("http://"))
    router.update(expect="nothing-new")
    assert standing(joe) == ("done", "2.0", "firmware-2 (version 2.0) is in use already")
    assert actions.load(router.private, router.record.source).unsent == []


def test_a_channel_that_is_damaged(start: Start, tmp_path: Path, keys: Keys) -> None:
    channel = Channel(tmp_path, keys)
    channel.init()
    channel.add(1)
    server = start("--no-worker", channel_directory=str(channel.where.channel), **AMPLE)
    joe = register(server, "joejoejoe")
    assert [one["id"] for one in joe.get("/releases").body["releases"]] == ["channel/router/firmware-1"]
    bundle, = channel.where.channel.glob("targets/router/*.gpg")
    bundle.rename(tmp_path / "elsewhere")
    refused = joe.post("/rollouts", {"release": "channel/router/firmware-1"})
    assert (refused.status, refused.body["error"]) == (
        409, f"the file {bundle.name.partition('.')[2]} of this release can't be read: No such file or directory")
    for file in channel.where.channel.glob("metadata/*timestamp.json"):
        file.write_text("{}")
    for refused in (joe.get("/releases"), joe.post("/rollouts", {"release": "channel/router/firmware-1"})):
        assert refused.status == 503
        assert refused.body["error"].startswith("the channel of this server can't be read: cannot ")
    assert joe.get("/rollouts").body == {"rollouts": []}
