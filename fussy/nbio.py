r"""Chains of processes, and of Python functions and generators, through which data stream.

The contract is section 4.5 of the documentation, restated for Python 3: **what a pipe returns and hands on is bytes**;
str is only taken as input, and encoded as UTF-8.

>>> from fussy.nbio import Process as P
>>> pipe = P('echo "Hello world"') | P('cat')
>>> pipe()
b'Hello world\n'

A generator, an iterable, a string, an open file, or a callable which makes one of these can be the start:

>>> def gen():
...     for i in range(20):
...         yield str(i)
>>> pipe = gen() | P('cat')
>>> pipe()
b'012345678910111213141516171819'

A callable or a list at the end gets each block of data; the blocks are part of the pipe's result as well:

>>> result = []
>>> pipe = P('echo "Hello world"') | result.append
>>> pipe()
b'Hello world\n'
>>> result
[b'Hello world\n']

The string '-' is standard input or output, and '' collects, as the end of a pipe does anyway:

>>> pipe = P('echo "Hello world"') | '-'
>>> pipe()
Hello world
b''

`>` and `<` name files. Python takes `a < b > c` for a comparison of three: write `(P('cat') < 'in') > 'out'`.

What differs from fussy 1.0, where the contract leaves it open: processes start when the pipe runs, so a pipe can run
again; neighbouring processes share one pipe of the system, and only what Python asked to see passes through Python;
the loop sleeps in poll(2) rather than looking a hundred times a second; lists are filled.
"""

import os
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from typing import Any

from fussy import nbio_kill
from fussy.nbio_command import Command, End, connect, ending
from fussy.nbio_errors import NBIOError, ProcessError, Timeout
from fussy.nbio_flow import Flow
from fussy.nbio_link import Link, Sink
from fussy.nbio_parts import Named, Part, part
from fussy.nbio_streams import DID_NOTHING, FileLike, by_line, close, fileno, pause, reader, writeiter, writer

__all__ = [
    "DID_NOTHING",
    "NBIOError",
    "Pipe",
    "Process",
    "ProcessError",
    "Timeout",
    "by_line",
    "close",
    "fileno",
    "pause",
    "reader",
    "writeiter",
    "writer",
]


class _Pipeable:
    """The operators which Process and Pipe share."""

    def __or__(self, other: object) -> "Pipe":
        """Pipe our output into a process, callable or list."""
        return Pipe(self, other)

    def __ror__(self, other: object) -> "Pipe":
        """Pipe other into our first item."""
        return Pipe(other, self)

    def __gt__(self, other: object) -> "Pipe":
        """Pipe our output into a file, open or named; '-' and '' mean what they mean for |."""
        return Pipe(self, _file(other))

    def __lt__(self, other: object) -> "Pipe":
        """Pipe our input from a file, open or named; '-' and '' mean what they mean for |."""
        return Pipe(_file(other), self)


class Process(_Pipeable, Command):
    """One process of a Pipe.

    `command`, a list, is the program and its arguments. **A string is run by the shell** (shell=True) unless `shell`
    is given; that is the documented behaviour, and not safe for strings made from input: give a list for these.

    `stdin` says whether to provide input: what is piped into the process, or an empty file if nothing is.
    `stdout`, `stderr` say whether to capture the output; -1 as `stderr` combines the two. What is captured and not
    piped into something is part of the result of the pipe, in memory. What is not captured is our own. A descriptor
    above 2 or a file is given to the process as it is.

    `good_exit` holds the exit codes which do not raise ProcessError. A process which ends with SIGPIPE because the
    one after it stopped reading is good too.

    `by_line` hands on the output line by line, without the newlines: they are missing in a result joined from lines
    and in what a following process reads, as documented.

    `named` goes to subprocess.Popen. Each process gets a session of its own unless `start_new_session` or
    `process_group` say otherwise; that is what makes it possible to end it with all its descendants. Keys like Ctrl-C
    reach only this program, which then ends them.
    """

    def __init__(
        self,
        command: str | list[str] | tuple[str, ...],
        stderr: bool | FileLike = False,
        stdout: bool | FileLike = True,
        stdin: bool | FileLike = True,
        *,
        good_exit: Iterable[int] = (0,),
        by_line: bool = False,
        **named: Any,
    ) -> None:
        super().__init__(command, stdin, stdout, stderr, frozenset(good_exit), by_line, named)

    def __call__(self, *args: Any, **named: Any) -> bytes:
        """Create a Pipe of just this process and run it."""
        return Pipe(self)(*args, **named)

    def __iter__(self) -> Iterator[bytes]:
        """Run the process and iterate over its results."""
        return iter(Pipe(self))

    def iter_read(self) -> Iterator[bytes]:
        """Run the process and iterate over its results."""
        return iter(self)

    def iter_write(self, source: object) -> Iterator[bytes]:
        """Run the process with `source` as its input and iterate over its results."""
        return iter(Pipe(source, self))


