"""Kills a fussy command at its n-th system call that changes the disk, for every n.

strace(1) counts the calls of an undisturbed run, and then delivers SIGKILL on entering one of them. Only calls of the
command itself count, and only those that name something below the target.
"""

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CHANGING = ("openat,write,pwrite64,mkdir,mkdirat,link,linkat,rename,renameat,renameat2,symlink,symlinkat,unlink,"
            "unlinkat,rmdir,chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,utimensat,setxattr,fsetxattr,mknod,mknodat,"
            "fsync,fdatasync,syncfs,truncate,ftruncate")
_LINE = re.compile(r"(\w+)\((.*)")


@dataclass(frozen=True)
class Point:
    """The COUNT-th call of SYSCALL (from 1); ``text`` is what strace printed of it."""

    syscall: str
    count: int
    text: str


def trace(command: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m fussy COMMAND`` under strace with OPTIONS."""
    return subprocess.run(["strace", "-qq", "-y", "-s", "0", *options, sys.executable, "-m", "fussy", *command],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


def points(command: Sequence[str], target: Path, log: Path, codes: Sequence[int] = (0,)) -> list[Point]:
    """Return every point at which COMMAND, run undisturbed, is about to change something below TARGET."""
    done = trace(command, "-e", f"trace={CHANGING}", "-o", str(log))
    assert done.returncode in codes, done.stderr
    seen: Counter[str] = Counter()
    found = []
    for line in log.read_text().splitlines():
        if match := _LINE.match(line):
            syscall, arguments = match.groups()
            seen[syscall] += 1
            reads = syscall == "openat" and not re.search(r"O_CREAT|O_WRONLY|O_RDWR", arguments)
            if str(target) in arguments and not reads:
                found.append(Point(syscall, seen[syscall], line))
    return found


def kill_at(command: Sequence[str], point: Point) -> bool:
    """Run COMMAND and kill it at POINT; return whether it got that far."""
    done = trace(command, "-e", f"trace={point.syscall}", "-e",
                 f"inject={point.syscall}:signal=SIGKILL:when={point.count}", "-o", "/dev/null")
    return done.returncode in (-9, 137)


def copy(template: Path, target: Path) -> None:
    """Make TARGET a copy of TEMPLATE, hard links included."""
    shutil.rmtree(target, ignore_errors=True)
    if template.exists():
        subprocess.run(["cp", "-a", template, target], check=True)
