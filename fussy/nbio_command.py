"""Starting the processes of a pipe, each connected with its neighbours, and ending them."""

import io
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from fcntl import F_SETPIPE_SZ, fcntl
from typing import Any

from fussy import nbio_kill
from fussy.nbio_errors import NBIOError, ProcessError
from fussy.nbio_flow import Flow, Member
from fussy.nbio_link import Feed, Link, Sink
from fussy.nbio_parts import Tap
from fussy.nbio_streams import FileLike, Lines

PIPE_SIZE = 1024 * 1024
"""Bytes which a pipe between two processes holds, if the system grants it (the usual size is 65,536)."""


class Command:
    """A command and how it is to be run: what fussy.nbio.Process documents, without its operators."""

    def __init__(
        self,
        command: str | list[str] | tuple[str, ...],
        stdin: bool | FileLike,
        stdout: bool | FileLike,
        stderr: bool | FileLike,
        good_exit: frozenset[int],
        by_line: bool,
        named: dict[str, Any],
    ) -> None:
        self.command = command
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.good_exit = good_exit
        self.by_line = by_line
        self.named = named
        self.named.setdefault("shell", isinstance(command, str))
        self.named.setdefault("start_new_session", "process_group" not in named)
        self.pipe: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"Process({self.command!r})"

    def start_pipe(self, stdin: FileLike, stdout: FileLike, stderr: FileLike, **named: Any) -> subprocess.Popen[bytes]:
        """Start the process (internal operation); the arguments are those of subprocess.Popen."""
        if self.running:
            raise NBIOError(f"cannot start {self}: it is running already; make another Process of the same command")
        try:
            self.pipe = subprocess.Popen(self.command, stdin=stdin, stdout=stdout, stderr=stderr, **named)
        except OSError as error:
            exitcode = 127 if isinstance(error, FileNotFoundError) else 126
            raise ProcessError(self, exitcode, f"{error.strerror}: {error.filename!r}") from error
        return self.pipe

    @property
    def running(self) -> bool:
        """Whether the process has been started and not been reaped yet."""
        return self.pipe is not None and self.pipe.returncode is None

    def check_exit(self) -> int | None:
        """Return the exit code, None if the process has not ended. Raises ProcessError for one that is not good."""
        exitcode = None if self.pipe is None else self.pipe.poll()
        if exitcode is not None and exitcode not in self.good_exit:
            raise ProcessError(self, exitcode, ending(exitcode))
        return exitcode

    def kill(self) -> None:
        """Kill the process and all it has started."""
        if self.pipe is not None and self.running:
            nbio_kill.end([self.pipe.pid])
            nbio_kill.reap(self.pipe)


End = Command | Link | Tap | Sink
"""One item of a pipe with its files opened; a Link is the start."""


def connect(ends: Sequence[End], flow: Flow) -> None:
    """Start the commands among `ends` from left to right, and put the links and members into `flow`."""
    link: Link | None = None
    for index, end in enumerate(ends):
        if isinstance(end, Link):
            link = end
            flow.links.append(link)
        elif isinstance(end, Command):
            link = _launch(end, link, ends[index + 1:], flow)
        elif link is not None and isinstance(end, Sink):
            link.target = end
        elif link is not None and not isinstance(end, Sink):
            link.taps.append(end)


def _launch(process: Command, link: Link | None, following: Sequence[End], flow: Flow) -> Link | None:
    """Start a process with `link` as its input and return the link for its output, if there is one to go on with."""
    output: Link | None = None
    with ExitStack() as childs:
        stdin = _given(process.stdin)
        if _captured(process.stdin):
            stdin = _input(link, childs)
        stdout = _given(process.stdout)
        if _captured(process.stdout):
            sink = following[0] if following and isinstance(following[0], Sink) and not process.by_line else None
            if sink is not None and sink.descriptor is not None:
                stdout = sink.descriptor
            else:
                output, stdout = _output(process, flow, childs)
        stderr = _given(process.stderr)
        if process.stderr in (-1, subprocess.STDOUT) and not isinstance(process.stderr, bool):
            stderr = subprocess.STDOUT
        elif _captured(process.stderr):
            _, stderr = _output(process, flow, childs)
        popen = process.start_pipe(stdin, stdout, stderr, **process.named)
    piped = output is not None and any(isinstance(end, Command) and _captured(end.stdin) for end in following)

    def is_good(exitcode: int) -> bool:
        return exitcode in process.good_exit or (piped and ended_by_pipe(exitcode))

    flow.members.append(Member(process, popen, is_good))
    return output


def _input(link: Link | None, childs: ExitStack) -> FileLike:
    """Return what to give to a process as its standard input; `childs` closes it when the process has it."""
    if link is None:
        return subprocess.DEVNULL
    if link.direct is not None:
        childs.callback(link.drop)
        return link.direct
    ours, theirs = _pipe()[::-1]
    childs.callback(theirs.close)
    link.target = Feed(ours)
    return theirs


def _output(process: Command, flow: Flow, childs: ExitStack) -> tuple[Link, io.FileIO]:
    """Return a link for an output of a process, and what to give to the process."""
    ours, theirs = _pipe()
    childs.callback(theirs.close)
    link = Link(ours, Lines() if process.by_line else None)
    flow.links.append(link)
    return link, theirs


def _pipe() -> tuple[io.FileIO, io.FileIO]:
    """Return the two ends, to be read and to be written, of a new pipe of the system."""
    reading, writing = os.pipe()
    with suppress(OSError):  # above what an ordinary user may have
        fcntl(writing, F_SETPIPE_SZ, PIPE_SIZE)
    return io.FileIO(reading, "rb"), io.FileIO(writing, "wb")


def _captured(stream: bool | FileLike) -> bool:
    """Tell whether a stream of a process is to be connected by the pipe (True, or subprocess.PIPE)."""
    return isinstance(stream, int) and stream in (True, subprocess.PIPE)


def _given(stream: bool | FileLike) -> FileLike:
    """Return what subprocess.Popen is to be told about a stream which the pipe does not connect."""
    return stream or None


def ending(exitcode: int) -> str:
    """Say in words how a process ended."""
    if exitcode >= 0:
        return f"it ended with exit code {exitcode}"
    try:
        return f"it was ended by {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"it was ended by signal {-exitcode}"


def ended_by_pipe(exitcode: int) -> bool:
    """Tell whether a process, or the last command of a shell, ended because nobody read its output any more."""
    return exitcode in (-signal.SIGPIPE, 128 + signal.SIGPIPE)
