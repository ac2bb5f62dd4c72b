"""The runtime is killed in the midst of its plans: after its next start store and reality agree, no chute is lost."""

import itertools
import os
import signal
from collections.abc import Callable

import pytest
from effects import broken
from engine import Router
from pipelines import OUTCOMES, contradictions, kept, outcome, prepare

from paradrop.lib import settings
from paradrop.lib.utils import dockerclient

pytestmark = [pytest.mark.docker, pytest.mark.slow]

# Rollback and restart consist of the plans of an update
KINDS = ("create", "update", "start", "stop", "delete")


def killed(work: Callable[[], object], at: int, answer: bool = False) -> str:
    """Do WORK in a process that is killed at its effect number AT; return which one it was, "" if there were fewer."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        dockerclient._clients.clear()
        status = 1
        try:
            with broken(lambda: _die(writer, here.effect), at, answer) as here:
                work()
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader) as said:
        effect = said.read()
    status = os.waitpid(child, 0)[1]
    assert status == (signal.SIGKILL if effect else 0)
    return effect


def _die(writer: int, effect: str) -> None:
    os.write(writer, effect.encode())
    os.kill(os.getpid(), signal.SIGKILL)


def kill_everywhere(router: Router, kind: str, answer: bool = False) -> int:
    """Kill an update at each of its effects; each time start the router again and look at it. Return how often."""
    settings.CHUTE_SETTLE_TIME = 0  # type: ignore[attr-defined]
    values = prepare(router, kind)
    before, after = OUTCOMES[kind]
    done = False
    for at in itertools.count(1):
        effect = killed(lambda: router.do(kind, **values), at, answer)
        router.restart()
        assert not contradictions(router), (at, effect)
        done = done or outcome(router) != before
        assert outcome(router) == (after if done else before), (at, effect)  # once saved, an update stays done
        assert kind == "create" or not outcome(router) or kept().exists(), (at, effect)
        if not effect:
            break
        if done:
            if after:
                router.do("delete", name="wired")
            prepare(router, kind)
    assert done
    return at - 1


@pytest.mark.parametrize("kind", KINDS)
def test_killed_before_any_effect(router: Router, kind: str) -> None:
    assert kill_everywhere(router, kind) >= 10


@pytest.mark.parametrize("kind", KINDS)
def test_killed_while_the_engine_is_at_work(router: Router, kind: str) -> None:
    assert kill_everywhere(router, kind, answer=True) >= 1


def test_killed_while_what_a_kill_left_is_set_right(router: Router) -> None:
    settings.CHUTE_SETTLE_TIME = 0  # type: ignore[attr-defined]
    values = prepare(router, "update")
    assert killed(lambda: router.do("update", **values), 5, answer=True).endswith("/start")
    for at in itertools.count(1):
        effect = killed(router.restart, at)
        if not effect:
            break
    router.restart()
    assert not contradictions(router)
    assert outcome(router) == OUTCOMES["update"][0]
    assert at > 5
