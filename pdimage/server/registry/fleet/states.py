"""The states of a roll-out, and of an action: what a roll-out does with one router. Pure: values in, values out.

A roll-out::

    state      event      becomes      when
    proposed   approve    running      another person than who made it says so
    proposed   cancel     cancelled
    running    pause      paused       nothing more is begun; what was begun goes on
    running    stop       stopped      its threshold: too many failed, or too few can still succeed (see decide)
    running    finish     finished     all routers of the group were reached, and no action is open
    running    cancel     cancelled
    paused     resume     running
    paused     stop       stopped      what had been begun goes on failing
    paused     cancel     cancelled
    finished   rejoin     running      a router came into the group later
    finished   cancel     cancelled    none that comes later gets it

An action (open until it is done, failed or cancelled; a router has at most one open one)::

    state                 event        becomes      when
    unconfirmed           confirm      waiting      somebody at the device agreed (hawkBit's confirmation)
    unconfirmed           deny         unconfirmed  he did not, and may later
    waiting|running|held  begin        running      the device fetched what it is to install, or goes on with it
    waiting|running|held  hold         held         the router's owner holds updates, or it declined for now
    unconfirmed|waiting   end          cancelled    the roll-out was stopped or cancelled: it never began
    running|held          end          cancelling   the device is asked whether it can still let go
    cancelling            acknowledge  cancelled    it let go
    cancelling            refuse       running      too late: it goes on, and says how it ended
    cancelling            quit         cancelled    somebody does not wait for its word any more (hawkBit's force quit)
    any                   succeed      done
    any                   fail         failed
    any                   drop         cancelled    the router was deleted
    waiting|held          overtake     cancelled    a newer roll-out reached this router
    unconfirmed           overtake     cancelled
    cancelling            overtake     cancelled

An action begins as unconfirmed if its roll-out wants confirmation, otherwise as waiting. A router that is held or
unconfirmed counts neither as failed nor as one that must succeed: its owner decides.
"""

from collections.abc import Mapping
from itertools import pairwise
from math import ceil
from typing import Annotated, Literal, NamedTuple

import msgspec

State = Literal["proposed", "running", "paused", "stopped", "finished", "cancelled"]
Event = Literal["approve", "pause", "resume", "stop", "finish", "rejoin", "cancel"]
ActionState = Literal["unconfirmed", "waiting", "running", "held", "cancelling", "done", "failed", "cancelled"]
ActionEvent = Literal["confirm", "deny", "begin", "hold", "end", "acknowledge", "refuse", "quit", "succeed", "fail",
                      "drop", "overtake"]

ROLLOUT: Mapping[tuple[State, Event], State] = {
    ("proposed", "approve"): "running",
    ("proposed", "cancel"): "cancelled",
    ("running", "pause"): "paused",
    ("running", "stop"): "stopped",
    ("running", "finish"): "finished",
    ("running", "cancel"): "cancelled",
    ("paused", "resume"): "running",
    ("paused", "stop"): "stopped",
    ("paused", "cancel"): "cancelled",
    ("finished", "rejoin"): "running",
    ("finished", "cancel"): "cancelled",
}
OPEN: tuple[ActionState, ...] = ("unconfirmed", "waiting", "running", "held", "cancelling")
ACTION: Mapping[tuple[ActionState, ActionEvent], ActionState] = {
    ("unconfirmed", "confirm"): "waiting",
    ("unconfirmed", "deny"): "unconfirmed",
    ("waiting", "begin"): "running",
    ("running", "begin"): "running",
    ("held", "begin"): "running",
    ("waiting", "hold"): "held",
    ("running", "hold"): "held",
    ("held", "hold"): "held",
    ("unconfirmed", "end"): "cancelled",
    ("waiting", "end"): "cancelled",
    ("running", "end"): "cancelling",
    ("held", "end"): "cancelling",
    ("cancelling", "acknowledge"): "cancelled",
    ("cancelling", "refuse"): "running",
    ("cancelling", "quit"): "cancelled",
    ("unconfirmed", "overtake"): "cancelled",
    ("waiting", "overtake"): "cancelled",
    ("held", "overtake"): "cancelled",
    ("cancelling", "overtake"): "cancelled",
    **{(state, "succeed"): "done" for state in OPEN},
    **{(state, "fail"): "failed" for state in OPEN},
    **{(state, "drop"): "cancelled" for state in OPEN},
}

