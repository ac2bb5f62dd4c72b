"""From the sections in force to those wanted: which ones are affected, and which commands that takes.

Nothing here touches the system.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from paradrop.backend.pdconfd.config.base import ConfigError, ConfigObject, Key
from paradrop.backend.pdconfd.config.command import Command
from paradrop.backend.pdconfd.config.effects import Step

log = logging.getLogger(__name__)

Configs = dict[Key, ConfigObject]


@dataclass
class Change:
    """The commands of one load, not yet in order of priority."""

    undo: list[Command] = field(default_factory=list)
    apply: list[Command] = field(default_factory=list)


def affected(configs: Iterable[ConfigObject], changed: Mapping[Key, ConfigObject]) -> set[ConfigObject]:
    """Return the sections that must be looked at again because of others that came, went or changed.

    Args:
        configs: all sections that are wanted.
        changed: the sections that changed (both old and new object count), by type and name.
    """
    found: set[ConfigObject] = set()
    todo = list(changed.values())
    by_type: dict[str, list[ConfigObject]] = defaultdict(list)
    for (kind, _), other in changed.items():
        by_type[kind].append(other)
    for config in configs:
        watched = (other for kind in config.watches for other in by_type.get(kind, ()))
        if any(map(config.concerns, watched)) or not config.missing.isdisjoint(changed):
            found.add(config)
            todo.append(config)
    while todo:
        for dependent in todo.pop().dependents:
            if dependent not in found:
                found.add(dependent)
                todo.append(dependent)
    return found


def transition(old: Configs, new: Configs, redo: Collection[ConfigObject],
               shared: dict[Step, Command]) -> Change:
    """Work out the commands that lead from the old sections to the new ones, and what is in force then.

    Steps that stay as they are, of sections that stay or change, are neither undone nor done again.

    Args:
        old: the sections in force.
        new: those wanted; objects that are in both are kept.
        redo: the sections, out of new, to look at again; new ones among them.
        shared: the shared steps in force; brought up to date here, as are ``applied`` and ``problem`` of sections.
    """
    change = Change()
    wanted = {id(config) for config in redo}
    plans = {id(config): _plan(config, new, known=old.get(key) is config)
             for key, config in new.items() if id(config) in wanted}
    gone = set(old.values()).difference(new.values())
    for config in new.values() if gone else ():
        config.dependents -= gone
    before = {key: config.applied for key, config in old.items()}
    for key in reversed(old):
        if key not in new:
            change.undo += _undo(_own(before[key]))
    released = {command.step for key, config in old.items() if new.get(key) is not config or id(config) in plans
                for command in before[key] if command.step and command.step.shared}
    known = set(shared)
    fresh_shared: list[Command] = []
    undone: dict[Key, list[Command]] = {}
    for key, config in new.items():
        if id(config) not in plans:
            continue
        applied = before.get(key, [])
        config.applied, fresh, undone[key] = _difference(config, plans[id(config)], applied, shared, fresh_shared)
        change.apply += fresh
    for key in reversed(undone):
        change.undo += _undo(undone[key])
    change.undo += _drop_shared(new, shared, released)
    if any(command.step in known for command in fresh_shared):
        _share_again(new, shared)
    change.apply[:0] = fresh_shared
    return change


def _plan(config: ConfigObject, configs: Configs, known: bool) -> list[Step]:
    """Return the steps of a section; one that cannot be applied has none, and a problem."""
    config.problem, config.executed = None, []
    config.missing.clear()
    if known:
        for other in configs.values():
            other.dependents.discard(config)
    try:
        return list(config.steps(configs))
    except (ConfigError, ValueError) as error:
        config.problem = str(error)
    except Exception as error:
        log.exception("%r cannot be applied", config)
        config.problem = f"cannot apply {config.typename} {config.name}: {error!r}"
    log.warning("%s", config.problem)
    return []


def _own(commands: Iterable[Command]) -> list[Command]:
    return [command for command in commands if not (command.step and command.step.shared)]


def _undo(commands: list[Command]) -> list[Command]:
    return [undo for command in reversed(commands) if (undo := command.undo())]


def _difference(config: ConfigObject, plan: list[Step], applied: list[Command], shared: dict[Step, Command],
                fresh_shared: list[Command]) -> tuple[list[Command], list[Command], list[Command]]:
    """Return what is in force afterwards, what of it must be done, and what of the former must be undone."""
    kept: dict[Step, list[Command]] = defaultdict(list)
    for command in _own(applied):
        if command.step and not command.failed:
            kept[command.step].append(command)
    result, fresh = [], []
    for step in plan:
        if step.shared:
            if step not in shared or (shared[step].failed and shared[step].undo() is None):
                shared[step] = Command(step.priority, step.do, config, step=step)
                fresh_shared.append(shared[step])
            command = shared[step]
        elif kept[step]:
            command = kept[step].pop(0)
            command.parent = config
        else:
            command = Command(step.priority, step.do, config, step=step)
            fresh.append(command)
        result.append(command)
    staying = {id(command) for command in result}
    return result, fresh, [command for command in _own(applied) if id(command) not in staying]


def _drop_shared(configs: Configs, shared: dict[Step, Command], released: set[Step]) -> list[Command]:
    """Forget those of the released shared steps that no section asks for any more; return the commands that undo them.
    """
    for config in configs.values():
        if not released:
            break
        released = released.difference(command.step for command in config.applied)
    return _undo([shared.pop(step) for step in list(shared) if step in released])


def _share_again(configs: Configs, shared: Mapping[Step, Command]) -> None:
    """Have a shared step that had failed and is tried again count for all who asked for it."""
    for config in configs.values():
        config.applied = [shared[command.step] if command.step and command.step.shared else command
                          for command in config.applied]
