"""What can go wrong in a pipe of processes.

::

    FussyError
    └── NBIOError          the pipe was put together wrongly, or one of its ends cannot be opened
        ├── ProcessError   a member ended with an exit code which it should not have, or could not be started
        └── Timeout        the time limit of the run passed
"""

from fussy.errors import FussyError


class NBIOError(FussyError):
    """Base class of the errors of fussy.nbio.

    `output` holds what the pipe had collected before it failed.
    """

    output: bytes = b""


class ProcessError(NBIOError):
    """A called process returned an error code.

    `process` is the fussy.nbio.Process which failed. `exitcode` is its exit code: negative for the signal that ended
    it, and, as in a shell, 127 when the program was not found and 126 when it could not be executed.
    """

    def __init__(self, process: object, exitcode: int, reason: str) -> None:
        super().__init__(f"cannot run {process}: {reason}")
        self.process = process
        self.exitcode = exitcode

    def __str__(self) -> str:
        """The reason and the last line of the collected output, which often is the program's own message."""
        lines = self.output[-400:].decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return f"{self.args[0]} ({last.strip()})" if last else str(self.args[0])


class Timeout(NBIOError):
    """The pipe did not end in time; all its members were killed."""
