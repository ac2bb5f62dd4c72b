"""The process that holds everything of one running environment, and takes it all along when it ends.

It is the first process of a process namespace and has a network namespace: QEMU, bridges, DHCP servers, ssh masters
live in these. When it ends, for whatever reason, the kernel kills every process in the first and removes the second, so
nothing of a lab can be left behind, not even by ``kill -9``.

:mod:`pdimage.lab.keeping` starts it, as ``unshare … python keeper.py DIRECTORY LIFELINE``: this file uses
nothing but the standard library. LIFELINE is a descriptor; when its other end is closed, which happens when the process
that has it dies, the keeper ends, unless it was told to stay. Requests come over the socket DIRECTORY/keeper, a JSON
object a line, one answer each::

    {"do": "spawn", "name": …, "argv": […], "cwd": …, "log": …}   start a program          {"pid": …}
    {"do": "list"}                                               {"NAME": null or exit code, …}
    {"do": "kill", "name": …, "signal": …}                       and wait for its end      {}
    {"do": "stay"}                                               mind the lifeline no longer                       {}
    {"do": "exit"}                                               end the environment
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

KILL_SECONDS = 5.0


class Keeper:
    """Starts programs and knows how each ended."""

    def __init__(self) -> None:
        self.pids: dict[str, int] = {}
        self.codes: dict[str, int | None] = {}
        self.stays = False

    def reap(self) -> None:
        """Take the exit codes of all that ended; as first process we inherit orphans as well."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                for name, pid in self.pids.items():
                    if pid == ended[0]:
                        self.codes[name] = os.waitstatus_to_exitcode(ended[1])

    def spawn(self, name: str, argv: list[str], cwd: str, log: str) -> dict[str, Any]:
        if name in self.codes and self.codes[name] is None:
            return {"error": f"{name} runs already"}
        try:
            with open(log, "ab") as output:
                child = subprocess.Popen(argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                         start_new_session=True)
        except OSError as error:
            return {"error": f"{argv[0]}: {error.strerror}"}
        child.returncode = 0  # reap() takes the code, not subprocess
        self.pids[name], self.codes[name] = child.pid, None
        return {"pid": child.pid}

    def kill(self, name: str, number: int) -> dict[str, Any]:
        """Signal the program and what it started; after some seconds it is killed."""
        for what in (number, signal.SIGKILL):
            self.reap()
            if self.codes.get(name, 0) is not None:
                return {}
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pids[name], what)
            waited = 0.0
            while self.codes[name] is None and waited < KILL_SECONDS:
                signal.sigtimedwait([signal.SIGCHLD], 0.05)
                waited += 0.05
                self.reap()
        return {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        self.reap()
        match request:
            case {"do": "spawn", "name": name, "argv": argv, "cwd": cwd, "log": log}:
                return self.spawn(name, argv, cwd, log)
            case {"do": "list"}:
                return dict(self.codes)
            case {"do": "kill", "name": name, "signal": number}:
                return self.kill(name, number)
            case {"do": "stay"}:
                self.stays = True
                return {}
            case {"do": "exit"}:
                raise SystemExit(0)
        return {"error": f"unknown request {request}"}


def main(directory: str, lifeline: int) -> None:
    """Answer requests until told to end, or until the lifeline breaks before we were told to stay."""
    os.chdir(directory)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    keeper = Keeper()
    Path("keeper").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("keeper")
        server.listen(16)
        while True:
            watched: list[Any] = [server] if keeper.stays else [server, lifeline]
            ready = select.select(watched, [], [], 1.0)[0]
            keeper.reap()
            if lifeline in ready:
                return
            if server in ready:
                serve(server, keeper)


def serve(server: socket.socket, keeper: Keeper) -> None:
    """Answer one request. A client that goes away or stays silent does no harm."""
    connection, _ = server.accept()
    with connection, contextlib.suppress(OSError, ValueError), connection.makefile("rw", encoding="utf-8") as stream:
        connection.settimeout(10)
        stream.write(json.dumps(keeper.answer(json.loads(stream.readline()))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
