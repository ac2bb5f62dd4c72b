"""The states of a roll-out, without a database: every transition, and what is decided of counted actions."""

import pytest

from pdimage.server.registry.fleet import states
from pdimage.server.registry.fleet.states import ACTION, OPEN, ROLLOUT, Counts, Decision, Plan, decide, problem, wanted


def rows(number: int) -> set[tuple[str, str, str]]:
    """Return the rows of a table of the docstring."""
    table = (states.__doc__ or "").split(" event ")[number].partition("\n")[2].partition("\n\n")[0]
    found = set()
    for line in table.splitlines():
        before, event, after = line.split()[:3]
        found |= {(state, event, after) for state in (OPEN if before == "any" else before.split("|"))}
    return found


def test_the_tables_are_what_is_done() -> None:
    assert rows(1) == {(*key, after) for key, after in ROLLOUT.items()}
    assert rows(2) == {(*key, after) for key, after in ACTION.items()}
    assert {state for state, _ in ACTION} == set(OPEN)


@pytest.mark.parametrize(("steps", "good"), [
    ((100,), True), ((10, 50, 100), True), ((0.5, 100), True),
    ((), False), ((50,), False), ((50, 50, 100), False), ((100, 50), False)])
def test_steps_rise_to_all(steps: tuple[float, ...], good: bool) -> None:
    assert (problem(Plan(steps=steps)) == "") is good


def test_each_step_reaches_somebody() -> None:
    assert [wanted(Plan(), 0, members) for members in (0, 1, 9, 10, 11, 10_000)] == [0, 1, 1, 1, 2, 1000]


PLAN = Plan(steps=(10, 50, 100), failures=20, least=2, success=50, seconds=60)


def test_it_is_stopped_when_more_failed_than_it_allows() -> None:
    stop = Decision("stop", "2 of the 9 routers of step 1 that are through failed, which is more than 20 %")
    assert decide(PLAN, 0, 0, {0: Counts(running=1, done=7, failed=2)}, 0, 1) == stop
    assert decide(PLAN, 1, 0, {0: Counts(done=7, failed=2), 1: Counts(done=50)}, 0, 1) == stop  # a late one counts
    assert decide(PLAN, 0, 0, {0: Counts(running=5, done=8, failed=2)}, 0, 1) == Decision()  # 20 %, not more
    assert decide(PLAN, 0, 0, {0: Counts(running=5, failed=1)}, 0, 1) == Decision()  # fewer than the least number
    assert decide(PLAN, 0, 0, {0: Counts(running=5, failed=2)}, 7, 1).what == "stop"  # while others are still missing


def test_it_is_stopped_when_too_few_can_succeed() -> None:
    assert decide(PLAN, 0, 0, {0: Counts(failed=1)}, 0, 1) == Decision(
        "stop", "1 routers of step 1 failed, so that 50 % of them can't succeed any more")
    assert decide(PLAN, 0, 0, {0: Counts(failed=1, held=1)}, 0, 99) == Decision()


def test_the_next_step_wants_successes_and_time() -> None:
    assert decide(PLAN, 0, 100, {0: Counts(running=5, done=5)}, 0, 159.9) == Decision()
    assert decide(PLAN, 0, 100, {0: Counts(running=5, done=5)}, 0, 160) == Decision("next")
    assert decide(PLAN, 0, 100, {0: Counts(running=6, done=5)}, 0, 999) == Decision()
    assert decide(PLAN, 0, 100, {0: Counts(done=5)}, 1, 999) == Decision()  # one is not reached yet
    assert decide(PLAN, 1, 100, {0: Counts(done=5), 1: Counts()}, 0, 999) == Decision("next")  # nobody to wait for


def test_held_routers_are_no_failures_and_no_evidence() -> None:
    assert decide(PLAN, 0, 0, {0: Counts(held=9, done=1)}, 0, 99) == Decision("next")
    assert decide(PLAN, 0, 0, {0: Counts(unconfirmed=9, done=1)}, 0, 99) == Decision("next")
    assert decide(PLAN, 0, 0, {0: Counts(unconfirmed=9)}, 0, 99) == Decision()
    assert decide(PLAN, 0, 0, {0: Counts(failed=1, unconfirmed=1)}, 0, 99) == Decision()
    assert decide(PLAN, 0, 0, {0: Counts(held=9)}, 0, 99) == Decision()
    assert decide(PLAN, 2, 0, {2: Counts(held=9, done=1)}, 0, 99) == Decision()


def test_the_last_step_ends_when_nothing_is_open() -> None:
    last = Plan(steps=(100,), failures=50)
    assert decide(last, 0, 0, {0: Counts(done=5, failed=1, cancelled=1)}, 0, 0) == Decision("finish")
    assert decide(last, 0, 0, {0: Counts(cancelling=1, done=5)}, 0, 0) == Decision()
    assert decide(last, 0, 0, {}, 1, 0) == Decision()
    assert decide(last, 0, 0, {}, 0, 0) == Decision("finish")
    assert decide(last, 0, 0, {0: Counts(done=1, failed=2)}, 0, 0).what == "stop"
