"""Commands carried out, one after the other, with the journal kept."""

import logging
from collections.abc import Iterable
from itertools import groupby

from paradrop.backend.pdconfd.config import iptables
from paradrop.backend.pdconfd.config.command import Command
from paradrop.backend.pdconfd.config.journal import Journal
from paradrop.backend.pdconfd.config.run import Runner

log = logging.getLogger(__name__)


class Executor:
    """Carries out commands. Their outcomes are kept in them; failures are logged, never raised.

    Args:
        runner: what performs effects.
        journal: where each undo is noted before what it undoes is done.
    """

    def __init__(self, runner: Runner, journal: Journal) -> None:
        self.runner = runner
        self.journal = journal
        self._recovered = False

    def execute(self, commands: Iterable[Command]) -> None:
        """Run commands in the order given. Neighbours that are about the packet filter are run together."""
        for rules, group in groupby(commands, key=iptables.is_rule):
            if rules:
                self._execute_rules(list(group))
            else:
                for command in group:
                    self._execute(command)

    def recover(self) -> None:
        """Undo what an earlier life of this program left behind, if this is the first change of this one."""
        if self._recovered:
            return
        self._recovered = True
        self.execute(Command(0, effect) for effect in self.journal.read())
        self.journal.clear()

    def _execute(self, command: Command) -> None:
        command.learn(self.runner)
        if not command.failed:
            self._note(command)
            command.execute(self.runner)
        self._look(command)

    def _execute_rules(self, commands: list[Command]) -> None:
        """Run rules by the table; if a table refuses, nothing of it was done, and each rule is tried by itself."""
        for effect, found in iptables.together(commands) if len(commands) > 1 else []:
            for command in found:
                self._note(command)
            whole = Command(0, effect)
            if not whole.execute(self.runner) and not isinstance(whole.result, TimeoutError):
                log.info("%s: trying one by one", whole.failure)
                continue
            for command in found:
                command.finish(whole.result, whole.pid, whole.said)
                self._look(command)
        for command in commands:
            if command.result is None:
                self._execute(command)

    def _note(self, command: Command) -> None:
        undo = command.undo()
        if undo and command.undoes is None and command.number is None:
            command.number = self.journal.add(undo.effect)

    def _look(self, command: Command) -> None:
        """Look at the outcome; what cannot be undone any more is forgotten."""
        if command.failed:
            log.warning("%s%s", "undoing: " if command.undoes else "", command.failure)
        gone = command.undoes or (command if command.failed and command.undo() is None else None)
        if gone is not None and gone.number is not None:
            self.journal.done(gone.number)
            gone.number = None