class Pipe(_Pipeable):
    """Processes, and what may stand beside them, which handle data in parallel.

    Each item is a Process, a Pipe (whose items are taken) or what get_component understands. The operators make new
    pipes and leave the old ones as they are.
    """

    def __init__(self, *processes: object) -> None:
        self.processes: list[Process | Part] = []
        self.pause_on_silence = 0.01
        for process in processes:
            if isinstance(process, Pipe):
                self.processes += process.processes
            else:
                self.append(process)

    def __repr__(self) -> str:
        return f"Pipe({', '.join(map(repr, self.processes))})"

    def __len__(self) -> int:
        """Return the number of items in this pipe."""
        return len(self.processes)

    def __getitem__(self, index: int) -> Process | Part:
        """Return one item of the pipe."""
        return self.processes[index]

    @property
    def first(self) -> Process | Part:
        """The first item."""
        return self.processes[0]

    @property
    def last(self) -> Process | Part:
        """The last item."""
        return self.processes[-1]

    def append(self, process: object) -> None:
        """Add an item at the end."""
        self.processes.append(self.get_component(process))

    def prepend(self, process: object) -> None:
        """Add an item at the start."""
        self.processes.insert(0, self.get_component(process))

    def get_component(self, other: object) -> Process | Part:
        """Return the item for a Python object. Raises NBIOError for one which cannot stand in a pipe.

        '-' is standard input or output, '' collects the output, any other string (or bytes) is input. Files can be
        read and written, iterables read, lists also appended to. A callable is called with each block, and at the
        start of a pipe without arguments for what the pipe reads. What it returns for a block is not used.
        """
        return other if isinstance(other, Process) else part(other)

    def kill(self) -> None:
        """Kill all processes of the pipe and all they have started."""
        running = [item for item in self.processes if isinstance(item, Process) and item.running]
        nbio_kill.end([process.pipe.pid for process in running if process.pipe])
        for process in running:
            process.kill()

    def __call__(self, pause_on_silence: float = 0.01, timeout: float | None = None) -> bytes:
        """Run the pipe and return what is not piped into something, joined.

        `pause_on_silence` is the pause, in seconds, before an iterator which had nothing to say (None, DID_NOTHING)
        is asked again; processes and files need none. After `timeout` seconds everything is killed and Timeout
        raised; a Python callable, iterator or file that blocks is not interrupted.

        Raises ProcessError for the first process which ended with a bad exit code: the others get a quarter of a
        second to end by themselves and are killed then, with all their descendants, as they are at once after any
        other error. The `output` of the error holds the result so far.
        """
        self.pause_on_silence = pause_on_silence
        collected = []
        try:
            with closing(self._run(timeout)) as blocks:
                for block in blocks:
                    collected.append(block)
        except NBIOError as error:
            error.output = b"".join(collected)
            raise
        return b"".join(collected)

    def __iter__(self) -> Iterator[bytes]:
        """Run the pipe and yield its results in the blocks in which they come, or in lines from by_line processes.

        Errors are raised as when the pipe is called, there is no time limit, and the attribute `pause_on_silence`
        holds. Between two blocks the pipe is only as far ahead as its buffers. When the iteration is given up (its
        close() is called, or nothing refers to it any more), everything is killed.
        """
        return self._run(None)

    def _run(self, timeout: float | None) -> Generator[bytes, None, None]:
        deadline = None if timeout is None else time.monotonic() + timeout
        flow = Flow([], [], lambda duration: pause(duration), self.pause_on_silence, deadline)
        complete = False
        with ExitStack() as stack:
            try:
                connect(self._opened(stack), flow)
                yield from flow.run()
                complete = all(member.exitcode is not None and not member.failed for member in flow.members)
            finally:
                if not complete:
                    nbio_kill.end(member.popen.pid for member in flow.members if member.popen.returncode is None)
                flow.close()
                for member in flow.members:
                    nbio_kill.reap(member.popen)
            for member in flow.members:
                if member.failed and member.exitcode is not None:
                    raise ProcessError(member.process, member.exitcode, ending(member.exitcode))

    def _opened(self, stack: ExitStack) -> list[End]:
        """Return the items with all files opened, before any process is started."""
        ends: list[End] = []
        for index, item in enumerate(self.processes):
            if isinstance(item, Process):
                ends.append(item)
            elif index == 0:
                ends.append(Link(item.read(stack)))
            elif (receiver := item.receive(stack)) is not None:
                ends.append(receiver)
        if any(isinstance(end, Sink) for end in ends[:-1]):
            raise NBIOError("cannot pipe out of a file that the pipe writes: it only can be the end of a pipe")
        return ends


def _file(other: object) -> object:
    """Return what stands on the other side of < or >, where a string is the name of a file."""
    return Named(other) if isinstance(other, str | os.PathLike) and other not in ("", "-") else other
