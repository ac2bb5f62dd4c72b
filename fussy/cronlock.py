"""Keeps a job from running twice at once, or for too long: "cron bombs".

A lock is an advisory flock(2) on a file, the same that flock(1) takes, so scripts and this module keep each other
out. The kernel gives it back when its holder ends, however that happens, so a lock is never stale. The file stays:
unlinking it would let a process that has just opened the old file and one that makes a new file both hold "the"
lock. It holds the pid of the process that has the lock, for people and for the message of :class:`Busy`.

Programs that the holder starts do not inherit the lock (its descriptor is closed by exec); a child made by fork alone
shares it until both have ended.
"""

import contextlib
import errno
import fcntl
import functools
import logging
import math
import os
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from fussy import errors

log = logging.getLogger(__name__)

_ATTEMPTS = 100

P = ParamSpec("P")
R = TypeVar("R")


class Busy(errors.Busy, OSError):
    """The lock is held by another process, or by another lock object of this one."""

    #: The process that holds the lock, where it is known.
    pid: int | None = None

    def __str__(self) -> str:
        return str(self.strerror)


class Timeout(errors.FussyError):
    """The time that :meth:`Lock.set_timeout` allowed is over.

    Not an OSError: code that passes over errors of files must not pass over this one.
    """


class Flock:
    """A context manager that holds an exclusive flock(2) on the file FILENAME, which it makes when it isn't there.

    It never waits. The thread that holds it may enter the same object again; the lock is given back when it has left
    as often as it entered.
    """

    def __init__(self, filename: str | os.PathLike[str]) -> None:
        self.filename = os.fspath(filename)
        self._descriptor: int | None = None
        self._holder: tuple[int, int] | None = None
        #: How often the holding thread has entered and not left.
        self.depth = 0

    def __enter__(self) -> Self:
        """Take the lock.

        :raises Busy: it is held already.
        :raises SystemSetup: the file can't be trusted: a link, not a regular file, or planted by another user.
        :raises OSError: the file can't be opened or locked.
        """
        if self._holder != _identity():
            self._descriptor = _take(self.filename)
            self._holder = _identity()
        self.depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._holder is None or self._descriptor is None:
            raise RuntimeError(f"{self.filename}: left without having been entered")
        self.depth -= 1
        if self.depth == 0:
            descriptor, (pid, _) = self._descriptor, self._holder
            self._descriptor = self._holder = None
            # A forked child that leaves the block must neither unlock (LOCK_UN would, for its parent too) nor erase.
            if pid == os.getpid():
                _note(descriptor, b"")
            os.close(descriptor)


def _identity() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def _take(filename: str) -> int:
    """Return a descriptor of FILENAME that holds its lock."""
    for _ in range(_ATTEMPTS):
        descriptor = _open(filename)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(descriptor, filename):
                _note(descriptor, b"%d\n" % os.getpid())
                return descriptor
        except BlockingIOError as error:
            busy = _busy(filename, _noted(descriptor))
            os.close(descriptor)
            raise busy from error
        except BaseException:
            os.close(descriptor)
            raise
        # Somebody deleted the file after we had opened it: the lock of a file without a name keeps nobody out.
        os.close(descriptor)
    raise _refusal(filename, "it is deleted again and again")


def _open(filename: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(filename, flags, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refusal(filename, "it is a symbolic link") from error
        raise
    problem = _problem(os.fstat(descriptor), os.path.dirname(filename) or ".")
    if problem:
        os.close(descriptor)
        raise _refusal(filename, problem)
    return descriptor


def _problem(facts: os.stat_result, directory: str) -> str | None:
    """Say why a lock file can't be trusted, if so.

    Who may delete nothing in /tmp may still plant files and hard links there, to have them overwritten or to hold the
    lock for ever.
    """
    if not stat.S_ISREG(facts.st_mode):
        return "it is not a regular file"
    if facts.st_nlink > 1:
        return "it has more than one name (hard links)"
    if facts.st_uid not in (os.geteuid(), 0) and os.stat(directory).st_mode & stat.S_IWOTH:
        return f"it belongs to another user ({facts.st_uid}), in a directory where everybody may write"
    return None


def _busy(filename: str, pid: int | None) -> Busy:
    holder = "another process" if pid is None else f"process {pid}"
    busy = Busy(errno.EWOULDBLOCK, f"cannot lock {filename}: {holder} holds it", filename)
    busy.pid = pid
    return busy


def _refusal(filename: str, problem: str) -> errors.SystemSetup:
    return errors.SystemSetup(f"cannot lock {filename}: {problem}; remove it, or choose another directory")


def _is_named(descriptor: int, filename: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(filename))
    except FileNotFoundError:
        return False


def _note(descriptor: int, text: bytes) -> None:
    """Write who holds the lock. A full disk must not keep anybody from locking: fussy-clean makes room."""
    try:
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))
    except OSError as error:
        log.debug("the lock is held, but its file can't say by whom: %s", error)


