"""Cuts the power of a virtual router in the middle of upgrades: as :mod:`pdimage.lab.powercut`, on the kernel it boots.

The router is kept in a snapshot of its memory, with two disks that it has not touched: the one that a power cut left,
and the next. A cycle goes back to that, boots from the first (what a boot does with it: check, mount, ``fussy
recover``), looks whether all is well, mounts the second, begins an upgrade there, and loses power in the middle of it.
QEMU is killed then, and what the second disk has on its platters is the first of the next cycle.
"""

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import fussy
import pdimage
from pdimage.errors import PartFailed
from pdimage.lab import keeping, temporary
from pdimage.lab.attendant import PORT
from pdimage.lab.nbd import Server
from pdimage.lab.powercut import Outcome, Plan
from pdimage.lab.scenes import SCENES, Workshop
from pdimage.lab.volatile import Disk, copy_file

# One size for all, enough for xfs: a disk can't grow while the machine is in a snapshot.
_MEGABYTES = 300
_LIBRARY = "/usr/lib/lab/python"
_NEEDED = ("click", "msgspec", "python-gnupg", "backports.zstd")
_MODULES = ("__init__", "errors", "tools", "lab/__init__", "lab/attendant", "lab/booting", "lab/filesystems", "lab/nbd",
            "lab/scenes", "lab/stages", "lab/unsynced", "lab/volatile", "lab/writelog")
_READY = "ready"
_SECONDS = 300.0


class Line:
    """The way to the attendant of a machine, at the socket NAME in DIRECTORY."""

    def __init__(self, directory: Path, name: str) -> None:
        self._stack = contextlib.ExitStack()
        self._connection = self._stack.enter_context(keeping.connected(directory, name))
        self._connection.settimeout(0.005)
        self._received = b""

    def close(self) -> None:
        self._stack.close()

    def ask(self, do: str, disk: Disk | None = None, **request: Any) -> Mapping[str, Any] | None:
        """Make a request and return the answer, None if the power of DISK goes before there is one.

        :raises PartFailed: the attendant failed, or does not answer
        """
        self.send({"do": do, **request})
        return self.answer(do, disk)

    def send(self, message: Mapping[str, Any]) -> None:
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def answer(self, what: str, disk: Disk | None = None) -> Mapping[str, Any] | None:
        """Return the next message, as :meth:`ask`."""
        deadline = time.monotonic() + _SECONDS
        while b"\n" not in self._received:
            if disk and not disk.has_power:
                return None
            if time.monotonic() > deadline:
                raise PartFailed(f"cannot {what} in a virtual router: it did not answer in {_SECONDS:.0f} s")
            with contextlib.suppress(TimeoutError):
                if not (part := self._connection.recv(1 << 16)):
                    raise PartFailed(f"cannot {what} in a virtual router: it has stopped")
                self._received += part
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer and not (disk and not disk.has_power):
            raise PartFailed(f"cannot {what} in a virtual router: {answer['failed']}")
        return answer


