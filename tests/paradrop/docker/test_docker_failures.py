"""Every type of update is failed at each of its plans, and in its abort: the router is as it was before."""

from typing import Any

import pytest
from engine import Router
from pipelines import OUTCOMES, PIPELINES, differences, outcome, prepare

from paradrop.backend.exc import executionplan
from paradrop.backend.exc.plangraph import Call, PlanMap
from paradrop.backend.fc import updateObject
from paradrop.lib import settings

pytestmark = [pytest.mark.docker, pytest.mark.slow]


class Breaker:
    """Raises instead of the plan of a number. ``name`` is that plan's, once it was come to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.name = ""
        original = PlanMap.getNextTodo

        def next_todo(plans: PlanMap) -> Call | None:
            todo = original(plans)
            if todo is None or plans._next != at:
                return todo
            self.name = todo[0].__name__
            return fail, ()

        monkeypatch.setattr(PlanMap, "getNextTodo", next_todo)


def fail(*args: object) -> None:
    raise RuntimeError("injected")


def break_undos(monkeypatch: pytest.MonkeyPatch, rest: int) -> list[str]:
    """Have every second step of an abort raise, even ones or odd ones; return a list in which their names will be."""
    names: list[str] = []
    number = 0
    original = PlanMap.getNextAbort

    def next_abort(plans: PlanMap) -> Call | None:
        nonlocal number
        abort = original(plans)
        if abort is None:
            return None
        number += 1
        if number % 2 != rest:
            return abort
        names.append(abort[0].__name__)
        return fail, ()

    monkeypatch.setattr(PlanMap, "getNextAbort", next_abort)
    return names


def count_plans(kind: str, values: dict[str, Any]) -> int:
    """Return how many plans an update consists of."""
    update = updateObject.parse({"updateClass": "CHUTE", "updateType": kind, **values})
    assert not executionplan.generatePlans(update)
    return len(executionplan.aggregatePlans(update))


@pytest.mark.parametrize("kind", PIPELINES)
def test_a_failure_at_any_plan_leaves_the_router_as_it_was(router: Router, kind: str) -> None:
    settings.CHUTE_SETTLE_TIME = 0  # type: ignore[attr-defined]
    values = prepare(router, kind)
    before = router.state()

    count = count_plans(kind, values)
    assert count > 20
    for number in range(1, count + 1):
        with pytest.MonkeyPatch.context() as monkeypatch:
            breaker = Breaker(monkeypatch, number)
            result = router.update(kind, **values)
        assert breaker.name, number
        assert result["message"].startswith("The update failed because"), (number, breaker.name, result)
        assert not result["success"]
        assert not differences(before, router.state()), (number, breaker.name)
    router.do(kind, **values)


@pytest.mark.parametrize("kind", PIPELINES)
def test_what_an_abort_fails_to_take_back_is_set_right_by_the_next_start(router: Router, kind: str) -> None:
    settings.CHUTE_SETTLE_TIME = 0  # type: ignore[attr-defined]
    values = prepare(router, kind)
    before = router.state()
    before["rules"].sort()
    save = count_plans(kind, values) - 1  # from then on, the store says that the update is done
    failed: list[str] = []
    for rest in (0, 1):
        with pytest.MonkeyPatch.context() as monkeypatch:
            breaker = Breaker(monkeypatch, save)
            names = break_undos(monkeypatch, rest)
            result = router.update(kind, **values)
        assert breaker.name == "saveState"
        assert not result["success"]
        assert result["message"].endswith("Not everything could be taken back; see the router's log.")
        router.restart()
        after = router.state()
        after["rules"].sort()  # those of equal rank may have changed places
        # the start has stored anew what it started, with the same outcome
        assert not differences(before, after).keys() - {"store", "disk"}, names
        assert outcome(router) == OUTCOMES[kind][0]
        failed += names
    assert len(failed) > 8
    router.do(kind, **values)
