"""Moments of upgrades on a virtual router, kept so that power cuts need not wait for what comes before them.

A scene is recorded once: the command runs to its end, and at the beginning of each of its stages the machine is kept in
a snapshot, together with what its disk is then: what is durable, and what was not flushed yet. A machine that goes on
from there, with a disk that is so, does not know that it ever stopped.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pdimage.errors import PartFailed
from pdimage.lab import snapshots
from pdimage.lab.attended import READY, Line, Machine
from pdimage.lab.scenes import SCENES
from pdimage.lab.volatile import Disk, Kept, copy_file

if TYPE_CHECKING:
    from pdimage.lab.machine import VM


@dataclass(frozen=True)
class Moment:
    """A scene at the beginning of STAGE, or ("") before its disk is mounted: a snapshot, and the disk."""

    stage: str
    snapshot: str
    disk: Kept


@dataclass(frozen=True)
class Recording:
    """The moments of a scene, in order, and how many WRITES it takes, mounting included."""

    moments: tuple[Moment, ...]
    writes: int


class Recorder:
    """A context: disks on which scenes can begin, and recordings of them, on the file system KIND.

    The commands leave out the syncs WITHOUT (see :mod:`pdimage.lab.unsynced`).
    """

    def __init__(self, machine: Machine, kind: str, without: str) -> None:
        self.machine, self.kind, self.without = machine, kind, without
        self.place = machine.place / kind
        self._prepared: dict[tuple[tuple[str, ...], ...], Path] = {}
        self._recordings: dict[str, Recording] = {}
        self._seconds = 0.0

    def __enter__(self) -> "Recorder":
        self.place.mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        moments = (moment for recording in self._recordings.values() for moment in recording.moments)
        snapshots.forget(self.machine.router, {moment.snapshot for moment in moments} - {READY})

    def lengths(self, names: Iterable[str]) -> dict[str, int]:
        """Return how many writes each scene takes, mounting included. It differs by a few from run to run."""
        return {name: self.recording(name).writes for name in names}

    def recording(self, scene: str) -> Recording:
        """Return the recording of a scene."""
        if scene not in self._recordings:
            begun = time.monotonic()
            self._recordings[scene] = self._record(scene)
            self._seconds += time.monotonic() - begun
        return self._recordings[scene]

    def spent(self) -> str:
        """Say what recording has cost, disks made for it included."""
        return f"{len(self._recordings)} scenes recorded in {self._seconds:.0f} s"

    def _record(self, scene: str) -> Recording:
        begin = Kept(self.prepared(SCENES[scene].before))
        moments = [Moment("", READY, begin)]
        disk = self.disk(begin, policy="all")
        with self.machine.running(READY, following=disk) as (line, _):
            came = self.go_on(line, scene, moments[0], disk)
            while came and "stage" in came:
                stage = came["stage"]
                name = f"{self.kind}-{scene}-{stage}"
                moments.append(Moment(stage, name, keep(self.machine.router, name, disk, self.place / name)))
                came = self.go_on(line, scene, moments[-1], disk)
            check_end(scene, came, SCENES[scene].code)
            return Recording(tuple(moments), disk.writes)

    def disk(self, kept: Kept, **settings: Any) -> Disk:
        """Return a disk that is as KEPT; what it keeps itself is in the file ``next``."""
        copy_file(kept.durable, self.place / "next")
        return Disk(self.place / "next", kept=kept, **settings)

    def go_on(self, line: Line, scene: str, moment: Moment, disk: Disk) -> Mapping[str, Any] | None:
        """Let a scene go on from a moment; return the next stage that it comes to, or how it ended.

        Return None if the power of DISK goes before that.
        """
        if moment.stage:
            line.send({})
            return line.answer("run", disk)
        mounted = line.ask("mount", disk, kind=self.kind)
        return mounted and line.ask("run", disk, words=self._words(SCENES[scene].command, mounted["target"]),
                                    scene=scene, without=self.without)

    def _words(self, words: tuple[str, ...], target: str) -> list[str]:
        return self.machine.workshop.argv(words, Path(target))[3:]

    def prepared(self, before: tuple[tuple[str, ...], ...]) -> Path:
        """Return a disk on which the router itself has done what comes BEFORE a scene."""
        if before not in self._prepared:
            begin = self.prepared(before[:-1]) if before else self.machine.blank
            image = self.place / f"prepared-{len(self._prepared)}"
            copy_file(begin, image)
            with self.machine.running(READY, following=Disk(image, policy="all")) as (line, _):
                if before:
                    target = line.asked("mount", kind=self.kind)["target"]
                    check_end("preparation", line.asked("run", words=self._words(before[-1], target)), 0)
                    line.asked("unmount")
                else:
                    line.asked("make", kind=self.kind)
            self._prepared[before] = image
        return self._prepared[before]


def check_end(what: str, ended: Mapping[str, Any] | None, code: int) -> None:
    """Refuse to go on after a command that did not end with CODE.

    :raises PartFailed: it did not
    """
    if ended is None or ended.get("code") != code:
        raise PartFailed(f"cannot go on: {what} ended otherwise than with {code}: {ended}")


def keep(vm: "VM", name: str, disk: Disk, path: Path) -> Kept:
    """Keep a machine in a snapshot, and its disk ``next`` as it is then, with what is durable in PATH."""
    kept = []

    @contextlib.contextmanager
    def still(vm: "VM") -> Iterator[None]:
        with _unflushed(vm, "next", disk):
            kept.append(disk.keep(path))
            yield

    snapshots.create(vm, name, still)
    return kept[0]


@contextlib.contextmanager
def _unflushed(vm: "VM", name: str, disk: Disk) -> Iterator[None]:
    """Have a machine stand still, without a flush of its disk NAME: QEMU does one then that no guest has asked for."""
    while True:
        asked = _flushes(vm, name)
        disk.ignores_flush = True
        vm.monitor.command("stop")
        if _flushes(vm, name) == asked:
            break
        # the guest has asked for one, too, in this moment
        disk.ignores_flush = False
        disk.flush()
        vm.monitor.command("cont")
    try:
        yield
    finally:
        disk.ignores_flush = False
        vm.monitor.command("cont")


def _flushes(vm: "VM", name: str) -> int:
    """Return how many flushes of a disk the guest has asked for and been answered."""
    return next(int(each["stats"]["flush_operations"]) for each in vm.monitor.command("query-blockstats")
                if each["device"] == name)
