"""The order of plans, what is skipped, and what takes them back."""

import errno
import re
from typing import Any

import pytest

from paradrop.backend.exc import executionplan
from paradrop.backend.exc.plangraph import Plan, PlanMap, Priority
from paradrop.lib.errors import ParadropError


class Work:
    """An update that only has plans; its functions note that they ran, and fail when told to."""

    def __init__(self) -> None:
        self.plans = PlanMap("work")
        self.responses: list[Any] = []
        self.failure: str | None = None
        self.done: list[Any] = []


def do(update: Work, name: str) -> None:
    update.done.append(name)


def undo(update: Work, name: str) -> None:
    update.done.append(f"-{name}")


def fail(update: Work, name: str = "") -> None:
    update.done.append(f"fail {name}")
    raise ParadropError(f"no {name}")


def drain(plans: PlanMap) -> list[Any]:
    found = []
    while (todo := plans.getNextTodo()) is not None:
        found.append(todo)
    return found


def test_equal_priorities_keep_their_order() -> None:
    plans = PlanMap("x")
    for number in range(50):
        plans.addPlans(10 - number % 2, (do, number))
    plans.sort()
    numbers = [args[0] for _, args in drain(plans)]
    assert numbers == list(range(1, 50, 2)) + list(range(0, 50, 2))


def test_plans_that_cannot_be_compared_can_be_sorted() -> None:
    plans = PlanMap("x")
    plans.addPlans(1, (do, {"a": object()}))
    plans.addPlans(1, (undo, {"b": object()}))
    plans.sort()
    assert [func for func, _ in drain(plans)] == [do, undo]


def test_a_plan_is_returned_as_it_was_added() -> None:
    plans = PlanMap("x")
    plans.addPlans(1, (do,))
    plans.addPlans(2, (do, None))
    plans.addPlans(3, (do, (1, 2)))
    plans.addPlans(4, (do, 1, 2))
    assert drain(plans) == [(do, ()), (do, (None,)), (do, ((1, 2),)), (do, (1, 2))]
    assert plans.getNextTodo() is None


@pytest.mark.parametrize("abort", ["text", 5, [1], [("",), 1], {"a": 1}])
def test_bad_abort_plans_are_refused(abort: Any) -> None:
    with pytest.raises(Exception, match="BadAbortPlan"):
        PlanMap("x").addPlans(1, (do,), abort)


@pytest.mark.parametrize("abort", [[], None, ()])
def test_no_abort_plan_is_none(abort: Any) -> None:
    plans = PlanMap("x")
    plans.addPlans(1, (do, "a"), abort)
    drain(plans)
    assert plans.getNextAbort() is None


def test_abort_is_the_reverse_of_what_was_handed_out() -> None:
    plans = PlanMap("x")
    plans.addPlans(1, (do, 1), (undo, 1))
    plans.addPlans(2, (do, 2), [(undo, "2a"), (undo, "2b"), (undo, 1)])
    plans.addPlans(3, (do, 3), (undo, 3))
    plans.getNextTodo()
    plans.getNextTodo()
    found = []
    while (abort := plans.getNextAbort()) is not None:
        found.append(abort[1][0])
    assert found == ["2a", "2b", 1]


def test_skipped_functions_are_neither_done_nor_undone() -> None:
    plans = PlanMap("x")
    plans.addPlans(1, (do, 1), (undo, 1))
    plans.addPlans(2, (fail, 2), (undo, 2))
    plans.registerSkip(fail)
    assert [func for func, _ in drain(plans)] == [do]
    assert plans.getNextAbort() == (undo, (1,))
    assert plans.getNextAbort() is None


def test_maps_are_put_together() -> None:
    one, two = PlanMap("one"), PlanMap("two")
    one.addPlans(2, (do, "b"))
    two.addPlans(1, (do, "a"))
    one.addMap(two)
    one.sort()
    assert [args[0] for _, args in drain(one)] == ["a", "b"]
    assert repr(one) == "<PlanMap 'one': 2 Plans>"


def test_plans_are_equal_if_function_and_arguments_are() -> None:
    assert Plan(do, 1) == Plan(do, 1)
    assert Plan(do, 1) != Plan(undo, 1)
    assert Plan(do, 1) != Plan(do, 2)


