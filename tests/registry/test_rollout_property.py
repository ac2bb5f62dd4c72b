"""Whatever people, devices and power cuts do, in whatever order: a roll-out keeps to what it promises.

Devices fetch, say how it goes, also twice and too late; people pause, resume and cancel; routers come and go; and any
of it may be killed at any statement to the database, which then rolls back, as after ``kill -9``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, get_args

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from pdimage.server import tables
from pdimage.server.migrate import migrate
from pdimage.server.refusals import Refused
from pdimage.server.registry.audit import Audit, Who
from pdimage.server.registry.fleet import moving
from pdimage.server.registry.fleet.actions import Actions
from pdimage.server.registry.fleet.releases import Release
from pdimage.server.registry.fleet.rollouts import Lead, Order, Rollouts
from pdimage.server.registry.fleet.states import OPEN, ActionEvent, Plan, decide
from pdimage.server.registry.fleet.tables import actions, rollouts
from pdimage.server.registry.tables import accounts, routers

JOE = Who("joejoejoe", "192.0.2.1")
ANN = Who("annannann", "192.0.2.2")
RELEASE = Release("files/firmware/8.0", "firmware", "8.0", "", ())
PLANS = [Plan(steps=(100,)), Plan(steps=(25, 100), least=1, failures=0), Plan(steps=(10, 50, 100), seconds=60),
         Plan(steps=(50, 100), success=0, failures=100)]
DEVICES = [f"pd.joejoejoe.r{number}" for number in range(7)]


class Killed(Exception):
    """The server died."""


class Fleet(RuleBasedStateMachine):
    """A fleet of some routers in two groups, of which any may be there or not."""

    engine: sa.Engine

    def __init__(self) -> None:
        super().__init__()
        self.now, self.armed, self.left = 1_000_000.0, -1, -1
        audit = Audit(self.engine, 1, lambda: self.now)
        self.rollouts = Rollouts(self.engine, audit, lambda woken: None, lambda: self.now)
        self.actions = Actions(self.engine, audit, lambda woken: None, lambda: self.now)
        self.known: dict[str, int] = {}
        self.over: dict[int, set[int]] = {}
        with self.engine.begin() as connection:
            for table in (actions, rollouts, routers, accounts):
                connection.execute(sa.delete(table))
            connection.execute(sa.insert(accounts).values(name=JOE.name, password="", role="user", made=0))
        sa.event.listen(self.engine, "before_cursor_execute", self._die)

    def teardown(self) -> None:
        sa.event.remove(self.engine, "before_cursor_execute", self._die)

    def _die(self, *_: Any) -> None:
        if self.left >= 0:
            self.left -= 1
            if self.left < 0:
                raise Killed

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Do something that may be refused, or killed."""
        self.left, self.armed = self.armed, -1
        with suppress(Refused, Killed):
            yield
        self.left = -1

    @rule(statements=some.integers(0, 12))
    def the_next_thing_is_killed(self, statements: int) -> None:
        self.armed = statements

    @rule(device=some.sampled_from(DEVICES), group=some.sampled_from(["", "a", "b"]))
    def a_router_is_put_somewhere(self, device: str, group: str) -> None:
        with self.trying(), self.engine.begin() as connection:
            there = connection.execute(sa.update(routers).where(routers.c.pdid == device).values(group_name=group))
            if not there.rowcount:
                connection.execute(sa.insert(routers).values(
                    pdid=device, account=JOE.name, name=device[-2:], made=0, group_name=group))

    @rule(device=some.sampled_from(DEVICES))
    def a_router_is_deleted(self, device: str) -> None:
        with self.trying(), self.engine.begin() as connection:
            connection.execute(sa.delete(routers).where(routers.c.pdid == device))

    @rule(plan=some.sampled_from(PLANS), group=some.sampled_from(["", "a", "b"]), approval=some.booleans(),
          confirm=some.booleans())
    def somebody_rolls_out(self, plan: Plan, group: str, approval: bool, confirm: bool) -> None:
        with self.trying():
            self.rollouts.start(Order(JOE.name, group, RELEASE, plan, confirm=confirm, approval=approval), JOE)

    @precondition(lambda self: self._numbers())
    @rule(data=some.data(), what=some.sampled_from(get_args(Lead)), who=some.sampled_from([JOE, ANN]))
    def somebody_leads(self, data: Any, what: Lead, who: Who) -> None:
        number = data.draw(some.sampled_from(self._numbers()))
        with self.trying():
            self.rollouts.lead(number, what, who)

    @precondition(lambda self: self._numbers())
    @rule(data=some.data(), pdids=some.sets(some.sampled_from(DEVICES), max_size=2))
    def somebody_does_not_wait(self, data: Any, pdids: set[str]) -> None:
        number = data.draw(some.sampled_from(self._numbers()))
        with self.trying():
            self.rollouts.quit(number, pdids, JOE)

    @rule(seconds=some.sampled_from([0, 30, 90]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        with self.trying():
            self.rollouts.move_all()

    @rule(device=some.sampled_from(DEVICES))
    def a_device_fetches(self, device: str) -> None:
        with self.trying():
            there = self.actions.device(device)
            if there and there.action and there.state != "cancelling":
                self.known[device] = there.action
                before = there.state
                self.actions.deployment(device, there.action, "deploymentBase")
                assert before != "unconfirmed", "it began before anybody agreed"

    @precondition(lambda self: self.known)
    @rule(data=some.data(), agrees=some.booleans())
    def somebody_at_a_device_answers(self, data: Any, agrees: bool) -> None:
        device = data.draw(some.sampled_from(sorted(self.known)))
        with self.trying():
            self.actions.confirm(device, self.known[device], [], agrees=agrees)

    @rule(device=some.sampled_from(DEVICES), agrees=some.booleans())
    def somebody_at_a_device_decides_for_all_that_comes(self, device: str, agrees: bool) -> None:
        with self.trying():
            if agrees:
                self.actions.agree(device, "ann", "")
            else:
                self.actions.disagree(device)

    @rule(device=some.sampled_from(DEVICES))
    def another_device_is_the_router_now(self, device: str) -> None:
        with self.trying(), self.engine.begin() as connection:
            moving.forget(connection, device)

    @precondition(lambda self: self.known)
    @rule(data=some.data(), event=some.sampled_from(["begin", "hold", "acknowledge", "refuse", "succeed", "fail"]))
    def a_device_speaks(self, data: Any, event: ActionEvent) -> None:
        device = data.draw(some.sampled_from(sorted(self.known)))
        with self.trying():
            self.actions.report(device, self.known[device], event, [f"it is {event}"])

    @invariant()
    def it_keeps_its_promises(self) -> None:
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(actions)).all()
            there = {row.id: row for row in connection.execute(sa.select(rollouts))}
        still_open = [row.pdid for row in rows if row.ended is None]
        assert len(still_open) == len(set(still_open)), "a router has two open actions"
        for row in rows:
            assert (row.ended is None) == (row.state in OPEN)
        for number, rollout in there.items():
            mine = {row.id for row in rows if row.rollout == number}
            found = self.rollouts.find(number)
            assert found
            assert sum(found.total) == len(mine), "counters do not add up"
            if rollout.state in ("proposed", "stopped", "cancelled"):
                assert not [row for row in rows if row.id in mine and row.state in ("unconfirmed", "waiting", "held")]
                assert mine == self.over.setdefault(number, mine), "an ended roll-out began more"
            else:
                self.over.pop(number, None)
            if rollout.state == "finished":
                assert not [row for row in rows if row.id in mine and row.ended is None]
            if rollout.state == "running":
                assert decide(found.plan, found.step, found.since, found.counts, 1, self.now).what != "stop"

    def _numbers(self) -> list[int]:
        with self.engine.connect() as connection:
            return list(connection.scalars(sa.select(rollouts.c.id).order_by(rollouts.c.id)))


Database = Callable[[Path], str]


def check(url: str, examples: int) -> None:
    engine = tables.connect(url)
    if url.startswith("sqlite"):
        sa.event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
    migrate(engine)
    machine = type("On", (Fleet,), {"engine": engine})
    run_state_machine_as_test(machine, settings=settings(
        max_examples=examples, stateful_step_count=40, deadline=None, derandomize=True,
        suppress_health_check=list(HealthCheck)))
    engine.dispose()


def test_on_sqlite(tmp_path: Path) -> None:
    check(f"sqlite:///{tmp_path / 'server.db'}", 30)


def test_on_postgresql(request: pytest.FixtureRequest) -> None:
    check(request.getfixturevalue("postgres").database("property"), 6)
