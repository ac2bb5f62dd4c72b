"""The loop which moves the data of a pipe that has to pass through Python, and notices which processes have ended.

::

    Link:   file or iterator  ->  lines  ->  taps  ->  Feed (a process), Sink (a file) or the caller

Nothing is read before what was read has been taken: a full Feed stops its Link, and so the process or iterator before
it. The loop sleeps in poll(2) until something can move.
"""

import io
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from fussy.nbio_errors import Timeout
from fussy.nbio_link import Feed, Link

LINGER = 0.25
"""Seconds which the other members get after one has failed: to pass on what they have and to fail for themselves."""
LONGEST = 3600.0
"""Seconds after which the loop looks around although nothing has happened; poll(2) counts milliseconds in an int."""


class Member:
    """A started process, watched without being reaped, so that its number and its session stay its own."""

    def __init__(self, process: object, popen: subprocess.Popen[bytes], is_good: Callable[[int], bool]) -> None:
        self.process = process
        self.popen = popen
        self.is_good = is_good
        self.exitcode: int | None = None
        try:
            self.handle: int | None = os.pidfd_open(popen.pid)
        except OSError:  # Linux before 5.3, or forbidden: looked at from time to time instead
            self.handle = None

    def look(self) -> None:
        """Note the exit code if the process has ended."""
        try:
            ended = os.waitid(os.P_PID, self.popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # reaped already: by Popen, or, if SIGCHLD is ignored, by the kernel (then it says 0)
            self.exitcode = self.popen.poll()
            return
        if ended is not None:
            self.exitcode = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    @property
    def failed(self) -> bool:
        return self.exitcode is not None and not self.is_good(self.exitcode)

    def close(self) -> None:
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


@dataclass
class Flow:
    """One run of a pipe. `silence` is the pause, in seconds, for what cannot wake the loop."""

    links: list[Link]
    members: list[Member]
    pause: Callable[[float], None]
    silence: float
    deadline: float | None

    give_up: float | None = field(default=None, init=False)

    @property
    def feeds(self) -> list[Feed]:
        return [link.target for link in self.links if isinstance(link.target, Feed)]

    def run(self) -> Iterator[bytes]:
        """Yield what is for the caller until all have ended or LINGER has passed since a member failed.

        Raises Timeout when the deadline (of time.monotonic) passes.
        """
        while self._unfinished():
            if self.deadline is not None and time.monotonic() >= self.deadline:
                raise Timeout("cannot finish the pipe: its time limit passed; give it more, or see what it waits for")
            if self.give_up is not None and time.monotonic() >= self.give_up:
                return
            pulled = silent = False
            for link in self._pullable():
                blocks = link.pull()
                if blocks is None:
                    silent = True
                else:
                    pulled = True
                    yield from blocks
            ready = self._wait(0.0 if pulled or silent else None)
            for thing, event in ready:
                yield from self._serve(thing, event)
            if silent and not pulled and not any(event for _, event in ready):
                self.pause(self.silence)

    def _pullable(self) -> list[Link]:
        if self.give_up is not None:
            return []
        return [link for link in self.links if link.ready and not isinstance(link.source, io.FileIO)]

    def _unfinished(self) -> bool:
        if any(member.exitcode is None for member in self.members):
            return True
        if any(link.open and isinstance(link.source, io.FileIO) for link in self.links):
            return True
        waiting = any(link.open for link in self.links) or any(not feed.closed for feed in self.feeds)
        return waiting and self.give_up is None

    def _wait(self, seconds: float | None) -> list[tuple[Link | Feed | Member, int]]:
        """Return what can move; wait for it at most `seconds`, or (None) for as long as nothing else is to be done."""
        things: dict[int, Link | Feed | Member] = {}
        poll = select.poll()

        def watch(descriptor: int, thing: Link | Feed | Member, events: int) -> None:
            things[descriptor] = thing
            poll.register(descriptor, events)

        for link in self.links:
            if link.ready and isinstance(link.source, io.FileIO):
                watch(link.source.fileno(), link, select.POLLIN)
        for feed in self.feeds:
            if not feed.closed:  # with no event asked for, poll still tells that the reader has gone
                watch(feed.file.fileno(), feed, 0 if feed.ready else select.POLLOUT)
        for member in self.members:
            if member.exitcode is None and member.handle is not None:
                watch(member.handle, member, select.POLLIN)
        limits = [limit - time.monotonic() for limit in (self.deadline, self.give_up) if limit is not None]
        unwatched = [member for member in self.members if member.exitcode is None and member.handle is None]
        limits += [self.silence] * bool(unwatched) + [LONGEST if seconds is None else seconds]
        events = poll.poll(max(0.0, min(limits)) * 1000)
        return [(things[descriptor], event) for descriptor, event in events] + [(member, 0) for member in unwatched]

    def _serve(self, thing: Link | Feed | Member, event: int) -> Iterable[bytes]:
        if isinstance(thing, Link):
            return thing.read() if thing.ready else []
        if isinstance(thing, Feed):
            if event & select.POLLERR:
                thing.drop()
            else:
                thing.flush()
            if thing.closed:
                self._drop_links_to(thing)
            return []
        thing.look()
        if thing.failed and self.give_up is None:
            self.give_up = time.monotonic() + LINGER
        return []

    def _drop_links_to(self, feed: Feed) -> None:
        for link in self.links:
            if link.target is feed:
                link.drop()

    def close(self) -> None:
        """Let go of all descriptors."""
        for link in self.links:
            link.drop()
        for feed in self.feeds:
            feed.drop()
        for member in self.members:
            member.close()
