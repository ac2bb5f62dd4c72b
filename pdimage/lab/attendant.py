"""Runs in a virtual router whose disks lose power: mounts them, boots from them, upgrades them, when the host says so.

All of fussy is loaded before the machine is kept in a snapshot: under emulation the start of Python takes longer than
what it is started for. Requests come, and answers go, as lines of JSON on a port of the machine (virtio-serial).
"""

import contextlib
import functools
import importlib
import json
import multiprocessing
import os
import pkgutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fussy
from pdimage import tools
from pdimage.lab import booting, unsynced
from pdimage.lab.filesystems import FILESYSTEMS
from pdimage.lab.scenes import SCENES
from pdimage.lab.stages import STAGES, Stage

PORT = "attendant"
# The disk that an earlier power cut left, and the one on which it goes on.
LEFT, NEXT = Path("/dev/vdb"), Path("/dev/vdc")
# Where disks are mounted.
PLACE = Path("/mnt")
_OUTPUT = Path("/run/attendant.output")
# A child has everything loaded that its parent has.
_FORKING = multiprocessing.get_context("fork")


class Line:
    """The port to the host."""

    def __init__(self) -> None:
        name = next(path.parent.name for path in Path("/sys/class/virtio-ports").glob("*/name")
                    if path.read_text().strip() == PORT)
        self._file = open(f"/dev/{name}", "r+b", buffering=0)  # noqa: SIM115

    def receive(self) -> Any:
        """Return the next message; nobody may be there to send it for now."""
        line = b""
        while not line.endswith(b"\n"):
            part = self._file.read(1)
            if not part:
                time.sleep(0.01)
            line += part or b""
        return json.loads(line)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message."""
        self._file.write(json.dumps(message).encode() + b"\n")


class Attendant:
    """Does what is asked for on LINE; each method is a request."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self._mounts = contextlib.ExitStack()

    def make(self, kind: str) -> Mapping[str, Any]:
        """Make a file system on the next disk."""
        tools.run([*FILESYSTEMS[kind].make, NEXT], what=f"make {kind}")
        return {}

    def mount(self, kind: str) -> Mapping[str, Any]:
        """Mount the next disk; return the target's directory."""
        return {"target": str(self._mounts.enter_context(booting.target(FILESYSTEMS[kind], NEXT, PLACE)).root)}

    def unmount(self) -> Mapping[str, Any]:
        """Unmount it: all is on it then."""
        self._mounts.close()
        return {}

    def run(self, words: Sequence[str], scene: str = "", without: str = "") -> Mapping[str, Any]:
        """Run a command of fussy, and ask the host before each stage of SCENE; leave out the syncs WITHOUT.

        Return its exit code and output.
        """
        child = _FORKING.Process(target=self._command, args=(words, scene, without))
        child.start()
        child.join()
        return {"code": child.exitcode, "output": _OUTPUT.read_text()}

    def _command(self, words: Sequence[str], scene: str, without: str) -> None:
        """Become that command."""
        with _OUTPUT.open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        for name, stage in STAGES.get(scene, {}).items():
            self._stop_at(name, stage)
        unsynced.run(words, without)

    def _stop_at(self, name: str, stage: Stage) -> None:
        """Have the function with which a stage begins wait for a word of the host."""
        module = importlib.import_module(stage.module)
        function = getattr(module, stage.function)
        calls = 0

        @functools.wraps(function)
        def stopped(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == stage.call:
                self.line.send({"stage": name})
                self.line.receive()
            return function(*arguments, **named)

        setattr(module, stage.function, stopped)

    def boot(self, kind: str, scene: str, done: bool) -> Mapping[str, Any]:
        """Boot from the disk that was left (see :func:`pdimage.lab.booting.boot`)."""
        repaired, problems = booting.boot(FILESYSTEMS[kind], LEFT, PLACE, SCENES[scene], done)
        return {"repaired": repaired, "problems": problems}


def load() -> None:
    """Load all of fussy, as far as what it needs is there."""
    for module in pkgutil.iter_modules(fussy.__path__):
        if not module.name.startswith("__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(f"fussy.{module.name}")


def main() -> None:
    """Answer requests until the machine is switched off."""
    load()
    line = Line()
    attendant = Attendant(line)
    requests: Mapping[str, Callable[..., Mapping[str, Any]]] = {
        "make": attendant.make, "mount": attendant.mount, "unmount": attendant.unmount, "run": attendant.run,
        "boot": attendant.boot, "hello": dict}
    while True:
        request = line.receive()
        try:
            answer = requests[request.pop("do")](**request)
        except Exception:
            answer = {"failed": traceback.format_exc()}
        line.send(answer)


if __name__ == "__main__":
    main()