_Percent = Annotated[float, msgspec.Meta(gt=0, le=100)]


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a roll-out goes on.

    ``steps``: percent of the routers that have been reached after each step; the last one is 100. It is stopped when,
    of the routers of one step that are through, more than ``failures`` percent failed, and at least ``least``. The next
    step begins after ``seconds`` at least, when ``success`` percent of the routers of this one have succeeded.
    """

    steps: tuple[_Percent, ...] = (10.0, 50.0, 100.0)
    failures: Annotated[float, msgspec.Meta(ge=0, le=100)] = 20.0
    least: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 2
    success: Annotated[float, msgspec.Meta(ge=0, le=100)] = 50.0
    seconds: Annotated[float, msgspec.Meta(ge=0, le=31_536_000)] = 0.0


class Counts(NamedTuple):
    """How many actions of a step are in each state."""

    unconfirmed: int = 0
    waiting: int = 0
    running: int = 0
    held: int = 0
    cancelling: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def open(self) -> int:
        """How many are not through."""
        return self.unconfirmed + self.waiting + self.running + self.held + self.cancelling


class Decision(NamedTuple):
    """What happens to a roll-out now: it is stopped, finished, goes to the next step, or nothing of that."""

    what: Literal["stop", "finish", "next", ""] = ""
    reason: str = ""


def problem(plan: Plan) -> str:
    """Return why no roll-out can have this plan; an empty text if it can.

    >>> problem(Plan(steps=(50, 10, 100)))
    'the steps must rise to 100, for example 10,50,100'
    """
    steps = plan.steps
    if not 1 <= len(steps) <= 100 or steps[-1] != 100 or any(a >= b for a, b in pairwise(steps)):
        return "the steps must rise to 100, for example 10,50,100"
    return ""


def wanted(plan: Plan, step: int, members: int) -> int:
    """Return how many of a group's routers are to have been reached in a step: at least one of any.

    >>> [wanted(Plan(), step, 14) for step in range(3)]
    [2, 7, 14]
    """
    return min(members, ceil(plan.steps[step] * members / 100))


def decide(plan: Plan, step: int, since: float, counts: Mapping[int, Counts], missing: int, now: float) -> Decision:
    """Return what happens to a roll-out that is running or paused.

    :param step: the present one, which began at SINCE
    :param counts: the actions of each step so far
    :param missing: routers that the present step is to reach and has not yet
    """
    for number, count in sorted(counts.items()):
        through = count.done + count.failed
        if count.failed >= plan.least and 100 * count.failed > plan.failures * through:
            return Decision("stop", f"{count.failed} of the {through} routers of step {number + 1} that are through "
                                    f"failed, which is more than {plan.failures:g} %")
    if missing:
        return Decision()
    if step == len(plan.steps) - 1:
        return Decision() if any(count.open for count in counts.values()) else Decision("finish")
    now_in = counts.get(step, Counts())
    possible = now_in.done + now_in.waiting + now_in.running
    must = ceil(plan.success * (possible + now_in.failed) / 100)
    if possible + now_in.held + now_in.unconfirmed < must:
        return Decision("stop", f"{now_in.failed} routers of step {step + 1} failed, so that {plan.success:g} % of "
                                f"them can't succeed any more")
    tried = now_in.done + now_in.failed > 0 or not now_in.open
    return Decision("next") if tried and now_in.done >= must and now - since >= plan.seconds else Decision()
