"""Runs gpg on a message: the one place where that is started, watched and ended.

python-gnupg, which does the work on keys (:mod:`fussy.gpghome`), can't do what a bundle needs: it mixes status lines
with gpg's messages on one descriptor, so that a crafted file could forge the former in the latter; it copies every
byte through threads into memory; and it waits for ever for a gpg that hangs.
"""

import contextlib
import errno
import fcntl
import io
import os
import select
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fussy.errors import FussyError, SystemSetup
from fussy.gpghome import lacking
from fussy.trust import printable

PIPE_SIZE = 1 << 20
STATUS_LIMIT = 1 << 16
"""More status lines than this many bytes no honest message causes."""

SAFE_OPTIONS = ("--no-options", "--quiet", "--no-greeting", "--no-auto-key-retrieve", "--no-auto-key-locate",
                "--disable-dirmngr", "--no-auto-check-trustdb", "--trust-model", "always",
                "--weak-digest", "SHA1", "--weak-digest", "RIPEMD160", "--display-charset", "utf-8")
UNATTENDED = ("--batch", "--no-tty")
"""So that gpg never waits for an answer."""


class Gpg:
    """A running gpg whose status lines are collected; it can't outlive its ``with`` block.

    :param stdin: file descriptor gpg reads, or ``subprocess.PIPE``
    :param stdout: file descriptor gpg writes, or ``subprocess.PIPE``
    :param refuse: makes the error to raise of the reason to give
    """

    def __init__(self, arguments: Sequence[str], *, home: Path | None, stdin: int, stdout: int,
                 refuse: Callable[[str], FussyError]) -> None:
        self.status = b""
        self.words = b""
        self.refuse = refuse
        # A gpg that may ask on the terminal has to stay in the group that owns the terminal.
        self.own_group = "--batch" in arguments
        reader, writer = os.pipe()
        command = ["gpg", *SAFE_OPTIONS, "--status-fd", str(writer), *(["--homedir", str(home)] if home else []),
                   *arguments]
        try:
            self.process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE,
                                            pass_fds=[writer], env={**os.environ, "LC_ALL": "C"},
                                            process_group=0 if self.own_group else None)
        except OSError as error:
            os.close(reader)
            if error.errno == errno.ENOMEM:
                raise
            raise SystemSetup(f"cannot run gpg: {error.strerror}; install the package gnupg") from error
        finally:
            os.close(writer)
        assert self.process.stderr is not None
        self.streams = {reader: "status", self.process.stderr.fileno(): "words"}
        self.reader: int | None = reader

    def __enter__(self) -> "Gpg":
        return self

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> None:
        # what was read of a gpg that was killed looks like a damaged message
        lacks = self._lacks() if isinstance(failure, Exception) and self.has_ended(0.1) else ""
        self.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        if self.reader is not None:
            os.close(self.reader)
            self.reader = None
        if lacks:
            raise SystemSetup(f"cannot go on: {lacks}") from failure

    def kill(self) -> None:
        """End gpg if it still runs, and everything it started with it."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                if self.own_group:
                    os.killpg(self.process.pid, signal.SIGKILL)
                else:
                    self.process.kill()
        self.process.wait()

    def collect(self, descriptor: int) -> None:
        """Take what gpg says on one of its side streams.

        :raises FussyError: it says more than any honest message makes it say
        """
        block = os.read(descriptor, 1 << 16)
        if not block:
            del self.streams[descriptor]
        elif self.streams[descriptor] == "words":
            self.words = (self.words + block)[-4096:]
        else:
            self.status += block
            if len(self.status) > STATUS_LIMIT:
                raise self.refuse("it makes gpg talk without end; fetch it again")

    def wait_for(self, descriptor: int | None, silence: float | None) -> bool:
        """Collect side streams until DESCRIPTOR can be read; without one, until gpg has closed them.

        :param silence: seconds that gpg may stay silent on all of them; None: as long as it likes
        :return: whether DESCRIPTOR can be read
        :raises FussyError: gpg was silent for too long
        """
        poll = select.poll()
        for one in (*self.streams, *([] if descriptor is None else [descriptor])):
            poll.register(one, select.POLLIN)
        while self.streams or descriptor is not None:
            ready = [number for number, _ in poll.poll(None if silence is None else silence * 1000)]
            if not ready:
                raise self.refuse(f"gpg did nothing for {silence:g} seconds; try again, "
                                  "and look at this machine's load and disks")
            for one in ready:
                if one in self.streams:
                    self.collect(one)
                    if one not in self.streams:
                        poll.unregister(one)
            if descriptor in ready:
                return True
        return False

    def finish(self, silence: float | None) -> tuple[list[str], int]:
        """Wait for gpg's end; return its status lines and exit status.

        Lines end where gpg ends them: what Python counts as a line end besides (U+2028 for example) can stand in the
        name of a file or key that an enemy chose, before words that look like a status line.

        :raises SystemSetup: the machine lacks what gpg needs
        """
        self.wait_for(None, silence)
        try:
            returncode = self.process.wait(silence)
        except subprocess.TimeoutExpired as error:
            raise self.refuse(f"gpg did not end within {silence:g} seconds; try again") from error
        if lacks := self._lacks():
            raise SystemSetup(f"cannot go on: {lacks}")
        return [line.decode("utf-8", "backslashreplace") for line in self.status.split(b"\n")], returncode

    def has_ended(self, within: float) -> bool:
        """Whether gpg ends by itself in the next seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(within)
        return self.process.returncode is not None

    def _lacks(self) -> str:
        return lacking(self.process.returncode, self._said)

    @property
    def _said(self) -> str:
        return self.words.decode("utf-8", "backslashreplace")

    @property
    def last_words(self) -> str:
        """The last line gpg wrote for people."""
        lines = self._said.strip().splitlines()
        return printable(lines[-1].removeprefix("gpg: ")) if lines else "it gave no reason"


class Plaintext(io.RawIOBase):
    """What gpg makes of a message, read as it comes; ``fileno()`` is the pipe itself.

    The pipe is watched while it is read through this object: a silent gpg is noticed, and so is an output far larger
    than the message (a decompression bomb).
    """

    def __init__(self, gpg: Gpg, silence: float, limit: int) -> None:
        assert gpg.process.stdout is not None
        self.gpg = gpg
        self.silence = silence
        self.limit = limit
        self.count = 0
        self.ended = False
        self.descriptor = gpg.process.stdout.fileno()
        widen(self.descriptor)

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor

    def readinto(self, buffer: Any) -> int:
        if self.ended:
            return 0
        self.gpg.wait_for(self.descriptor, self.silence)
        count = os.readv(self.descriptor, [buffer])
        self.count += count
        self.ended = count == 0
        if self.count > self.limit:
            raise self.gpg.refuse(f"it unpacks to more than {self.limit:,} bytes; pack it without OpenPGP compression")
        return count


def widen(descriptor: int) -> None:
    """Make a pipe as large as an ordinary user may, so that both ends run in long strokes."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
