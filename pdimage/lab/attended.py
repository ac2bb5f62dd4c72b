"""A virtual router with two disks that can lose power, and an attendant in it (:mod:`pdimage.lab.attendant`).

It is booted once and kept in the snapshot READY, in which it has touched neither disk: ``left``, from which it is to
boot what a power cut left, and ``next``, on which upgrades go on.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import fussy
import pdimage
from pdimage.errors import PartFailed
from pdimage.lab import keeping, snapshots, temporary, unsynced
from pdimage.lab.attendant import PORT
from pdimage.lab.nbd import Server
from pdimage.lab.prefix import Prefix
from pdimage.lab.scenes import Workshop
from pdimage.lab.volatile import Disk

READY = "ready"
# One size for all, enough for xfs: a disk can't grow while the machine is in a snapshot.
_MEGABYTES = 300
_LIBRARY = "/usr/lib/lab/python"
_NEEDED = ("click", "msgspec", "python-gnupg", "backports.zstd")
_MODULES = ("__init__", "errors", "tools", "lab/__init__", "lab/attendant", "lab/booting", "lab/filesystems", "lab/nbd",
            "lab/scenes", "lab/stages", "lab/unsynced", "lab/volatile", "lab/writelog")
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

    def asked(self, do: str, **request: Any) -> Mapping[str, Any]:
        """Make a request and return the answer; no power goes meanwhile."""
        answer = self.ask(do, **request)
        assert answer is not None, "only a disk whose power goes leaves a request without an answer"
        return answer


class Machine:
    """A context: the router, and a workshop whose releases it has, in a directory ``place`` that goes in the end.

    ``blank`` is a disk with nothing on it. WITHOUT_SYNC: each sync of the attendant's, and of what it runs, does
    nothing.
    """

    def __init__(self, *, without_sync: bool = False) -> None:
        self._without_sync = without_sync
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> "Machine":
        with contextlib.ExitStack() as undo:
            prefix = temporary.make()
            undo.callback(temporary.discard, prefix)
            self.place = Path(prefix.paths.prefix()).parent / "disks"
            self.blank = self.place / "blank"
            (self.place / "workshop").mkdir(parents=True)
            self.workshop = Workshop(self.place / "workshop")
            with self.blank.open("wb") as file:
                file.truncate(_MEGABYTES << 20)
            self._start(prefix)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._undo.close()

    def _start(self, prefix: Prefix) -> None:
        """Boot, load the attendant, and keep that."""
        preloaded = {f"{_LIBRARY}/libeatmydata.so": str(unsynced.eatmydata())} if self._without_sync else {}
        disks = [{"type": "template", "name": "root"}, *(
            {"type": "nbd", "name": name, "url": f"nbd:unix:{self.place / name}"} for name in ("left", "next"))]
        domain = {"memory": 256, "vcpu": 1, "nics": [{"net": "wan"}], "ports": [PORT], "disks": disks,
                  "files": {**_library(), **preloaded, str(self.workshop.place): str(self.workshop.place)}}
        prefix.initialize()
        prefix.virt_conf({"nets": {"wan": {"type": "nat"}}, "domains": {"router": domain}})
        with self._plugged(Disk(self.blank), Disk(self.blank)):
            prefix.start()
            self.router = prefix.virt_env.get_vm("router")
            self.router.run(f"LD_PRELOAD={''.join(preloaded)} PYTHONPATH={_LIBRARY} setsid python3 "
                            "-m pdimage.lab.attendant >/run/attendant.log 2>&1 </dev/null &")
            with self.line() as line:
                line.asked("hello")
            self.router.create_snapshot(READY)
            self.router.power_off()

    @contextlib.contextmanager
    def _plugged(self, left: Disk, following: Disk) -> Iterator[Server]:
        """Have both disks where the machine looks for them, and return the server of the first."""
        with contextlib.ExitStack() as stack:
            servers = []
            for name, disk in (("left", left), ("next", following)):
                stack.callback(disk.close)
                servers.append(stack.enter_context(Server(disk, self.place / name)))
            yield servers[0]

    @contextlib.contextmanager
    def line(self) -> Iterator[Line]:
        """Have a way to the attendant."""
        line = Line(self.router.monitor.directory, f"router.{PORT}")
        try:
            yield line
        finally:
            line.close()

    @contextlib.contextmanager
    def running(self, snapshot: str, left: Disk | None = None, following: Disk | None = None
                ) -> Iterator[tuple[Line, Server]]:
        """Have the router go on from a snapshot, with these disks; in the end its power is cut, and theirs.

        Return the way in, and the server of the disk that was left.
        """
        left, following = left or Disk(self.blank), following or Disk(self.blank)
        with self._plugged(left, following) as server:
            snapshots.revert(self.router, snapshot, set_time=False)
            try:
                with self.line() as line:
                    yield line, server
            finally:
                self.router.power_off()
                left.cut()
                following.cut()


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