class Machine:
    """A context: a virtual router that loses power again and again, in upgrades on the file system ``kind``.

    They leave out the syncs WITHOUT (see :mod:`pdimage.lab.unsynced`).
    """

    kind = "ext4"

    def __init__(self, without: str = "") -> None:
        self.without = without
        self._prefix = temporary.make()
        self.place = Path(self._prefix.paths.prefix()).parent / "disks"
        self.left = self.place / "left.image"
        self._golden: dict[tuple[str, tuple[tuple[str, ...], ...]], Path] = {}

    def __enter__(self) -> "Machine":
        try:
            (self.place / "workshop").mkdir(parents=True)
            self.workshop = Workshop(self.place / "workshop")
            self._blank = self.place / "blank"
            with self._blank.open("wb") as file:
                file.truncate(_MEGABYTES << 20)
            copy_file(self._blank, self.left)
            self._start()
        except BaseException:
            temporary.discard(self._prefix)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        temporary.discard(self._prefix)

    def _start(self) -> None:
        """Boot, load the attendant, and keep that."""
        disks = [{"type": "template", "name": "root"}, *(
            {"type": "nbd", "name": name, "url": f"nbd:unix:{self.place / name}"} for name in ("left", "next"))]
        domain = {"memory": 256, "vcpu": 1, "nics": [{"net": "wan"}], "ports": [PORT], "disks": disks,
                  "files": {**_library(), str(self.workshop.place): str(self.workshop.place)}}
        self._prefix.initialize()
        self._prefix.virt_conf({"nets": {"wan": {"type": "nat"}}, "domains": {"router": domain}})
        with self._plugged(Disk(self.left), self.disk(None)):
            self._prefix.start()
            self.router = self._prefix.virt_env.get_vm("router")
            self.router.run(f"PYTHONPATH={_LIBRARY} setsid python3 -m pdimage.lab.attendant "
                            ">/run/attendant.log 2>&1 </dev/null &")
            line = Line(self.router.monitor.directory, f"router.{PORT}")
            line.ask("hello")
            line.close()
            self.router.create_snapshot(_READY)
            self.router.power_off()

    def _copy(self, source: Path, name: str) -> Path:
        copy_file(source, self.place / f"{name}.image")
        return self.place / f"{name}.image"

    @contextlib.contextmanager
    def _plugged(self, left: Disk, following: Disk) -> Iterator[None]:
        """Have both disks where the machine looks for them; they are closed in the end."""
        with contextlib.ExitStack() as stack:
            for name, disk in (("left", left), ("next", following)):
                stack.callback(disk.close)
                stack.enter_context(Server(disk, self.place / name))
            yield

    def disk(self, plan: Plan | None) -> Disk:
        """Return a disk on which PLAN can begin, an empty one if there is none."""
        image = self._copy(self.golden(plan.scene) if plan else self._blank, "next")
        return Disk(image, policy=plan.policy, seed=plan.seed) if plan else Disk(image)

    def lengths(self, names: Iterable[str]) -> dict[str, int]:
        """Return how many writes each scene takes, mounting included. It differs by a few from run to run."""
        found = {}
        for name in names:
            with self.running(Disk(self.left), self.disk(Plan(name, 0, "all", 0))) as (line, disk):
                self.begin(line, disk, Plan(name, 0, "all", 0))
                found[name] = disk.writes
        return found

    @contextlib.contextmanager
    def running(self, left: Disk, following: Disk) -> Iterator[tuple[Line, Disk]]:
        """Have the machine run, as it was before it touched a disk, with these; in the end its power is cut.

        Return the way in, and the second disk.
        """
        with self._plugged(left, following):
            self.router.revert_snapshot(_READY)
            line = Line(self.router.monitor.directory, f"router.{PORT}")
            try:
                yield line, following
            finally:
                line.close()
                self.router.power_off()
                left.cut()
                following.cut()

    def golden(self, scene: str) -> Path:
        """Return a disk on which SCENE can begin, which the router itself has made."""
        before = SCENES[scene].before
        if (self.kind, before) not in self._golden:
            image = self._copy(self._blank, f"golden-{len(self._golden)}")
            disk = Disk(image, policy="all")
            with self.running(Disk(self.left), disk) as (line, _):
                line.ask("make", kind=self.kind)
                target = _answer(line.ask("mount", kind=self.kind))["target"]
                for words in before:
                    ended = _answer(line.ask("run", words=self._words(words, target)))
                    if ended["code"]:
                        raise PartFailed(f"cannot prepare a disk: {' '.join(words)}: {ended['output']}")
                line.ask("unmount")
            self._golden[self.kind, before] = image
        return self._golden[self.kind, before]

    def _words(self, words: tuple[str, ...], target: str) -> list[str]:
        return self.workshop.argv(words, Path(target))[3:]

    def begin(self, line: Line, disk: Disk, plan: Plan) -> bool:
        """Begin the scene of PLAN and cut the power as it says; return whether the command had ended before."""
        scene = SCENES[plan.scene]
        if not plan.stage:
            disk.cut_at = plan.at
        mounted = line.ask("mount", disk, kind=self.kind)
        if mounted is None:
            return False
        words = self._words(scene.command, mounted["target"])
        answer = line.ask("run", disk, words=words, scene=plan.scene, stage=plan.stage,
                          without=self.without)
        if answer and plan.stage:
            if "stage" not in answer:
                raise PartFailed(f"cannot cut at the stage {plan.stage}: {plan.scene} never came to it: {answer}")
            disk.cut_at = disk.writes + plan.at
            line.send({})
            answer = line.answer("run", disk)
        if answer is None or not disk.has_power:
            return False
        disk.cut()
        if answer["code"] != scene.code:
            raise PartFailed(f"cannot go on: {plan.scene} ended with {answer['code']}: {answer['output']}")
        return True


def cuts(machine: Machine, plans: Iterable[Plan]) -> Iterator[Outcome]:
    """Carry out PLANS one after the other; each is judged in the cycle that carries out the next."""
    before: tuple[Plan, bool] | None = None
    for plan in (*plans, None):
        begun = time.monotonic()
        if before and before[0].again:
            _boot_once(machine, *before)
        with machine.running(Disk(machine.left, policy="all"), machine.disk(plan)) as (line, disk):
            found = line.ask("boot", kind=machine.kind, scene=before[0].scene, done=before[1]) if before else None
            done = machine.begin(line, disk, plan) if plan else False
        disk.path.replace(machine.left)
        if before and found:
            yield Outcome(*before, found["repaired"], tuple(found["problems"]), time.monotonic() - begun)
        before = (plan, done) if plan else None


def _boot_once(machine: Machine, plan: Plan, done: bool) -> None:
    """Boot from what was left, with a second power cut on the way."""
    left = Disk(machine.left, cut_at=plan.again, policy=plan.policy, seed=plan.seed)
    with machine.running(left, machine.disk(None)) as (line, _):
        line.ask("boot", left, kind=machine.kind, scene=plan.scene, done=done)


def _answer(answer: Mapping[str, Any] | None) -> Mapping[str, Any]:
    assert answer is not None, "without a disk whose power may go there is an answer"
    return answer


def _library() -> dict[str, str]:
    """Return what the attendant is made of: paths in the machine, and files and directories of this one."""
    ours = Path(pdimage.__file__).parent
    files = {f"{_LIBRARY}/fussy": str(Path(fussy.__file__).parent)}
    files |= {f"{_LIBRARY}/pdimage/{name}.py": str(ours / f"{name}.py") for name in _MODULES}
    for name in _NEEDED:
        for file in metadata.distribution(name).files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                files[f"{_LIBRARY}/{file}"] = str(file.locate())
    return files
