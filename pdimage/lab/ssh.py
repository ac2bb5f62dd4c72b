"""ssh into a machine, over one connection that the environment's keeper holds.

The master connection lives in the environment's network namespace, and clients reach it through a socket: they need no
way into that namespace, a new session costs a tenth of a second, and no client ever connects to a network of the host,
where the same address may be somebody else's.
"""

import contextlib
import io
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from fussy.errors import FussyError
from pdimage.lab import dirlock, utils
from pdimage.lab.keeping import Keeper
from pdimage.lab.utils import CommandStatus

# The default one keeps an emulated processor busy for longer, with what nobody here has to fear.
_KEY_EXCHANGE = "curve25519-sha256"
UNREACHABLE = 255  # ssh's own exit code for a connection that can't be had


class Unreachable(FussyError):
    """A machine does not let us in by ssh."""


class Session:
    """ssh to root (or USER) of the machine NAME at ADDRESS. KEY and KNOWN_HOSTS are files of the prefix."""

    def __init__(self, keeper: Keeper, name: str, address: str, key: Path, known_hosts: Path,
                 user: str = "root") -> None:
        self.keeper, self.name, self.destination = keeper, name, f"{user}@{address}"
        self.key, self.known_hosts = key, known_hosts
        self.program = f"ssh-{name}"

    def connect(self, retries: int = 50) -> None:
        """Have the master connection, made if there is none.

        :raises Unreachable: it can't be had after RETRIES attempts, made some tenths of a second apart
        """
        with dirlock.held_file(self.keeper.directory / f"{self.name}.ssh.lock"):  # others may be connecting just now
            for attempt in range(max(retries, 1)):
                if attempt:
                    time.sleep(0.3)
                if self.connected() or self._connects():
                    return
        raise Unreachable(f"cannot reach {self.name} by ssh: {self._said() or 'no answer'}; "
                          f"see what it printed with 'pdimage lab console {self.name}' or in {self.keeper.logs}")

    def _connects(self) -> bool:
        """Start a master connection; return whether it can be used."""
        self.disconnect()
        self.keeper.spawn(self.program, ["ssh", *self._options(), "-M", "-N", "-o", "ConnectTimeout=10",
                                         self.destination])
        deadline = time.monotonic() + 30
        while self.keeper.runs(self.program) and time.monotonic() < deadline:
            if self.connected():
                return True
            time.sleep(0.05)
        return False

    def connected(self) -> bool:
        """Tell whether there is a live master connection."""
        if not (self.keeper.directory / f"{self.name}.ssh").exists():
            return False
        argv = ["ssh", *self._options(), "-O", "check", self.destination]
        try:
            return subprocess.run(argv, cwd=self.keeper.directory, stdin=subprocess.DEVNULL, capture_output=True,
                                  check=False, timeout=60).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def disconnect(self) -> None:
        """End the master connection, and with it all sessions over it."""
        if self.keeper.runs(self.program):
            self.keeper.kill(self.program, signal.SIGTERM)
        (self.keeper.directory / f"{self.name}.ssh").unlink(missing_ok=True)

    def run(self, command: str | Sequence[str], data: str | None = None, *, shown: bool = False,
            seconds: float | None = None) -> CommandStatus:
        """Run COMMAND (a line for the shell, or words) with DATA on its standard input; return how it ended.

        What it prints is passed on at once if SHOWN. The code is 255 if the machine went away.

        :raises Unreachable: the machine can't be reached, or the command did not end in SECONDS
        """
        self.connect()
        line = command if isinstance(command, str) else shlex.join(command)
        with subprocess.Popen([*self.command_line(), "--", line], cwd=self.keeper.directory, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            timer = _Timer(process, seconds)
            with timer:
                status = utils.drain_ssh_channel(process, _stream(data), *((sys.stdout, sys.stderr) if shown
                                                                           else (None, None)))
        if timer.over:
            raise Unreachable(f"cannot run {line!r} in {self.name}: it did not end in {seconds} s")
        return status

    def command_line(self, *extra: str) -> list[str]:
        """Return an ssh command line over the master connection, to be run in the keeper's directory.

        It fails at once where there is no such connection.
        """
        return ["ssh", *self._options(), "-o", "ControlMaster=no", "-o", "ProxyCommand=false", *extra, self.destination]

    def copy(self, source: Sequence[str], target: Sequence[str]) -> None:
        """Pipe the output of one command (words) into another; both may be :meth:`command_line` with more behind.

        :raises Unreachable: one of the two failed
        """
        self.connect()
        with subprocess.Popen(source, cwd=self.keeper.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as sender:
            done = subprocess.run(target, cwd=self.keeper.directory, stdin=sender.stdout, capture_output=True,
                                  check=False)
            assert sender.stdout and sender.stderr
            sender.stdout.close()
            said = sender.stderr.read() + done.stderr
        if sender.returncode or done.returncode:
            reason = said.decode(errors="replace").strip() or "it went away"
            raise Unreachable(f"cannot copy with {self.name}: {reason}")

    def _options(self) -> list[str]:
        return ["-F", "none", "-i", str(self.key), "-o", f"UserKnownHostsFile={self.known_hosts}",
                "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
                "-o", "LogLevel=ERROR", "-o", f"HostKeyAlias={self.name}", "-o", f"ControlPath={self.name}.ssh",
                "-o", f"KexAlgorithms={_KEY_EXCHANGE}", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=6"]

    def _said(self) -> str:
        with contextlib.suppress(OSError):
            return "".join((self.keeper.logs / f"{self.program}.log").read_text(errors="replace").splitlines()[-1:])
        return ""


class _Timer:
    """Kills a process when its time is over."""

    def __init__(self, process: "subprocess.Popen[bytes]", seconds: float | None) -> None:
        self.over = False
        self._process = process
        self._timer = threading.Timer(seconds, self._kill) if seconds is not None else None

    def _kill(self) -> None:
        self.over = True
        self._process.kill()

    def __enter__(self) -> None:
        if self._timer:
            self._timer.start()

    def __exit__(self, *args: object) -> None:
        if self._timer:
            self._timer.cancel()


def _stream(data: str | None) -> IO[str] | None:
    return io.StringIO(data) if data is not None else None
