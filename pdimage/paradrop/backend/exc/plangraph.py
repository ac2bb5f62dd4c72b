"""Plans: steps that change the router, each with what takes it back, and the order they run in.

::

    addPlans … sort  ->  getNextTodo, getNextTodo, …          all went well
                              └─ one raised  ->  getNextAbort, getNextAbort, …   newest step first
"""

from collections.abc import Callable
from enum import IntEnum, unique
from typing import Any

Function = Callable[..., Any]
Call = tuple[Function, tuple[Any, ...]]


@unique
class Priority(IntEnum):
    """When a plan runs: lower first, and equal ones in the order they were added.

    Up to RUNTIME_BUILD nothing of the running router is touched: what can be refused is refused there.
    STATE_SAVE is the moment an update counts as done; STATE_CLEAN_UP only removes what is no longer needed.
    """

    STATE_CHECK_ENGINE = 5
    FILES_FETCH = 6
    STRUCT_GET_SYSTEM_DEVICES = 10
    STRUCT_GET_INT_NETWORK = 11
    STRUCT_GET_OS_NETWORK = 12
    STRUCT_GET_OS_WIRELESS = 13
    STRUCT_GET_VIRT_NETWORK = 14
    RESOURCE_GET_ALLOCATION = 15
    TRAFFIC_GET_OS_FIREWALL = 18
    TRAFFIC_GET_DEVELOPER_FIREWALL = 19
    RUNTIME_GET_VIRT_PREAMBLE = 20
    RUNTIME_GET_VIRT_DHCP = 21
    RUNTIME_BUILD = 30
    FILES_REMOVE = 31
    STATE_CALL_STOP = 40
    NAME_SETUP_DIRS = 50
    STRUCT_SET_SYSTEM_DEVICES = 51
    STRUCT_SET_OS_WIRELESS = 52
    STRUCT_SET_OS_NETWORK = 53
    TRAFFIC_SET_OS_FIREWALL = 54
    RUNTIME_SET_VIRT_DHCP = 61
    RUNTIME_RELOAD_CONFIG = 63
    NAME_RETIRE_DIRS = 92
    STATE_CALL_START = 93
    RESOURCE_SET_ALLOCATION = 94
    STATE_SAVE = 95
    STATE_CLEAN_UP = 99


class Plan:
    """One function and the arguments that it gets after the update object."""

    def __init__(self, func: Function, *args: Any) -> None:
        self.func = func
        self.args = args

    def __eq__(self, other: object) -> bool:
        """Two plans are equal if they call the same function object with equal arguments."""
        return isinstance(other, Plan) and self.func is other.func and self.args == other.args

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Plan {getattr(self.func, '__qualname__', self.func)}{self.args}>"

    @property
    def call(self) -> Call:
        """The function and its arguments as PlanMap hands them out."""
        return self.func, self.args


class _Step:
    """A plan with its priority and its undo."""

    def __init__(self, priority: int, todo: Plan, aborts: list[Plan]) -> None:
        self.priority = priority
        self.todo = todo
        self.aborts = aborts

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, _Step)
                and (self.priority, self.todo, self.aborts) == (other.priority, other.todo, other.aborts))

    __hash__ = None  # type: ignore[assignment]


class PlanMap:
    """The plans of one update, or of several that were put together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._steps: list[_Step] = []
        self._next = 0
        self._aborts: list[Plan] | None = None
        self._skipped: list[Function] = []

    def __len__(self) -> int:
        return len(self._steps)

    def __repr__(self) -> str:
        return f"<PlanMap {self.name!r}: {len(self)} Plans>"

    def __str__(self) -> str:
        return "\n".join([repr(self), *(f"{step.priority:3} {step.todo} abort {step.aborts}" for step in self._steps)])

    def addPlans(self, priority: int, todoPlan: tuple[Any, ...],
                 abortPlan: tuple[Any, ...] | list[tuple[Any, ...]] | None = None) -> None:
        """Add a plan.

        priority: see Priority, lower first.
        todoPlan: ``(function, *arguments)``; called as ``function(update, *arguments)``.
        abortPlan: one such tuple, a list of them, or nothing. Called, in the listed order, if this plan or a later one
            raises; so it must also be able to take back half of what the plan does, or nothing.

        Raises:
            Exception: ``('BadAbortPlan', …)``, the abort plan is none of these.
        """
        if not abortPlan:
            aborts: list[tuple[Any, ...]] = []
        elif isinstance(abortPlan, tuple):
            aborts = [abortPlan]
        else:
            aborts = abortPlan
        if not isinstance(aborts, list) or not all(isinstance(item, tuple) and item for item in aborts):
            raise Exception("BadAbortPlan", "Plan should be tuple, list of tuples, or empty")
        self._steps.append(_Step(priority, Plan(*todoPlan), [Plan(*item) for item in aborts]))

    def addMap(self, other: "PlanMap") -> None:
        """Append the plans of another map to this one's."""
        self._steps.extend(other._steps)

    def sort(self) -> None:
        """Put the plans in order of priority; equal priorities stay in the order they were added."""
        self._steps.sort(key=lambda step: step.priority)

    def withoutDuplicates(self) -> "PlanMap":
        """Return a new map without repeated plans (same priority, function, arguments and undo)."""
        unique_map = PlanMap(self.name)
        for step in self._steps:
            if step not in unique_map._steps:
                unique_map._steps.append(step)
        unique_map._skipped = list(self._skipped)
        return unique_map

    def registerSkip(self, func: Function) -> None:
        """Leave out this function from now on: getNextTodo passes over its plans."""
        self._skipped.append(func)

    def getNextTodo(self) -> Call | None:
        """Return the next ``(function, args)`` just as it was added, or None when there is no other."""
        while self._next < len(self._steps):
            step = self._steps[self._next]
            self._next += 1
            if step.todo.func not in self._skipped:
                return step.todo.call
        return None

    def getNextAbort(self) -> Call | None:
        """Return the next ``(function, args)`` that takes back what was done, or None when there is no other.

        The first call makes the list: the undo of every plan that getNextTodo handed out, the last one, which may have
        done half its work, included; the newest plan first, and no undo twice.
        """
        if self._aborts is None:
            self._aborts = []
            for step in reversed(self._steps[:self._next]):
                if step.todo.func not in self._skipped:
                    self._aborts += [plan for plan in step.aborts if plan not in self._aborts]
        return self._aborts.pop(0).call if self._aborts else None
