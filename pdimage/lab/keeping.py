"""Starts the keeper of an environment, asks it to run programs, and reaches its network namespace."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fussy.errors import FussyError, SystemSetup

START_SECONDS = 20.0


class KeeperFailed(FussyError):
    """The keeper of an environment does not answer, or could not do what it was asked for."""


class Keeper:
    """The keeper that belongs to DIRECTORY (a prefix's ``virt``), which need not run. LOGS is where its log goes."""

    def __init__(self, directory: Path, logs: Path) -> None:
        self.directory, self.logs = directory, logs
        self._lifeline: int | None = None

    def start(self) -> bool:
        """Start it, if it does not run; return whether it did not.

        It ends with this process, however that ends, unless told to :meth:`stay`.

        :raises SystemSetup: this machine has no namespaces for us
        """
        if self.alive():
            with contextlib.suppress(KeeperFailed):
                self.programs()
                return False
            self._await_end()  # it is dying: whoever started it was killed
        ours, lifeline = reversed(os.pipe())
        wanted = ["unshare", "--net", "--pid", "--fork", "--kill-child=SIGKILL"]
        if os.geteuid() != 0:
            wanted += ["--user", "--map-root-user"]
        argv = [*wanted, "--", sys.executable, "-I", str(Path(__file__).with_name("keeper.py")), str(self.directory),
                str(lifeline)]
        with (self.logs / "keeper.log").open("ab") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                       pass_fds=(lifeline,))
        os.close(lifeline)
        self._lifeline = ours
        process.returncode = 0  # nobody waits for it here: it outlives this process, or is ended through its socket
        (self.directory / "keeper.pid").write_text(f"{process.pid} {started(process.pid)}")
        try:
            self._await(process.pid)
            self.run("ip", "link", "set", "dev", "lo", "up")
        except BaseException:
            self.stop()
            raise
        return True

    def stay(self) -> None:
        """Let it go on when this process ends."""
        self._ask({"do": "stay"})

    def _await(self, pid: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.alive():
            with contextlib.suppress(KeeperFailed):
                self.programs()
                return
            time.sleep(0.02)
        _reap(pid)
        said = (self.logs / "keeper.log").read_text(errors="replace").splitlines()[-1:]
        raise SystemSetup(f"cannot start an environment: {' '.join(said) or 'its keeper does not answer'}; "
                          "be root on a kernel with process and network namespaces")

    def alive(self) -> bool:
        """Tell whether it runs."""
        return self.pid is not None

    @property
    def pid(self) -> int | None:
        """The process that is in its network namespace, None if it does not run."""
        try:
            pid, start = map(int, (self.directory / "keeper.pid").read_text().split())
        except (OSError, ValueError):
            return None
        _reap(pid)
        return pid if started(pid) == start else None

    def stop(self) -> None:
        """End it, with all that runs in it. Nothing happens if it does not run."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(KeeperFailed):
                self._ask({"do": "exit"})
            self._await_end()
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def _await_end(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def spawn(self, name: str, argv: Sequence[str | Path]) -> None:
        """Start a program in the namespaces, in DIRECTORY; what it prints goes to NAME.log.

        :raises KeeperFailed: it can't be started, or one of that name runs
        """
        self._ask({"do": "spawn", "name": name, "argv": [*map(str, argv)], "cwd": str(self.directory),
                   "log": str(self.logs / f"{name}.log")})

    def kill(self, name: str, number: int) -> None:
        """Send a signal to a program and wait until it has ended; one that does not is killed."""
        self._ask({"do": "kill", "name": name, "signal": number})

    def programs(self) -> dict[str, int | None]:
        """Return what was started, with None for what runs and the exit code of what has ended.

        :raises KeeperFailed: the keeper does not answer
        """
        return self._ask({"do": "list"})

    def runs(self, name: str) -> bool:
        """Tell whether a program runs."""
        return self.alive() and self.programs().get(name, 0) is None

    @property
    def inside(self) -> tuple[str, ...]:
        """The beginning of a command line that runs a program in the network namespace.

        :raises KeeperFailed: it does not run
        """
        pid = self.pid
        if pid is None:
            raise KeeperFailed("cannot reach the environment: it does not run; start it")
        if os.geteuid() == 0:
            return ("nsenter", f"--net=/proc/{pid}/ns/net", "--")
        return ("nsenter", f"--target={pid}", "--user", "--net", "--preserve-credentials", "--")

    def run(self, *argv: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a program to its end in the network namespace.

        :raises KeeperFailed: it failed, and CHECK is on
        """
        done = subprocess.run([*self.inside, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", check=False, timeout=120)
        if check and done.returncode:
            raise KeeperFailed(f"cannot run {' '.join(argv)} in the environment: {done.stderr.strip()}")
        return done

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            with connected(self.directory, "keeper") as connection, connection.makefile("rw") as stream:
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                line = stream.readline()
        except OSError as error:
            raise KeeperFailed(f"cannot reach the environment in {self.directory}: {error}; start it") from error
        answer: dict[str, Any] = json.loads(line) if line else {}
        if "error" in answer:
            raise KeeperFailed(f"cannot {request['do']} {request.get('name', '')}: {answer['error']}")
        return answer


@contextlib.contextmanager
def connected(directory: Path, name: str, seconds: float = 30.0) -> Iterator[socket.socket]:
    """Have a connection to the socket NAME in DIRECTORY, whose path may be longer than sockets allow.

    :raises OSError: nobody listens there
    """
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(f"/proc/self/fd/{descriptor}/{name}")
            yield connection
    finally:
        os.close(descriptor)


def _reap(pid: int) -> None:
    """Let a child of ours that has ended go, so that it does not look alive."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def started(pid: int) -> int | None:
    """Return when a process was started, in ticks since the machine's boot; process ids are used again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])
