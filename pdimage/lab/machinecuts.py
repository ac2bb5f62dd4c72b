"""Cuts the power of a virtual router in the middle of upgrades: as :mod:`pdimage.lab.powercut`, on the kernel it boots.

A cut goes on from the last moment of a scene that is kept and comes before it (see :mod:`pdimage.lab.moments`). QEMU is
killed then. What the disk has on its platters is set aside; when there are some of these, the router goes back to where
it had touched no disk, and boots from one after the other (what a boot does with it: check, mount, ``fussy recover``).
"""

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

from pdimage.errors import PartFailed
from pdimage.lab.attended import READY, Line
from pdimage.lab.moments import Moment, Recorder, check_end
from pdimage.lab.nbd import Server
from pdimage.lab.powercut import Outcome, Plan
from pdimage.lab.scenes import SCENES
from pdimage.lab.volatile import Disk, copy_file

# How many disks are set aside before the router boots from them.
_SHELF = 20


@dataclass(frozen=True)
class Left:
    """What a power cut left: a disk, in a file; whether the command had been DONE before; it took so many SECONDS."""

    plan: Plan
    image: Path
    done: bool
    seconds: float


def cuts(recorder: Recorder, plans: Iterable[Plan], keep: Path | None = None) -> Generator[Outcome, None, None]:
    """Carry out plans. Where something is wrong then, the disk as the power cut left it is in the directory KEEP."""
    todo = iter(plans)
    while some := [_cut(recorder, plan, recorder.place / f"left-{number}")
                   for number, plan in enumerate(itertools.islice(todo, _SHELF))]:
        with contextlib.closing(_booted(recorder, some)) as booted:
            for left, outcome in booted:
                if keep and outcome.problems:
                    copy_file(left.image, keep / f"{recorder.kind}-{left.plan.scene}-{left.plan.seed}.image")
                yield outcome


def _cut(recorder: Recorder, plan: Plan, image: Path) -> Left:
    moment = _before(recorder, plan)
    begun = time.monotonic()
    done = _cut_once(recorder, plan, moment, image)
    if plan.again:
        disk = Disk(image, cut_at=plan.again, policy=plan.policy, seed=plan.seed)
        with recorder.machine.running(READY, disk) as (line, _):
            line.ask("boot", disk, kind=recorder.kind, scene=plan.scene, done=done)
    return Left(plan, image, done, time.monotonic() - begun)


def _cut_once(recorder: Recorder, plan: Plan, moment: Moment, image: Path) -> bool:
    """Go on from a moment until the power is cut, leaving IMAGE; return whether the command had ended before."""
    at = plan.at + (moment.disk.writes if plan.stage else 0)
    disk = recorder.disk(moment.disk, cut_at=at, policy=plan.policy, seed=plan.seed)
    with recorder.machine.running(moment.snapshot, following=disk) as (line, _):
        came = recorder.go_on(line, plan.scene, moment, disk)
        while came and "stage" in came:
            line.send({})
            came = line.answer("run", disk)
        done = disk.has_power
        disk.cut()
    disk.path.replace(image)
    if done:
        check_end(plan.scene, came, SCENES[plan.scene].code)
    return done


def _before(recorder: Recorder, plan: Plan) -> Moment:
    """Return the moment from which a plan goes on: the beginning of its stage, or else the last before the cut."""
    moments = recorder.recording(plan.scene).moments
    found = [moment for moment in moments
             if (moment.stage == plan.stage if plan.stage else moment.disk.writes < plan.at)]
    if not found:
        raise PartFailed(f"cannot cut at the stage {plan.stage}: {plan.scene} never came to it")
    return found[-1]


def _booted(recorder: Recorder, lefts: Iterable[Left]) -> Generator[tuple[Left, Outcome], None, None]:
    """Boot from all disks; when something is wrong with one, the next has a router that has not seen that."""
    todo = deque(lefts)
    while todo:
        with recorder.machine.running(READY) as (line, server):
            well = True
            while todo and well:
                left = todo.popleft()
                outcome = _boot(recorder, line, server, left)
                yield left, outcome
                well = not outcome.problems


def _boot(recorder: Recorder, line: Line, server: Server, left: Left) -> Outcome:
    begun = time.monotonic()
    copy_file(left.image, recorder.place / "booted")
    disk = Disk(recorder.place / "booted", policy="all")
    server.change(disk)
    try:
        found = line.asked("boot", kind=recorder.kind, scene=left.plan.scene, done=left.done)
    finally:
        disk.close()
    seconds = left.seconds + time.monotonic() - begun
    return Outcome(left.plan, left.done, found["repaired"], tuple(found["problems"]), seconds)
