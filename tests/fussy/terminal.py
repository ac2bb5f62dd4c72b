"""Runs a command on a terminal of its own and answers what it asks."""

import os
import pty
import select
import termios
import time
from collections.abc import Mapping, Sequence

Answers = Sequence[tuple[str, str]]


def on_terminal(argv: Sequence[str], answers: Answers = (), *, env: Mapping[str, str] | None = None,
                limit: float = 60) -> tuple[int, str]:
    """Run ARGV; return its exit code and what was shown.

    ANSWERS are (part of the prompt, line to type), in order. Secret ones are typed once the echo is off.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execvpe(argv[0], list(argv), dict(os.environ if env is None else env))
        finally:
            os._exit(127)
    shown, seen = b"", 0
    waiting = [(prompt.encode(), line) for prompt, line in answers]
    deadline = time.monotonic() + limit
    try:
        while True:
            if time.monotonic() > deadline:
                os.kill(pid, 9)
                raise AssertionError(f"{argv} takes too long: {shown.decode(errors='replace')}")
            if not select.select([terminal], [], [], 0.5)[0]:
                continue
            try:
                block = os.read(terminal, 4096)
            except OSError:  # the other side has ended
                break
            shown += block
            if waiting and waiting[0][0] in shown[seen:]:
                prompt, line = waiting.pop(0)
                seen = len(shown)
                secret = b"assphrase" in prompt
                while secret and termios.tcgetattr(terminal)[3] & termios.ECHO and time.monotonic() < deadline:
                    time.sleep(0.01)
                os.write(terminal, line.encode() + b"\n")
    finally:
        os.close(terminal)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert not waiting, f"never asked for {waiting}: {shown.decode(errors='replace')}"
    return status, shown.decode(errors="replace").replace("\r\n", "\n")
