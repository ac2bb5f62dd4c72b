"""What the lab's modules share: undoing, working in parallel, starting programs."""

import contextlib
import functools
import json
import logging
import os
import queue
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

log = logging.getLogger(__name__)


class _CommandStatus(NamedTuple):
    code: int
    out: str
    err: str


class CommandStatus(_CommandStatus):
    """How a command ended: ``code``, ``out``, ``err``. It is true if the command failed, as in ``if status: …``."""

    def __bool__(self) -> bool:
        return self.code != 0


class RollbackContext:
    """A context that undoes what was done in it, when it ends: the calls put into it are made, in their order.

    Put the undo of a step first (:meth:`prependDefer`) and steps are undone in reverse. Every undo is tried; the first
    exception, the body's before those of undos, is raised in the end. :meth:`clear` forgets all: the work is to stay.
    """

    def __init__(self, *args: Callable[[], object]) -> None:
        self._finally: list[Callable[[], object]] = list(args)

    def __enter__(self) -> "RollbackContext":
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc_value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        """Make the calls. An exception of the body is raised by Python itself once this returns."""
        first = exc_value
        for undo in self._finally:
            try:
                undo()
            except Exception as error:
                log.warning("cannot undo: %s", error)
                first = first or error
        if first is not None and first is not exc_value:
            raise first

    def clear(self) -> None:
        """Forget all calls."""
        self._finally.clear()

    def defer(self, func: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Make this call in the end, after those that are there."""
        self._finally.append(functools.partial(func, *args, **kwargs))

    def prependDefer(self, func: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Make this call in the end, before those that are there."""
        self._finally.insert(0, functools.partial(func, *args, **kwargs))


class VectorThread:
    """Calls several TARGETS (callables without arguments), each in a thread of its own."""

    def __init__(self, targets: Iterable[Callable[[], Any]]) -> None:
        self.targets = list(targets)
        self._running: list[tuple[threading.Thread, queue.Queue[dict[str, Any]]]] = []

    def start_all(self) -> None:
        """Start all threads."""
        for target in self.targets:
            results: queue.Queue[dict[str, Any]] = queue.Queue()
            thread = threading.Thread(target=_ret_via_queue, args=(target, results), daemon=True)
            self._running.append((thread, results))
            thread.start()

    def join_all(self, raise_exceptions: bool = True) -> list[Any]:
        """Wait for all, and return what each returned, in the order of the targets.

        If one raised an exception, the first is raised once all have ended; with RAISE_EXCEPTIONS off there is a dict
        with ``exception`` in its place.
        """
        for thread, _ in self._running:
            thread.join()
        results = [results.get_nowait() for _, results in self._running]
        failed = [result["exception"] for result in results if "exception" in result]
        if failed and raise_exceptions:
            for other in failed[1:]:
                log.warning("another one failed too: %s", other)
            raise failed[0]
        return [result.get("return", result) if "exception" not in result else result for result in results]


class EggTimer:
    """A context that knows when TIMEOUT seconds are over."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._start = time.monotonic()

    def __enter__(self) -> "EggTimer":
        self._start = time.monotonic()
        return self

    def __exit__(self, *args: object) -> None:
        """Nothing ends with it."""

    def elapsed(self) -> bool:
        """Tell whether the time is over."""
        return time.monotonic() - self._start >= self.timeout


def _ret_via_queue(func: Callable[[], Any], queue: "queue.Queue[dict[str, Any]]") -> None:
    """Call FUNC and put ``return`` or ``exception`` into QUEUE."""
    try:
        queue.put({"return": func()})
    except Exception as error:
        log.debug("one of several threads failed", exc_info=True)
        queue.put({"exception": error})


def func_vector(target: Callable[..., Any], args_sequence: Iterable[Sequence[Any]]) -> list[Callable[[], Any]]:
    """Return a call of TARGET for each set of arguments, for :class:`VectorThread`."""
    return [functools.partial(target, *args) for args in args_sequence]


def invoke_in_parallel(func: Callable[..., Any], *args_sequences: Iterable[Any]) -> list[Any]:
    """Call FUNC in parallel, as ``map`` would one after the other: with the first of each sequence, the second …"""
    vector = VectorThread(func_vector(func, zip(*args_sequences, strict=False)))
    vector.start_all()
    return vector.join_all()


def run_command(command: Sequence[str], input_data: str | None = None, out_pipe: int | None = subprocess.PIPE,
                err_pipe: int | None = subprocess.PIPE, env: dict[str, str] | None = None,
                **kwargs: Any) -> CommandStatus:
    """Run a command to its end, with INPUT_DATA on its standard input (else nothing is there), and return how it ended.

    ENV is added to the environment. What goes to pipes is returned; other arguments are those of ``subprocess.run``.
    """
    stdin: dict[str, Any] = {"stdin": subprocess.DEVNULL} if input_data is None else {"input": input_data}
    done = subprocess.run([*map(str, command)], stdout=out_pipe, stderr=err_pipe, text=True, errors="replace",
                          env={**os.environ, **(env or {})}, check=False, **{**stdin, **kwargs})
    return CommandStatus(done.returncode, done.stdout or "", done.stderr or "")


def remove(directory: Path, seconds: float = 10.0) -> None:
    """Delete a directory, and what threads of a command that was interrupted still put into it meanwhile.

    :raises OSError: it is still there after SECONDS
    """
    deadline = time.monotonic() + seconds
    while directory.exists():
        try:
            shutil.rmtree(directory)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def service_is_enabled(name: str) -> bool:
    """Tell whether systemd of this machine starts the service NAME at boot; False without systemd."""
    return shutil.which("systemctl") is not None and not run_command(["systemctl", "is-enabled", "--quiet", name])


def json_dump(obj: Any, f: IO[str]) -> None:
    """Write OBJ as JSON for people: sorted, one value a line."""
    json.dump(obj, f, indent=4, sort_keys=True)
    f.write("\n")


def setup_logging(logdir: str | Path) -> None:
    """Keep the log of the lab in LOGDIR/lab.log, made if missing, beside where it goes already."""
    from pdimage.lab import config  # the settings of the lab, which this module does not need otherwise

    Path(logdir).mkdir(parents=True, exist_ok=True)
    path = Path(logdir, "lab.log").absolute()
    logger = logging.getLogger("pdimage.lab")
    for handler in list(logger.handlers):
        if isinstance(handler, logging.FileHandler):
            logger.removeHandler(handler)
            handler.close()
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setLevel(config.text("log_level", "debug").upper())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)


def drain_ssh_channel(chan: "subprocess.Popen[bytes]", stdin: IO[str] | None = None,
                      stdout: IO[str] | None = sys.stdout, stderr: IO[str] | None = sys.stderr) -> CommandStatus:
    """Give a started ssh (with pipes) what is in STDIN, pass what it prints on at once, and return how it ended.

    STDOUT or STDERR may be None: then it is only returned.
    """
    if chan.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            if stdin is not None:
                chan.stdin.write(stdin.read().encode())
            chan.stdin.close()
    kept: dict[Any, bytes] = {chan.stdout: b"", chan.stderr: b""}
    shown = {chan.stdout: stdout, chan.stderr: stderr}
    waiting = [pipe for pipe in (chan.stdout, chan.stderr) if pipe is not None]
    while waiting:
        for pipe in select.select(waiting, [], [])[0]:
            data = _read_nonblocking(pipe)
            if not data:
                waiting.remove(pipe)
            kept[pipe] += data
            if (to := shown[pipe]) is not None:
                to.write(data.decode(errors="replace"))
                to.flush()
    return CommandStatus(chan.wait(), kept[chan.stdout].decode(errors="replace"),
                         kept[chan.stderr].decode(errors="replace"))


def interactive_ssh_channel(chan: Sequence[str], command: str | None = None, stdin: IO[Any] | None = sys.stdin
                            ) -> CommandStatus:
    """Run an ssh command line CHAN on this terminal, with COMMAND instead of a shell if given; return how it ended."""
    argv = [*chan, *([command] if command else [])]
    return CommandStatus(subprocess.run(argv, stdin=stdin, check=False).returncode, "", "")


def _read_nonblocking(f: IO[bytes]) -> bytes:
    """Return what can be read from F now, nothing at its end."""
    return os.read(f.fileno(), 1 << 16)