def test_priorities_are_distinct_and_changes_come_after_the_build() -> None:
    assert len({int(priority) for priority in Priority}) == len(Priority)
    assert all(priority > Priority.RUNTIME_BUILD for priority in Priority if "_SET_" in priority.name)
    assert max(Priority) is Priority.STATE_CLEAN_UP


def test_aggregate_gives_a_new_map_in_order_without_repeats() -> None:
    work = Work()
    before = work.plans
    for priority, name in ((5, "b"), (1, "a"), (5, "b"), (5, "c"), (7, "b")):
        work.plans.addPlans(priority, (do, name))
    plans = executionplan.aggregatePlans(work)  # type: ignore[arg-type]
    assert plans is work.plans and plans is not before
    assert [args[0] for _, args in drain(plans)] == ["a", "b", "c", "b"]


def test_execute_runs_all_and_says_false() -> None:
    work = Work()
    for name in "abc":
        work.plans.addPlans(1, (do, name), (undo, name))
    assert executionplan.executePlans(work) is False  # type: ignore[arg-type]
    assert work.done == ["a", "b", "c"]


@pytest.mark.parametrize("bad", range(5))
def test_a_failure_is_taken_back_up_to_the_plan_that_failed(bad: int) -> None:
    work = Work()
    for number in range(5):
        work.plans.addPlans(number, (fail if number == bad else do, number), (undo, number))
    assert executionplan.executePlans(work) is True  # type: ignore[arg-type]
    assert work.failure == f"no {bad}"
    assert work.responses[0]["exception"] == f"no {bad}" and "Traceback" in work.responses[0]["traceback"]
    assert executionplan.abortPlans(work) is False  # type: ignore[arg-type]
    assert work.done == [*range(bad), f"fail {bad}", *(f"-{number}" for number in range(bad, -1, -1))]


def test_the_text_of_a_bug_is_for_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    def bug(update: Work) -> None:
        raise RuntimeError("token=secret")

    work = Work()
    work.plans.addPlans(1, (bug,))
    assert executionplan.executePlans(work) is True  # type: ignore[arg-type]
    assert work.failure is not None and "secret" not in work.failure and "RuntimeError" not in work.failure
    found = re.search(r"look for (\d{10}) in the router's log", work.failure)
    assert found and f"error {found[1]}: " in caplog.text and "RuntimeError: token=secret" in caplog.text


def test_a_full_disk_is_no_bug() -> None:
    def write(update: Work) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/secret/path")

    work = Work()
    work.plans.addPlans(1, (write,))
    assert executionplan.executePlans(work) is True  # type: ignore[arg-type]
    assert work.failure == "cannot write to the router's disk: No space left on device"


def test_an_undo_that_fails_does_not_keep_the_others_from_running() -> None:
    work = Work()
    for number in range(4):
        work.plans.addPlans(number, (do, number), (fail if number in (2, 3) else undo, number))
    work.plans.addPlans(9, (fail, "x"))
    assert executionplan.executePlans(work) is True  # type: ignore[arg-type]
    assert executionplan.abortPlans(work) is True  # type: ignore[arg-type]
    assert work.done[-4:] == ["fail 3", "fail 2", "-1", "-0"]


def test_a_plan_can_have_others_skipped() -> None:
    work = Work()
    work.plans.addPlans(1, (lambda update: [fail, undo],))
    work.plans.addPlans(2, (fail, 1))
    work.plans.addPlans(3, (undo, 1))
    work.plans.addPlans(4, (do, 1))
    assert executionplan.executePlans(work) is False  # type: ignore[arg-type]
    assert work.done == [1]


def test_generate_stops_at_the_first_refusal() -> None:
    class Module:
        def __init__(self, answer: bool | None) -> None:
            self.answer, self.asked = answer, False

        def generatePlans(self, update: Work) -> bool | None:
            self.asked = True
            return self.answer

    work: Any = Work()
    work.updateModuleList = [Module(None), Module(False), Module(True), Module(None)]
    assert executionplan.generatePlans(work) is True
    assert [module.asked for module in work.updateModuleList] == [True, True, True, False]
    work.updateModuleList = [Module(None)]
    assert executionplan.generatePlans(work) is False