def _noted(descriptor: int) -> int | None:
    """Return the pid in the lock file if that process lives: flock(1) writes none, and a killed holder's stays."""
    text = os.pread(descriptor, 32, 0).partition(b"\n")[0]
    return int(text) if text.isdigit() and lives(int(text)) else None


def lives(pid: int) -> bool:
    """Say whether there is a process with this id."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass  # it lives, as another user
    except (ProcessLookupError, OverflowError):
        return False
    return pid > 0  # 0 is no process, but this one's group


@dataclass(frozen=True)
class _Alarm:
    """What to bring back when a timeout is over: the handler of SIGALRM and the time (monotonic) it was due at."""

    handler: Any
    due: float | None


class Lock(Flock):
    """A lock for a cron job, which can also limit how long the job runs.

    A ``with`` statement can't skip its body, so a busy lock raises :class:`Busy` there, QUIET_FAIL or not: what runs
    the body decides what quiet means. :func:`with_lock` does not call its function, and returns None; in a with
    statement ``with contextlib.suppress(cronlock.Busy), lock:`` does the same.
    """

    def __init__(self, lockfile: str | os.PathLike[str], quiet_fail: bool = False) -> None:
        super().__init__(lockfile)
        self.quiet_fail = quiet_fail
        self._alarm: _Alarm | None = None
        self._duration = 0.0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.depth == 1 and threading.current_thread() is threading.main_thread():
                self.cancel_timeout()
        finally:
            super().__exit__(kind, error, trace)

    def set_timeout(self, duration: float) -> None:
        """Raise :class:`Timeout` in the main thread DURATION seconds from now (SIGALRM), or never if the lock is left.

        The lock need not be held; then :meth:`cancel_timeout` ends the limit. An alarm of this process that is due
        sooner, such as the timeout of an enclosing lock, stays in place instead. Setting it again replaces it.

        :raises RuntimeError: this is not the main thread; Python lets only that one handle signals.
        :raises ValueError: the duration is not a positive number.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"cannot set a timeout for {self.filename}: only the main thread can have one")
        if not 0 < duration < math.inf:
            raise ValueError(f"cannot set a timeout of {duration} s for {self.filename}: it must be positive")
        self.cancel_timeout()
        left = signal.getitimer(signal.ITIMER_REAL)[0]
        if 0 < left <= duration:
            return
        self._duration = duration
        self._alarm = _Alarm(signal.getsignal(signal.SIGALRM), time.monotonic() + left if left else None)
        signal.signal(signal.SIGALRM, self._fire)
        signal.setitimer(signal.ITIMER_REAL, duration)

    def cancel_timeout(self) -> None:
        """Take back :meth:`set_timeout` and restore the handler and the alarm from before it; no harm without one."""
        alarm, self._alarm = self._alarm, None  # first: from here on a late signal means nothing
        if alarm is None or signal.getsignal(signal.SIGALRM) != self._fire:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        # None is a handler that was not installed by Python and can't be put back.
        signal.signal(signal.SIGALRM, signal.SIG_DFL if alarm.handler is None else alarm.handler)
        if alarm.due is not None:
            signal.setitimer(signal.ITIMER_REAL, max(alarm.due - time.monotonic(), 1e-6))

    def _fire(self, signum: int, frame: FrameType | None) -> None:
        if self._alarm is not None:
            self.cancel_timeout()
            raise Timeout(f"cannot go on: {self.filename} allows {self._duration:g} s, and they are over")


def with_lock(
    name: str, directory: str | os.PathLike[str] | None = None, timeout: float | None = None, *,
    quiet_fail: bool = False,
) -> Callable[[Callable[P, R]], Callable[P, R | None]]:
    """Run the decorated function only while it holds the lock file NAME in DIRECTORY (``tempfile.gettempdir()``).

    TIMEOUT limits each call, in seconds, see :meth:`Lock.set_timeout`. When the lock is busy, the call raises
    :class:`Busy`, or with QUIET_FAIL returns None without running the function.

    :raises ValueError: NAME is a path.
    """
    if os.path.basename(name) != name:
        raise ValueError(f"cannot name a lock {name!r}: give its directory apart")

    def decorate(function: Callable[P, R]) -> Callable[P, R | None]:
        # When it is first called: looking for the directory writes to it, which importing a module should not.
        @functools.cache
        def made() -> Lock:
            return Lock(os.path.join(directory or tempfile.gettempdir(), name), quiet_fail)

        @functools.wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> R | None:
            lock = made()
            with contextlib.ExitStack() as held:
                try:
                    held.enter_context(lock)
                except Busy as busy:
                    if not quiet_fail:
                        raise
                    log.debug("not run: %s", busy)
                    return None
                # A function that calls itself is one run: its time does not start anew.
                if timeout is not None and lock.depth == 1:
                    lock.set_timeout(timeout)
                return function(*args, **kwargs)

        return locked

    return decorate
