"""Services inside a machine, whichever program manages them there."""

from enum import IntEnum
from typing import TYPE_CHECKING

from fussy.errors import FussyError
from pdimage.lab.utils import CommandStatus

if TYPE_CHECKING:
    from pdimage.lab.machine import VM


class ServiceState(IntEnum):
    """How a service is."""

    MISSING = 0
    INACTIVE = 1
    ACTIVE = 2


class ServiceFailed(FussyError):
    """A service could not be started or stopped."""


class _Service:
    """The service NAME of VM. Kinds differ in BIN_PATH, the program that manages them, and in its words."""

    BIN_PATH = ""

    def __init__(self, vm: "VM", name: str) -> None:
        self._vm, self._name = vm, name

    @classmethod
    def is_supported(cls, vm: "VM") -> bool:
        """Tell whether VM has services of this kind."""
        return not vm.ssh(["test", "-x", cls.BIN_PATH], show_output=False)

    def exists(self) -> bool:
        """Tell whether there is such a service."""
        return self.state() != ServiceState.MISSING

    def alive(self) -> bool:
        """Tell whether it runs."""
        return self.state() == ServiceState.ACTIVE

    def start(self) -> None:
        """Start it; nothing happens if it runs.

        :raises ServiceFailed: there is none, or it does not start
        """
        if self._state_to_change("start") == ServiceState.INACTIVE:
            self._check("start", self._request_start())

    def stop(self) -> None:
        """Stop it; nothing happens if it does not run.

        :raises ServiceFailed: there is none, or it does not stop
        """
        if self._state_to_change("stop") == ServiceState.ACTIVE:
            self._check("stop", self._request_stop())

    def state(self) -> ServiceState:
        """Return how it is."""
        raise NotImplementedError

    def _request_start(self) -> CommandStatus:
        raise NotImplementedError

    def _request_stop(self) -> CommandStatus:
        raise NotImplementedError

    def _run(self, *words: str) -> CommandStatus:
        return self._vm.ssh([self.BIN_PATH, *words], show_output=False)

    def _state_to_change(self, what: str) -> ServiceState:
        state = self.state()
        if state == ServiceState.MISSING:
            raise ServiceFailed(f"cannot {what} {self._name} in {self._vm.name()}: there is no such service")
        return state

    def _check(self, what: str, status: CommandStatus) -> None:
        if status:
            raise ServiceFailed(f"cannot {what} {self._name} in {self._vm.name()}: {status.err.strip()}")


class _SystemdService(_Service):
    """A unit of systemd."""

    BIN_PATH = "/usr/bin/systemctl"

    @classmethod
    def is_supported(cls, vm: "VM") -> bool:
        """Tell whether systemd is what VM runs; having its programs is not enough."""
        return not vm.ssh(["test", "-d", "/run/systemd/system"], show_output=False)

    def state(self) -> ServiceState:
        shown = self._run("show", "--property=LoadState,ActiveState", "--value", f"{self._name}.service").out.split()
        if not shown or shown[0] not in ("loaded", "masked"):
            return ServiceState.MISSING
        return ServiceState.ACTIVE if shown[-1] == "active" else ServiceState.INACTIVE

    def _request_start(self) -> CommandStatus:
        return self._run("start", self._name)

    def _request_stop(self) -> CommandStatus:
        return self._run("stop", self._name)


class _SysVInitService(_Service):
    """A script in /etc/init.d. State 3 of its ``status`` is "not running", 4 "unknown" (LSB)."""

    BIN_PATH = "/sbin/service"

    def state(self) -> ServiceState:
        if self._vm.ssh(["test", "-x", f"/etc/init.d/{self._name}"], show_output=False):
            return ServiceState.MISSING
        return ServiceState.INACTIVE if self._run(self._name, "status") else ServiceState.ACTIVE

    def _request_start(self) -> CommandStatus:
        return self._run(self._name, "start")

    def _request_stop(self) -> CommandStatus:
        return self._run(self._name, "stop")


class _SystemdContainerService(_Service):
    """A container named NAME, on a machine where systemd runs Docker."""

    BIN_PATH = "/usr/bin/docker"
    HOST_BIN_PATH = "/usr/bin/systemctl"

    @classmethod
    def is_supported(cls, vm: "VM") -> bool:
        """Tell whether VM has containers and a systemd outside them."""
        programs = f"test -x {cls.BIN_PATH} -a -x {cls.HOST_BIN_PATH} -a -d /run/systemd/system"
        return not vm.ssh(programs, show_output=False)

    def state(self) -> ServiceState:
        shown = self._run("inspect", "--format", "{{.State.Running}}", self._name)
        if shown:
            return ServiceState.MISSING
        return ServiceState.ACTIVE if shown.out.strip() == "true" else ServiceState.INACTIVE

    def _request_start(self) -> CommandStatus:
        return self._run("start", self._name)

    def _request_stop(self) -> CommandStatus:
        return self._run("stop", self._name)


KINDS: tuple[type[_Service], ...] = (_SystemdService, _SysVInitService)
