"""Every pipeline is failed after each of its plans, and in its abort, and killed there: nothing is half done."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine import Router

from paradrop.backend.exc import executionplan
from paradrop.backend.exc.plangraph import Call, PlanMap
from paradrop.backend.fc import chutestorage, updateObject
from paradrop.lib import settings
from paradrop.lib.utils import dockerclient

pytestmark = [pytest.mark.docker, pytest.mark.slow]

FIRST = {
    "name": "wired", "version": 1, "dockerfile": 'FROM busybox\nENV BUILD=1\nCMD ["sleep", "1000"]\n',
    "net": {"lan": {"type": "lan", "intfName": "port0", "dhcp": {"lease": "12h", "start": 100, "limit": 50}}},
    "host_config": {"port_bindings": {80: 9001}, "dns": ["192.0.2.53"]}, "environment": {"MODE": "one"},
    "firewall": [{"type": "redirect", "name": "web", "from": "@host.lan:8080", "to": "lan:80"}],
}
SECOND = {**FIRST, "version": 2, "dockerfile": 'FROM busybox\nENV BUILD=2\nCMD ["sleep", "2000"]\n',
          "host_config": {"port_bindings": {81: 9001}}, "environment": {"MODE": "two"}}

# For each type of update: what goes before it, and what it is given
PIPELINES: dict[str, tuple[list[tuple[str, dict[str, Any]]], dict[str, Any]]] = {
    "create": ([], FIRST),
    "update": ([("create", FIRST)], SECOND),
    "rollback": ([("create", FIRST), ("update", SECOND)], {"name": "wired"}),
    "restart": ([("create", FIRST)], {"name": "wired", "environment": {"MODE": "other"}}),
    "stop": ([("create", FIRST)], {"name": "wired"}),
    "start": ([("create", FIRST), ("stop", {"name": "wired"})], {"name": "wired"}),
    "delete": ([("create", FIRST)], {"name": "wired"}),
}

# For this one, plans without an undo are failed too
THOROUGH = ("create",)


class Breaker:
    """Does something after the plan of a number was done, or in its stead. ``reached``: the plan was come to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, what: Callable[[], None], at: int, instead: bool) -> None:
        self.name = ""
        self.reached = False
        original = PlanMap.getNextTodo

        def next_todo(plans: PlanMap) -> Call | None:
            todo = original(plans)
            if todo is None or plans._next != at:
                return todo
            func, args = todo
            self.name, self.reached = getattr(func, "__name__", str(func)), True

            def broken(update: Any, *args: Any) -> None:
                if not instead:
                    func(update, *args)
                what()

            return broken, args

        monkeypatch.setattr(PlanMap, "getNextTodo", next_todo)


def prepare(router: Router, kind: str) -> dict[str, Any]:
    before, values = PIPELINES[kind]
    for earlier, given in before:
        router.do(earlier, **given)
    Path(settings.EXTERNAL_DATA_DIR.format(chute="wired")).mkdir(parents=True, exist_ok=True)
    if before:
        (Path(settings.EXTERNAL_DATA_DIR.format(chute="wired")) / "kept").write_text("precious")
    else:
        Path(settings.EXTERNAL_DATA_DIR.format(chute="wired")).rmdir()
    return values


def plans_of(kind: str, values: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Return the numbers of all plans, and of those with an undo and the last: the others only look and decide."""
    update = updateObject.parse({"updateClass": "CHUTE", "updateType": kind, **values})
    assert not executionplan.generatePlans(update)
    steps = executionplan.aggregatePlans(update)._steps
    assert len(steps) > 15
    everything = list(range(1, len(steps) + 1))
    return everything, [number for number in everything if steps[number - 1].aborts or number == len(steps)]


def fail() -> None:
    raise RuntimeError("injected")


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {part: (before[part], after[part]) for part in before if before[part] != after[part]}


@pytest.mark.parametrize("kind", PIPELINES)
def test_a_failure_at_any_plan_leaves_the_router_as_it_was(router: Router, kind: str) -> None:
    settings.CHUTE_SETTLE_TIME = 0  # type: ignore[attr-defined]
    values = prepare(router, kind)
    before = router.state()

    def broken(at: int, instead: bool) -> None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            breaker = Breaker(monkeypatch, fail, at, instead)
            result = router.update(kind, **values)
        assert breaker.reached
        assert not result["success"], (at, breaker.name)
        assert result["message"].startswith("The update failed because"), (at, breaker.name, result)
        assert not differences(before, router.state()), (at, breaker.name)

    everything, undoable = plans_of(kind, values)
    broken(1, instead=True)
    for number in (everything if kind in THOROUGH else undoable)[:-1]:  # after the last one nothing could fail
        broken(number, instead=False)
    for number in undoable:
        broken(number, instead=True)
    router.do(kind, **values)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def consistent(router: Router) -> None:
    """Store, containers, files and interfaces say the same of the chute, and nothing is left over."""
    for _ in range(50):  # the kernel takes its time to remove what was in a namespace
        state = router.state()
        if not any(name.startswith(("hbr-", "tbr-")) for name, *_ in state["links"]) or state["store"]:
            break
        time.sleep(0.1)
    stored = state["store"].get("wired")
    assert state["journal"] == {}
    recorded = stored["cache"]["containers"] if stored else {}
    assert sorted(name for name, _ in state["containers"].items()) == (["/wired"] if recorded else [])
    if stored is None:
        assert not any("#wired" in text for text in state["files"].values())
        assert [name for name, *_ in state["links"]] == ["docker0", "lan0", "lan0peer", "lo", "wan0", "wan0peer"]
        assert state["directories"] == []
        return
    number, running, _ = state["containers"]["/wired"]
    assert number == recorded["main"]
    assert (running == "running") == (stored["state"] == "running")
    assert (Path(settings.EXTERNAL_DATA_DIR.format(chute="wired")) / "kept").exists() or stored["version"] == 1
    labelled = {image["Id"] for image in router.engine.client.images(filters={"label": dockerclient.LABEL})}
    versions = [stored["cache"]["images"], stored["cache"].get("previousImages") or {}]
    assert labelled == {image["id"] for images in versions for image in images.values()}
    if stored["state"] == "running":
        assert state["inside"]["/wired"] == [f"port0 {stored['cache']['networkInterfaces'][0]['ipaddrWithPrefix']}"]
        assert "#wired" in state["files"]["network"] and "#wired" in state["files"]["dhcp"]
        assert any(name.startswith("br-vnet") for name, *_ in state["links"])
    else:
        assert not any("#wired" in text for text in state["files"].values())
        assert not any(name.startswith("br-vnet") for name, *_ in state["links"])


@pytest.mark.parametrize("kind", ["create", "update", "stop", "delete"])
def test_a_kill_at_any_plan_leaves_store_and_reality_agreeing(router: Router, kind: str) -> None:
    settings.CHUTE_SETTLE_TIME = 0  # type: ignore[attr-defined]
    values = prepare(router, kind)
    stored = router.state()["store"]
    everything, undoable = plans_of(kind, values)
    for number in everything if kind in THOROUGH else undoable:
        child = os.fork()
        if child == 0:
            dockerclient._clients.clear()
            with pytest.MonkeyPatch.context() as monkeypatch:
                Breaker(monkeypatch, kill, number, instead=False)
                router.update(kind, **values)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        router.restart()
        consistent(router)
        if router.state()["store"] != stored:
            if "wired" in chutestorage.ChuteStorage.chuteList:
                router.do("delete", name="wired")
            prepare(router, kind)
            stored = router.state()["store"]
