"""Talks to QEMU (its monitor, QMP) and to the agent inside a guest."""

import base64
import contextlib
import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from fussy.errors import FussyError
from pdimage.lab import keeping

# What it says of connections that fail is told by our own errors; we try again until QEMU is up.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)

# Writing a gigabyte of memory into a file takes seconds, more on a busy machine.
MIGRATION_SECONDS = 300.0


class MonitorFailed(FussyError):
    """QEMU, or the agent in a guest, does not answer or refuses."""


class Monitor:
    """The monitor at the socket NAME.qmp in DIRECTORY. Each command is a connection of its own."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name

    def command(self, command: str, **arguments: Any) -> Any:
        """Carry out one command and return its answer.

        :raises MonitorFailed: QEMU does not answer, or refuses
        """
        with self._connected() as monitor:
            return self._ask(monitor, command, **arguments)

    def status(self) -> str:
        """Return how the machine is, such as ``running``, ``paused``, ``inmigrate``, ``postmigrate``."""
        return str(self.command("query-status")["status"])

    def await_running(self, alive: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until QEMU answers; ALIVE tells whether it runs at all.

        :raises MonitorFailed: it has ended, or does not answer in that time
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.status()
                return
            except MonitorFailed:
                if time.monotonic() >= deadline or not alive():
                    raise
                time.sleep(0.02)

    def save_memory(self, path: Path) -> None:
        """Write memory and devices of the machine, which must be stopped, into PATH, and wait for the end of it."""
        self._migrate("migrate", f"exec:exec cat >{_quoted(path)}")

    def load_memory(self, path: Path) -> None:
        """Go on from what :meth:`save_memory` wrote; QEMU was started to wait for it."""
        self._migrate("migrate-incoming", f"exec:exec cat {_quoted(path)}")

    def _migrate(self, command: str, uri: str) -> None:
        with self._connected() as monitor:
            # the default limit is made for networks
            self._ask(monitor, "migrate-set-parameters", **{"max-bandwidth": 1 << 40})
            self._ask(monitor, command, uri=uri)
            deadline = time.monotonic() + MIGRATION_SECONDS
            while time.monotonic() < deadline:
                found = self._ask(monitor, "query-migrate")
                if found.get("status") == "completed":
                    return
                if found.get("status") == "failed":
                    reason = found.get("error-desc", "no reason is given")
                    raise MonitorFailed(f"cannot {command} {self.name}: {reason}")
                time.sleep(0.02)
        raise MonitorFailed(f"cannot {command} {self.name}: it took more than {MIGRATION_SECONDS:.0f} s")

    def _ask(self, monitor: QEMUMonitorProtocol, command: str, **arguments: Any) -> Any:
        try:
            return monitor.cmd(command, **arguments)
        except (QMPError, OSError) as error:
            raise MonitorFailed(f"cannot {command} {self.name}: {error}") from error

    @contextlib.contextmanager
    def _connected(self) -> Iterator[QEMUMonitorProtocol]:
        descriptor = os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        monitor = QEMUMonitorProtocol(f"/proc/self/fd/{descriptor}/{self.name}.qmp")
        try:
            monitor.settimeout(MIGRATION_SECONDS)
            try:
                monitor.connect(negotiate=True)
            except (QMPError, OSError) as error:
                raise MonitorFailed(f"cannot reach QEMU of {self.name}: {error}; is the machine started?") from error
            yield monitor
        finally:
            with contextlib.suppress(QMPError, OSError, EOFError):
                monitor.close()
            os.close(descriptor)


class Agent:
    """The agent in a guest, at the socket NAME.agent in DIRECTORY: a way in that needs no network."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name

    def command(self, command: str, seconds: float = 10.0, **arguments: Any) -> Any:
        """Carry out one command of the agent and return its answer.

        :raises MonitorFailed: it does not answer in that time, or refuses
        """
        mark = time.monotonic_ns()
        try:
            with keeping.connected(self.directory, f"{self.name}.agent", seconds) as connection, \
                    connection.makefile("rwb") as stream:
                # answers to earlier clients may still be on the line; the agent names ours by the number
                for request in ({"execute": "guest-sync", "arguments": {"id": mark}},
                                {"execute": command, "arguments": arguments}):
                    stream.write(json.dumps(request).encode() + b"\n")
                stream.flush()
                synced = False
                for line in stream:
                    answer = json.loads(line.lstrip(b"\xff"))
                    if synced and "error" in answer:
                        raise MonitorFailed(f"cannot {command} in {self.name}: {answer['error'].get('desc')}")
                    if synced:
                        return answer.get("return")
                    synced = answer.get("return") == mark
        except (OSError, ValueError) as error:
            raise MonitorFailed(f"cannot {command} in {self.name}: {error or 'no answer'}; "
                                "is the machine up, and its agent?") from error
        raise MonitorFailed(f"cannot {command} in {self.name}: the agent hung up")

    def run(self, *argv: str, seconds: float = 60.0) -> tuple[int, str]:
        """Run a program in the guest; return its exit code and what it printed.

        :raises MonitorFailed: it can't be run, or does not end in that time
        """
        started = self.command("guest-exec", path=argv[0], arg=list(argv[1:]), **{"capture-output": True})
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self.command("guest-exec-status", pid=started["pid"])
            if status["exited"]:
                output = b"".join(base64.b64decode(status.get(name, "")) for name in ("out-data", "err-data"))
                return int(status.get("exitcode", -1)), output.decode(errors="replace")
            time.sleep(0.1)
        raise MonitorFailed(f"cannot run {argv[0]} in {self.name}: it did not end in {seconds:.0f} s")

    def set_time(self) -> None:
        """Set the guest's clock to the host's; that of a restored machine stands where it was saved."""
        self.command("guest-set-time", time=time.time_ns())


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
