"""The one module of pdconfd that runs programs, writes their files and ends processes.

Every program has a time limit and runs in a session of its own, which is killed as a whole when the limit passes.
"""

import json
import logging
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from paradrop.backend.pdconfd.config.effects import (
    Effect,
    RememberLink,
    Run,
    RunAll,
    SetSysctl,
    StartDaemon,
    StopDaemon,
)
from paradrop.lib.utils import pdosq

log = logging.getLogger(__name__)

LIMIT = 30.0  # seconds for a program
READY_LIMIT = 5.0  # seconds for a daemon to write its pid file
TERM_LIMIT = 4.0  # seconds after SIGTERM, and again after SIGKILL
OUTPUT_LIMIT = 1 << 20  # bytes kept of what a program says

WATCHERS = Path("/proc/sys/fs/inotify/max_user_instances")
WATCHERS_WANTED = 1024  # each dnsmasq takes one and does not start without; the kernel's 128 are for all of root's

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Done(NamedTuple):
    """How a program ended: exit status (minus the signal's number if one killed it), process id, what it said."""

    status: int
    pid: int
    output: str
    errors: str


class Runner:
    """Performs effects.

    Args:
        prefix: words put before each command, for example ``ip netns exec NAME`` to work in that network namespace.
        limit: seconds that one program may take.
    """

    def __init__(self, prefix: Sequence[str] = (), limit: float = LIMIT) -> None:
        self.prefix = tuple(prefix)
        self.limit = limit

    def learn(self, effect: Effect) -> Effect | None:
        """Return the undo of an effect that depends on how the system is before it, without changing anything.

        Raises:
            OSError: the state cannot be read.
            TimeoutError: it took too long.
        """
        if isinstance(effect, RememberLink):
            return self._link_state(effect.ifname)
        if isinstance(effect, SetSysctl):
            before = self._read("sysctl", "--values", effect.key).strip()
            return SetSysctl(effect.key, before)
        return None

    def perform(self, effect: Effect) -> Done:
        """Do it.

        Raises:
            OSError: a program cannot be started, a file not be written.
            TimeoutError: it took too long; what it did so far stays.
        """
        if isinstance(effect, StartDaemon):
            return self._start(effect)
        if isinstance(effect, StopDaemon):
            return stop(effect)
        if isinstance(effect, RunAll):
            return self._run_all(effect)
        if isinstance(effect, RememberLink):
            return Done(0, 0, "", "")  # learning was all
        return self.run(effect.argv, effect.stdin if isinstance(effect, Run) else "")

    def run(self, argv: Sequence[str], stdin: str = "") -> Done:
        """Run a program to its end; see perform for what is raised."""
        environment = {"PATH": os.environ.get("PATH", _PATH) + ":/usr/sbin:/sbin", "LC_ALL": "C"}
        # Files, not pipes: a daemon that keeps its outputs open must not keep us waiting
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output, \
                tempfile.TemporaryFile() as errors:
            given.write(stdin.encode("utf-8", "surrogateescape"))
            given.seek(0)
            process = subprocess.Popen([*self.prefix, *argv], stdin=given, stdout=output, stderr=errors,
                                       env=environment, start_new_session=True)
            try:
                if not _ended(process.pid, self.limit):
                    raise TimeoutError(f"no end after {self.limit:g} s")
                status = process.wait()
            finally:
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            said = [_read_back(file.fileno()) for file in (output, errors)]
        return Done(status, process.pid, *said)

    def _run_all(self, effect: RunAll) -> Done:
        """Run them all; the first failure is the outcome."""
        outcome = Done(0, 0, "", "")
        for argv in effect.commands:
            done = self.run(argv)
            if not outcome.status:
                outcome = done
        return outcome

    def _start(self, effect: StartDaemon) -> Done:
        stop(effect.stop())  # one that an earlier life of ours left
        for path in (effect.conf, *effect.leftovers):
            pdosq.makedirs(Path(path).parent)
        write_private(effect.conf, effect.text)
        _let_many_watch_files()
        done = self.run(effect.argv)
        if done.status:
            return done
        deadline = time.monotonic() + READY_LIMIT
        while (pid := daemon_pid(effect.pidfile, effect.conf)) is None:
            if time.monotonic() > deadline:
                return done._replace(status=1, errors=f"it has gone, or wrote no {effect.pidfile}")
            time.sleep(0.02)
        return done._replace(pid=pid)

    def _read(self, *argv: str) -> str:
        done = self.run(argv)
        if done.status:
            raise OSError(f"{' '.join(argv)}: {done.errors.strip()}")
        return done.output

    def _link_state(self, ifname: str) -> RunAll:
        """Return the commands that bring back how a link is now."""
        found = json.loads(self._read("ip", "-json", "address", "show", "dev", ifname))
        link: dict[str, Any] = next(entry for entry in found if entry)
        routes: list[dict[str, Any]] = json.loads(self._read("ip", "-json", "route", "show", "dev", ifname) or "[]")
        up = "UP" in link["flags"]
        commands: list[tuple[str, ...]] = [("ip", "link", "set", "dev", ifname, "up" if up else "down")]
        commands += [_add_address(ifname, entry) for entry in link["addr_info"] if entry["scope"] != "link"]
        commands += [_add_route(ifname, route) for route in routes if route.get("protocol") != "kernel"]
        return RunAll(tuple(commands))


