"""Writes down what one upgrade writes to its disk, and boots from everything that a power cut could have left of that.

These states are exact: the same log, seed and samples give the same ones. What a live power cut adds is told in
:mod:`pdimage.lab.powercut`.
"""

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pdimage.lab import writelog
from pdimage.lab.rig import Rig
from pdimage.lab.scenes import Scene
from pdimage.lab.volatile import Disk, apply, copy_file
from pdimage.lab.writelog import State, Write, crash_states


@dataclass(frozen=True)
class Verdict:
    """What was wrong when it booted from a state, and whether the file system had to be repaired for it."""

    state: State
    repaired: bool
    problems: tuple[str, ...]


def record(rig: Rig, scene: Scene, place: Path, linger: float = 0.0) -> None:
    """Run SCENE undisturbed, and make PLACE: ``disk`` as it was before, and the ``log`` of what was written then.

    The disk stays in use for LINGER seconds before it is unmounted, which is written down too. PLACE is there once all
    is in it: a recording may be killed.
    """
    partial = place.with_name(f"{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    copy_file(rig.copy(scene), partial / "disk")
    disk = Disk(rig.copy(scene), record=True)
    try:
        rig.run(disk, scene.command, scene.code, lambda: time.sleep(linger))
        writelog.save(disk.log, partial / "log")
    finally:
        disk.close()
    partial.rename(place)


def replay(rig: Rig, scene: Scene, place: Path, seed: int, samples: int) -> Iterator[Verdict]:
    """Boot from each state of the recording in PLACE (see :func:`pdimage.lab.writelog.crash_states`)."""
    log = writelog.load(place / "log")
    settled, image = rig.place / "settled.image", rig.place / "state.image"
    copy_file(place / "disk", settled)
    applied = 0
    for state in crash_states(log, seed, samples):
        _do(settled, (entry for entry in log[applied:state.settled] if isinstance(entry, Write)))
        applied = state.settled
        copy_file(settled, image)
        _do(image, state.window)
        repaired, problems = rig.boot(image, scene, "done" in state.marks)
        yield Verdict(state, repaired, tuple(problems))


def _do(image: Path, writes: Iterable[Write]) -> None:
    with image.open("r+b") as file:
        apply(file.fileno(), writes)
