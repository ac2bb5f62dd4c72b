"""Commands: effects on their way through the manager, with the outcome of each."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from paradrop.backend.pdconfd.config.effects import Effect, Run, StartDaemon, Step
from paradrop.backend.pdconfd.config.run import Runner

if TYPE_CHECKING:
    from paradrop.backend.pdconfd.config.base import ConfigObject


class Command:
    """One thing to do to the system for a section.

    Args:
        priority: lower is earlier.
        command: an effect, an argument list, or one text that is split at spaces.
        parent: the section that wants it.

    ``result`` is None until the command was executed, then its exit status, or the exception that kept it from ending.
    ``pid`` is the process it ran as. ``learned`` is the undo that was found out while executing.
    """

    PRIO_CREATE_IFACE = 10
    PRIO_CONFIG_IFACE = 20
    PRIO_START_DAEMON = 30
    PRIO_ADD_IPTABLES = 40
    PRIO_DELETE_IFACE = 50

    def __init__(self, priority: int, command: Effect | str | Sequence[str],
                 parent: "ConfigObject | None" = None, *, step: Step | None = None,
                 undoes: "Command | None" = None) -> None:
        if isinstance(command, str):
            command = command.split()
        self.priority = priority
        self.effect: Effect = Run(tuple(command)) if isinstance(command, Sequence) else command
        self.parent = parent
        self.step = step
        self.undoes = undoes
        self.learned: Effect | None = None
        self.result: int | Exception | None = None
        self.pid: int | None = None
        self.number: int | None = None  # under which its undo is in the journal
        self.said = ""

    @property
    def command(self) -> list[str]:
        """The argument list."""
        return list(self.effect.argv)

    def __str__(self) -> str:
        return " ".join(self.effect.argv)

    def __repr__(self) -> str:
        return f"Command({self.priority}, {self.command!r})"

    def execute(self, runner: Runner | None = None) -> bool:
        """Do it and return whether it succeeded. Failures are kept in ``result``, never raised."""
        runner = runner or Runner()
        try:
            done = runner.perform(self.effect)
        except (OSError, TimeoutError) as error:
            self.finish(error, None, str(error))
        else:
            self.finish(done.status, done.pid, done.errors.strip())
        return self.success()

    def finish(self, result: int | Exception | None, pid: int | None, said: str) -> None:
        """Keep the outcome."""
        self.result, self.pid, self.said = result, pid, said
        if self.parent is not None:
            self.parent.executed.append(self)

    def learn(self, runner: Runner) -> None:
        """Find out, before it is executed, what will undo it; a failure to find out becomes its result."""
        try:
            self.learned = runner.learn(self.effect)
        except (OSError, TimeoutError, ValueError) as error:
            self.result, self.said = error, str(error)

    def success(self) -> bool:
        """Returns True if the command was successfully executed."""
        return self.result == 0

    @property
    def failed(self) -> bool:
        """Whether it was executed and did not succeed."""
        return self.result is not None and not self.success()

    @property
    def failure(self) -> str | None:
        """What went wrong, in one line, or None."""
        if not self.failed:
            return None
        what = self.said.splitlines()[0] if self.said else f"exit status {self.result}"
        return f"cannot run {shlex.join(self.effect.argv)}: {what}"

    def undo(self) -> "Command | None":
        """Return the command that takes this one back, or None if there is nothing to take back.

        A program that ended with a failure did nothing, and what it would have made may be somebody else's; one that
        ran into its time limit, or a daemon, may have got half-way. Bringing back what was before is right in any case.
        """
        if self.step is None:
            return None
        half_done = isinstance(self.result, TimeoutError) or isinstance(self.effect, StartDaemon)
        effect = self.learned or (None if self.failed and not half_done else self.step.undo)
        if effect is None:
            return None
        priority = self.priority if self.step.undo_priority is None else self.step.undo_priority
        return Command(priority, effect, self.parent, step=self.step, undoes=self)