def daemon_pid(pidfile: str, conf: str) -> int | None:
    """Return the process id in a pid file if that process runs and was started with that configuration file."""
    try:
        with open(pidfile) as file:
            pid = int(file.read())
    except (OSError, ValueError):
        return None
    return pid if _is_ours(pid, conf) else None


def stop(effect: StopDaemon) -> Done:
    """End a daemon: SIGTERM, after 4 s SIGKILL. One that has already gone, or is not ours, is left alone."""
    pid = daemon_pid(effect.pidfile, effect.conf)
    done = Done(0, pid or 0, "", "")
    if pid is not None and not _end(pid, effect.conf):
        done = done._replace(status=1, errors=f"process {pid} does not end")
    else:
        for path in (effect.pidfile, effect.conf, *effect.leftovers):
            Path(path).unlink(missing_ok=True)
    return done


def write_private(path: str, text: str) -> None:
    """Write a file that only its owner can read, for keys may be in it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)


def _let_many_watch_files() -> None:
    """Raise the kernel's limit of inotify instances for each user, if it is lower than what 100 chutes need."""
    try:
        if int(WATCHERS.read_text()) < WATCHERS_WANTED:
            WATCHERS.write_text(f"{WATCHERS_WANTED}\n")
    except (OSError, ValueError) as error:
        log.info("cannot raise %s: %s", WATCHERS, error)


def _is_ours(pid: int, conf: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    wanted = os.fsencode(conf)
    return any(word == wanted or word.endswith(b"=" + wanted) for word in words)


def _ended(pid: int, limit: float) -> bool:
    """Wait until a child has ended; False if it has not after ``limit`` seconds. Popen.wait would look now and then."""
    descriptor = os.pidfd_open(pid)
    try:
        return bool(select.select([descriptor], [], [], limit)[0])
    finally:
        os.close(descriptor)


def _end(pid: int, conf: str) -> bool:
    """End a process; return True once it has gone. The descriptor keeps a reused process id from being hit."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not _is_ours(pid, conf):
                return True
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            if select.select([descriptor], [], [], TERM_LIMIT)[0]:
                return True
        return False
    finally:
        os.close(descriptor)


def _read_back(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, OUTPUT_LIMIT).decode("utf-8", "replace")


def _add_address(ifname: str, entry: dict[str, Any]) -> tuple[str, ...]:
    """Return the command that adds an address as ``ip -json address`` shows it."""
    words = ["ip", "address", "replace", f"{entry['local']}/{entry['prefixlen']}", "dev", ifname]
    for key in ("broadcast", "label", "scope"):
        if key in entry:
            words += [key, str(entry[key])]
    if entry.get("dynamic"):
        words += ["valid_lft", str(entry["valid_life_time"]), "preferred_lft", str(entry["preferred_life_time"])]
    return tuple(words)


def _add_route(ifname: str, route: dict[str, Any]) -> tuple[str, ...]:
    """Return the command that adds a route as ``ip -json route`` shows it."""
    words = ["ip", "route", "replace", str(route["dst"])]
    for key, word in (("gateway", "via"), ("protocol", "proto"), ("scope", "scope"), ("prefsrc", "src"),
                      ("metric", "metric")):
        if key in route:
            words += [word, str(route[key])]
    return (*words, "dev", ifname)
