"""What can be done to the system, as data.

Nothing here does anything: :mod:`paradrop.backend.pdconfd.config.run` is the one module that does. Effects are frozen,
compare by value and can be written to the journal as JSON, so an undo survives the process that planned it.
"""

from typing import TypeAlias

from msgspec import Struct


class Run(Struct, frozen=True, tag="run", omit_defaults=True):
    """Run a program and wait for it; ``stdin`` is what it reads."""

    argv: tuple[str, ...]
    stdin: str = ""


class RunAll(Struct, frozen=True, tag="all"):
    """Run several programs one after the other, going on after failures; fails if one did."""

    commands: tuple[tuple[str, ...], ...]

    @property
    def argv(self) -> tuple[str, ...]:
        return tuple(word for command in self.commands for word in (*command, ";"))[:-1]


class StartDaemon(Struct, frozen=True, tag="start"):
    """Write a daemon's configuration file, then start it; it puts itself in the background and writes its pid file.

    The process is known by its configuration file: one of its arguments must end with that path. ``leftovers`` are
    files that it leaves behind.
    """

    argv: tuple[str, ...]
    conf: str
    text: str
    pidfile: str
    leftovers: tuple[str, ...] = ()

    def stop(self) -> "StopDaemon":
        return StopDaemon(self.conf, self.pidfile, self.leftovers)


class StopDaemon(Struct, frozen=True, tag="stop"):
    """End the process of a pid file, if it is the one that was started with ``conf``, and remove its files."""

    conf: str
    pidfile: str
    leftovers: tuple[str, ...] = ()

    @property
    def argv(self) -> tuple[str, ...]:
        return ("kill", f"$(cat {self.pidfile})")


class RememberLink(Struct, frozen=True, tag="remember"):
    """Take down the addresses, routes and up or down of a network link, so that undoing can bring them back."""

    ifname: str

    @property
    def argv(self) -> tuple[str, ...]:
        return ("ip", "-json", "address", "show", "dev", self.ifname)


class SetSysctl(Struct, frozen=True, tag="sysctl"):
    """Set a kernel parameter; undoing sets what it was before."""

    key: str
    value: str

    @property
    def argv(self) -> tuple[str, ...]:
        return ("sysctl", "--write", f"{self.key}={self.value}")


Effect: TypeAlias = Run | RunAll | StartDaemon | StopDaemon | RememberLink | SetSysctl


class Step(Struct, frozen=True):
    """One effect with its undo, and what it stands on.

    Args:
        priority: when to do it, see Command.PRIO_CREATE_IFACE and its kin.
        do: the effect.
        undo: what takes it back, also from a half-done or missing effect. None: nothing to take back, or the effect
            finds out when it is done (RememberLink, SetSysctl).
        undo_priority: when to take it back; the same number if not given.
        on: facts that the effect needs to stay in force. A step whose facts changed is undone and done again, although
            it reads the same: an address is lost with the link it was on.
        shared: several sections ask for it; it is done for the first of them and undone after the last has gone.
    """

    priority: int
    do: Effect
    undo: Effect | None = None
    undo_priority: int | None = None
    on: tuple[str, ...] = ()
    shared: bool = False
