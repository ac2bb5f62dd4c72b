"""A firmware release goes to a group of routers and is stopped by its threshold: real updaters, server and command.

Each router is a target of its own with its own keyring, provisioned by a secret of its own; the server is killed in the
middle of it.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fussy.channels import Channel
from tests.fussy.conftest import Keys, keys
from tests.fussy.update.router import Router
from tests.registry.conftest import AMPLE, Person, register
from tests.registry.devices import Device, secret_for
from tests.registry.fleets import counts, paradrop
from tests.server.conftest import Start
from tests.server.serverprocess import wait_until

__all__ = ["keys"]

pytestmark = pytest.mark.slow

# Good unless the router has a broken radio: a file beside its target says so.
CHECKS = '#!/bin/sh\n[ "$2" = True ] || [ ! -e "$1/../../broken" ]\n'
NAMES = ["ant", "bee", "cat", "dog", "elk"]


def update_all(routers: dict[str, Router]) -> None:
    """Have cron run on all of them at the same time."""
    running = [router.popen() for router in routers.values()]
    for process in running:
        process.communicate(timeout=120)


def states(joe: Person, number: int) -> dict[str, str]:
    found = json.loads(paradrop(joe, "rollout", "show", str(number), "--routers", "--json"))["routers"]
    return {one["pdid"].rpartition(".")[2]: one["state"] for one in found}


def test_a_release_is_stopped_when_too_many_fall_back(start: Start, tmp_path: Path, keys: Keys) -> None:
    channel = Channel(tmp_path, keys)
    channel.init()
    channel.add(1)
    channel.add(2, files={"etc/version": "2", ".post-install": CHECKS})
    server = start("--no-worker", channel_directory=str(channel.where.channel), **AMPLE)
    joe = register(server, "joejoejoe")
    (tmp_path / "none").touch()
    routers: dict[str, Router] = {}
    assert paradrop(joe, "group", "make", "field") == "joejoejoe.field has 0 routers\n"
    for name in NAMES:
        given: Any = Device().provision(server, secret_for(joe, name)).body
        routers[name] = Router(tmp_path, keys, tmp_path / "none", name=name, product="",
                               hawkbit={**given["hawkbit"], "url": server.url})
    paradrop(joe, "group", "add", "field", *NAMES)
    assert paradrop(joe, "releases").splitlines()[1].split()[:2] == ["channel/router/firmware-2", "2.0"]

    # the first release reaches all, though the server dies on the way
    begun = paradrop(joe, "rollout", "start", "channel/router/firmware-1", "--group", "field", "--steps", "20,100")
    assert begun.splitlines()[:3] == [
        "roll-out 1: firmware-1 1.0 to group joejoejoe.field", "running",
        "step 1 of 2 (20, 100 %); routers: 1 waiting"]
    update_all(routers)
    assert states(joe, 1)
    running = [router.popen() for router in routers.values()]
    wait_until(lambda: counts(joe, 1).get("done", 0) >= 2)
    server.kill()
    for process in running:
        process.communicate(timeout=120)
    server.start("--no-worker", "--listen", server.url.removeprefix("http://"))
    update_all(routers)
    update_all(routers)
    assert {router.current() for router in routers.values()} == {"firmware-1"}
    assert counts(joe, 1) == {"done": 5}
    assert "finished" in paradrop(joe, "rollout", "wait", "1")

    # the second one is bad for most
    begun = paradrop(joe, "rollout", "start", "channel/router/firmware-2", "-g", "field", "--steps", "60,100", "--json")
    assert json.loads(begun)["id"] == 2
    reached = sorted(states(joe, 2))
    assert len(reached) == 3
    owner = reached[0]
    routers[owner].run("--reason", "the show is on", verb="hold")
    for name in reached[1:]:
        (routers[name].place / "broken").touch()
    update_all(routers)
    assert states(joe, 2) == {owner: "cancelling", **dict.fromkeys(reached[1:], "failed")}
    said = paradrop(joe, "rollout", "wait", "2", code=1)
    assert said.splitlines()[1] == (
        "stopped: 2 of the 2 routers of step 1 that are through failed, which is more than 20 %; "
        "asked to let go: 1")
    routers[owner].run("--release", verb="hold")
    update_all(routers)
    assert states(joe, 2) == {owner: "cancelled", **dict.fromkeys(reached[1:], "failed")}
    assert {router.current() for router in routers.values()} == {"firmware-1"}
    table = paradrop(joe, "status", "field").splitlines()
    assert table[0].split() == ["ROUTER", "GROUP", "AWAKE", "LAST", "THERE", "RUNS", "LAST", "UPDATE"]
    assert [line.split()[0] for line in table[1:]] == [f"pd.joejoejoe.{name}" for name in NAMES]
    failed = next(line for line in table if line.startswith(f"pd.joejoejoe.{reached[1]} "))
    assert "firmware-1 1.0" in failed
    assert "failed: firmware-2 (version 2.0) failed here" in failed
