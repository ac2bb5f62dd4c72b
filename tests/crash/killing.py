"""Kills a fussy command, or a function, at its n-th system call that changes the disk, for every n, or lets it fail.

strace(1) counts the calls of an undisturbed run, and then delivers SIGKILL on entering one of them. Only calls of the
command itself count, and only those that name something below the target. A process that is killed leaves what its
last call that changed something left, so syncs and calls that fail are no points of their own.

A command runs in a fork of this process, which has imported all it needs: starting Python anew for each of many hundred
kills would take most of the time.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import bsdiff4  # noqa: F401 (the publisher imports it late, with more calls if a directory has changed meanwhile)

from fussy import cli, gpghome
from fussy.updating import apart

CHANGING = ("openat,write,pwrite64,mkdir,mkdirat,link,linkat,rename,renameat,renameat2,symlink,symlinkat,unlink,"
            "unlinkat,rmdir,chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,utimensat,setxattr,fsetxattr,mknod,mknodat,"
            "truncate,ftruncate")
TIME_LIMIT = 60
Command = Sequence[str] | Callable[[], object]
_LINE = re.compile(r"(\w+)\((.*) = (?!-1 )")


@dataclass(frozen=True)
class Point:
    """The COUNT-th call of SYSCALL (from 1); ``text`` is what strace printed of it."""

    syscall: str
    count: int
    text: str


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code, or the negative number of the signal that ended it; and what it said."""

    code: int
    said: str


def run(command: Command) -> int:
    """Run ``fussy COMMAND``, or a function, undisturbed; return its exit code."""
    with open(os.devnull, "w") as output:
        child = os.fork()
        if not child:
            _run(command, output)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_short(command: Sequence[str], room: int) -> Done:
    """Run ``fussy COMMAND`` where memory ends ROOM bytes beyond what this process has."""
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if not child:
            threading.stack_size(1 << 18)  # eight MiB otherwise, and nothing else would ever lack room
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room,) * 2)
            _run(command, output)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        return Done(os.waitstatus_to_exitcode(status), output.read())


def trace(command: Command, *options: str) -> Done:
    """Run ``fussy COMMAND``, or a function, under strace with OPTIONS.

    Its directories for gpg lie in a place of their own: what others left in ``/run``, swept, would be more calls.
    """
    place = gpghome.short_place(["/run", "/tmp"])
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryDirectory(prefix="kill-", dir=place) as homes:
        child = os.fork()
        if not child:
            gpghome.short_place = lambda candidates: Path(homes)
            os.kill(os.getpid(), signal.SIGSTOP)  # until strace watches it
            _run(command, output)
        os.waitpid(child, os.WUNTRACED)
        with subprocess.Popen(["strace", "-qq", "-y", "-s", "0", *options, "-p", str(child)],
                              stdin=subprocess.DEVNULL, stdout=output, stderr=output) as strace:
            while strace.poll() is None and not _watched(child):
                time.sleep(0.001)
            os.kill(child, signal.SIGCONT)
            _, status = os.waitpid(child, 0)
        gpghome.sweep(Path(homes))
        output.seek(0)
        return Done(os.waitstatus_to_exitcode(status), output.read())


def _run(command: Command, output: IO[str]) -> NoReturn:
    """Be a ``fussy`` process."""
    code = 70
    try:
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
        sys.stdin, sys.stdout, sys.stderr = open(0, closefd=False), *(  # noqa: SIM115
            open(descriptor, "w", closefd=False) for descriptor in (1, 2))  # noqa: SIM115
        signal.alarm(TIME_LIMIT)
        # what the command has another process do for it is to be killed in its middle, too
        apart.call = lambda work, *arguments: work(*arguments)  # type: ignore[assignment]
        if callable(command):
            command()
            code = 0
        else:
            cli.fussy_command(list(command), prog_name="fussy")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException as error:
        print(repr(error), file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watched(process: int) -> bool:
    """Tell whether strace holds a stopped process; before, one that goes on makes its first calls unseen."""
    return "State:\tt" in Path(f"/proc/{process}/status").read_text()


def points(
    command: Command, target: Path, log: Path, codes: Sequence[int] = (0,), calls: str = CHANGING
) -> list[Point]:
    """Return every point at which COMMAND, run undisturbed, is about to change something below TARGET, or to do
    another of these CALLS there."""
    done = trace(command, "-e", f"trace={calls}", "-o", str(log))
    assert done.code in codes, done.said
    seen: Counter[str] = Counter()
    found = []
    for line in log.read_text().splitlines():
        syscall = line.partition("(")[0]
        seen[syscall] += 1
        match = _LINE.match(line)
        if match and str(target) in line and not _reads(line):
            found.append(Point(syscall, seen[syscall], line))
    return found


def _reads(line: str) -> bool:
    return line.startswith("openat(") and not re.search(r"O_CREAT|O_WRONLY|O_RDWR", line)


def fail_at(command: Command, point: Point, error: str) -> Done:
    """Run COMMAND and let the call at POINT fail with ERROR (its name, as in errno(3))."""
    return trace(command, "-e", f"trace={point.syscall}", "-e",
                 f"inject={point.syscall}:error={error}:when={point.count}", "-o", "/dev/null")


def kill_at(command: Command, point: Point) -> bool:
    """Run COMMAND and kill it at POINT; return whether it got that far."""
    done = trace(command, "-e", f"trace={point.syscall}", "-e",
                 f"inject={point.syscall}:signal=SIGKILL:when={point.count}", "-o", "/dev/null")
    return done.code == -signal.SIGKILL


def copy(template: Path, target: Path) -> None:
    """Make TARGET a copy of TEMPLATE, hard links included."""
    shutil.rmtree(target, ignore_errors=True)
    if template.exists():
        subprocess.run(["cp", "-a", template, target], check=True)
