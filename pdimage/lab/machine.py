"""One virtual machine: power, ssh, files, services, snapshots."""

import contextlib
import functools
import json
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from fussy.errors import FussyError
from pdimage.lab import constants, costs, services, snapshots, utils
from pdimage.lab.console import Console
from pdimage.lab.monitor import Agent, Monitor, MonitorFailed
from pdimage.lab.qemu import Card, Drive, Hardware, command_line
from pdimage.lab.services import _Service
from pdimage.lab.ssh import Session
from pdimage.lab.utils import CommandStatus

if TYPE_CHECKING:
    from pdimage.lab.virt import VirtEnv

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class MachineFailed(FussyError):
    """A machine is not as it must be for what was asked, or a command in it failed."""


def _check_alive(func: "Callable[Concatenate[VM, _Arguments], _Result]"
                 ) -> "Callable[Concatenate[VM, _Arguments], _Result]":
    """Decorator that refuses to do something with a machine that does not run."""

    @functools.wraps(func)
    def wrapped(vm: "VM", /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        if not vm.alive():
            raise MachineFailed(f"cannot use {vm.name()}: it does not run; start it")
        return func(vm, *args, **kwargs)

    return wrapped


class VM:
    """A machine of ENV as SPEC describes it; what describes it is kept in the prefix by :meth:`save`."""

    def __init__(self, env: "VirtEnv", spec: dict[str, Any]) -> None:
        self._env = env
        self._spec = self._normalize_spec(spec)
        self._service_class: type[_Service] | None = None
        self._connected_boot = ""
        self._switched_on: float | None = None
        directory = Path(env.virt_path())
        self.monitor = Monitor(directory, self.name())
        self.agent = Agent(directory, self.name())
        self.console = Console(Path(env.prefix.paths.logs()) / f"{self.name()}.console.log")

    @classmethod
    def _normalize_spec(cls, spec: dict[str, Any]) -> dict[str, Any]:
        """Fill in what SPEC leaves out."""
        defaults: dict[str, Any] = {
            "memory": 512, "vcpu": 2, "flavour": "minimal", "snapshots": {}, "metadata": {}, "nics": [], "disks": [],
            "root-password": constants.ROOT_PASSWORD, "ssh-user": "root", "radios": 0, "watchdog": False}
        for key, value in defaults.items():
            spec.setdefault(key, value)
        return spec

    # What it is

    def virt_env(self) -> "VirtEnv":
        """The environment that it is in."""
        return self._env

    @property
    def spec(self) -> dict[str, Any]:
        """What describes it."""
        return self._spec

    @property
    def metadata(self) -> dict[str, Any]:
        """Free values that go with it."""
        metadata: dict[str, Any] = self._spec["metadata"]
        return metadata

    def name(self) -> str:
        """Its name."""
        return str(self._spec["name"])

    def nics(self) -> list[dict[str, Any]]:
        """Its network cards: ``net``, ``ip`` (if it has one), ``mac``."""
        nics: list[dict[str, Any]] = self._spec["nics"]
        return nics

    def ip(self) -> str:
        """Its address in the network that machines are reached over."""
        return self._env.get_net().resolve(self.name())

    def distro(self) -> str:
        """The name of the Debian release that it runs."""
        return str(self._template_metadata().get("distro", "debian"))

    def root_password(self) -> str:
        """The password of root, for the console."""
        return str(self._spec["root-password"])

    def iscsi_name(self) -> str:
        """Its name as iSCSI initiator."""
        return f"iqn.2014-07.org.lago:{self.name()}"

    def vnc_port(self) -> str:
        """``no-screen``: these machines have a serial line (see ``console``) and no screen."""
        return "no-screen"

    def _template_metadata(self) -> dict[str, Any]:
        disks = self._spec["disks"]
        return dict(disks[0].get("metadata", {})) if disks else {}

    def save(self, path: str | None = None) -> None:
        """Write what describes it to the prefix, or to PATH."""
        place = path or self._env.virt_path(f"vm-{self.name()}")
        with open(f"{place}~", "w", encoding="utf-8") as file:
            json.dump(self._spec, file, indent=4)
        os.replace(f"{place}~", place)

    # Power

    def alive(self) -> bool:
        """Tell whether it runs."""
        return self._env.keeper.runs(self.name())

    def start(self) -> None:
        """Switch it on; nothing happens if it runs. It can be reached once :meth:`wait_for_ssh` returns."""
        with self._env.up():
            if not self.alive():
                self.switch_on()

    def switch_on(self) -> None:
        """Switch it on, in an environment that is :meth:`~pdimage.lab.virt.VirtEnv.up`."""
        self.console.rotate()
        self._switched_on = time.monotonic()
        self.power_on(None)

    def stop(self) -> None:
        """Let it write what it holds back (as far as it answers), and pull the plug."""
        if self.alive():
            with contextlib.suppress(FussyError):
                self.agent.run("/bin/sync", seconds=20)
            self.power_off()

    def shutdown(self, seconds: float = 60.0) -> None:
        """Shut it down in good order; after SECONDS the plug is pulled."""
        if not self.alive():
            return
        self.ssh(_asking_the_first_program("poweroff"), show_output=False)
        deadline = time.monotonic() + seconds
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        self.power_off()

    def power_off(self) -> None:
        """Pull the plug: what it has not written to its disks by now is lost."""
        self._session().disconnect()
        self._env.keeper.kill(self.name(), signal.SIGKILL)

    @_check_alive
    def reset(self) -> None:
        """Push the reset button."""
        self.monitor.command("system_reset")

    def power_on(self, memory: Path | None) -> None:
        """Start QEMU, to boot or to go on from what is in MEMORY.

        :raises MachineFailed: QEMU does not come up
        """
        keeper = self._env.keeper
        for number, nic in enumerate(self.nics()):
            self._env.get_net(nic["net"]).plug(self._tap(number))
        keeper.spawn(self.name(), command_line(self._hardware(memory)))
        try:
            self.monitor.await_running(self.alive)
        except MonitorFailed as error:
            raise MachineFailed(f"cannot start {self.name()}: {self._last_words() or error}") from error

    def _last_words(self) -> str:
        """Return what QEMU said last."""
        return " ".join((Path(self._env.prefix.paths.logs()) / f"{self.name()}.log").read_text().splitlines()[-2:])

    def _hardware(self, memory: Path | None) -> Hardware:
        spec = self._spec
        drives = tuple(Drive(disk["name"], disk["path"], disk["format"]) for disk in spec["disks"])
        cards = tuple(Card(self._tap(number), nic["mac"]) for number, nic in enumerate(self.nics()))
        return Hardware(
            self.name(), kernel=Path(spec["kernel"]), initrd=Path(spec["initrd"]), init=spec["init"],
            accel=self._env.accel(), memory=spec["memory"], vcpu=spec["vcpu"], drives=drives, cards=cards,
            ports=tuple(spec.get("ports", ())), watchdog=spec["watchdog"], incoming=memory,
            console_log=self.console.path, append=spec.get("append", ""))

    def _tap(self, number: int) -> str:
        """Return the name of a tap device; the machine's place in the environment keeps it short."""
        return f"tap{self._env.position(self.name())}-{number}"

    # Getting in

    def wait_for_ssh(self, connect_retries: int = 50, seconds: float = 900.0) -> None:
        """Wait until it can be reached by ssh: it says on its serial line when it is up, then ssh is tried.

        :raises MachineFailed: it stopped, or did not come up in SECONDS
        :raises Unreachable: it came up, but ssh does not work after CONNECT_RETRIES attempts
        """
        self.await_boot("", seconds)
        self._session().connect(connect_retries)
        self._connected_boot = self.console.boot_id()
        if self._switched_on is not None:
            costs.note(f"boot to ssh, {self._spec['flavour']}", time.monotonic() - self._switched_on)
            self._switched_on = None

    def await_boot(self, after: str, seconds: float = 900.0) -> str:
        """Wait until it is up and return which boot that is; AFTER is one that is over and does not count.

        :raises MachineFailed: it stopped, or did not come up in SECONDS
        """
        deadline = time.monotonic() + seconds
        while (boot := self.console.boot_id()) in ("", after):
            if not self.alive():
                raise MachineFailed(f"cannot wait for {self.name()}: it has stopped; it said:\n"
                                    f"{self.console.tail()}\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise MachineFailed(f"cannot wait for {self.name()}: it did not come up in {seconds:.0f} s; it said:\n"
                                    f"{self.console.tail()}")
            time.sleep(0.03)
        return boot

    def reboot(self, seconds: float = 900.0) -> None:
        """Let it boot again, and wait until it can be reached."""
        boot = self.console.boot_id()
        self.ssh(_asking_the_first_program("reboot"), show_output=False)
        self.await_boot(boot, seconds)
        self.wait_for_ssh()

    def ssh(self, command: str | Sequence[str], data: str | None = None, show_output: bool = True,
            seconds: float | None = None) -> CommandStatus:
        """Run COMMAND (words, or a line for the shell) in it, with DATA as input; return how it ended.

        The code is 255 if the machine went away meanwhile.

        :raises MachineFailed: it does not run
        :raises Unreachable: it can't be reached, or the command did not end in SECONDS
        """
        return self._live_session().run(command, data, shown=show_output, seconds=seconds)

    def run(self, command: str | Sequence[str], data: str | None = None, seconds: float | None = 900.0) -> str:
        """Run COMMAND in it, and return what it printed.

        :raises MachineFailed: the command failed; the message has what it said
        """
        status = self.ssh(command, data, show_output=False, seconds=seconds)
        if status:
            line = command if isinstance(command, str) else shlex.join(command)
            said = "\n".join(f"{status.out}{status.err}".rstrip().splitlines()[-30:])
            raise MachineFailed(f"cannot run {line!r} in {self.name()}: exit code {status.code}:\n{said}")
        return status.out

    def ssh_script(self, path: str, show_output: bool = True) -> CommandStatus:
        """Run the shell script PATH of the host in it."""
        return self.ssh(["bash", "-s"], Path(path).read_text(encoding="utf-8"), show_output)

    def interactive_ssh(self, *command: str) -> CommandStatus:
        """Open a shell in it on this terminal, or run a command there."""
        session = self._live_session()
        session.connect()
        os.chdir(self._env.virt_path())  # where the socket of the connection is
        return utils.interactive_ssh_channel(session.command_line("-t"), shlex.join(command) or None)

    @_check_alive
    def _live_session(self) -> Session:
        """Return the way in. What was connected to an earlier boot is dropped: nobody would answer there."""
        session = self._session()
        boot = self.console.boot_id()
        if self._connected_boot != boot:
            if self._connected_boot:
                session.disconnect()
            self._connected_boot = boot
        return session

    def _session(self) -> Session:
        paths = self._env.prefix.paths
        return Session(self._env.keeper, self.name(), self.ip(), Path(paths.ssh_id_rsa()),
                       Path(paths.virt("known_hosts")), str(self._spec["ssh-user"]))

    # Files

    def copy_to(self, local_path: str | Path, remote_path: str) -> None:
        """Copy a file or directory of the host into it, as REMOTE_PATH; what is there is replaced.

        A directory's files get into REMOTE_PATH itself, and what else is there stays.

        :raises Unreachable: that failed
        """
        local, session = Path(local_path).absolute(), self._live_session()
        if local.is_dir():
            send = ["tar", "-C", str(local), "--numeric-owner", "-c", "."]
            take = f"mkdir -p {shlex.quote(remote_path)} && tar -C {shlex.quote(remote_path)} -x"
        else:
            send = ["cat", str(local)]
            mode = format(os.stat(local).st_mode & 0o777, "o")
            quoted = shlex.quote(remote_path)
            take = (f"if [ -d {quoted} ]; then set -- {quoted}/{shlex.quote(local.name)}; else set -- {quoted}; fi; "
                    f"cat >\"$1\" && chmod {mode} \"$1\"")
        session.copy(send, [*session.command_line(), "--", take])

    def copy_from(self, remote_path: str, local_path: str | Path) -> None:
        """Copy a file or directory of it to the host, as LOCAL_PATH.

        :raises Unreachable: that failed
        """
        local, session = Path(local_path).absolute(), self._live_session()
        directory, _, name = remote_path.rstrip("/").rpartition("/")
        # a link to a file is followed, those inside a directory are copied as they are
        line = f"[ -d {shlex.quote(remote_path)} ] || set -- -h; tar -C {shlex.quote(directory or '/')} -c \"$@\" "
        send = [*session.command_line(), "--", line + shlex.quote(name or ".")]
        received = local.with_name(f".{local.name}.receiving")
        received.mkdir(parents=True)
        with utils.RollbackContext() as rollback:
            rollback.defer(utils.run_command, ["rm", "-rf", str(received)])
            session.copy(send, ["tar", "-C", str(received), "--no-same-owner", "-x"])
            target = local / name if local.is_dir() else local
            os.replace(received / name, target)

    def extract_paths(self, paths: Iterable[tuple[str, str]]) -> None:
        """Copy several (path in it, path on the host) from it.

        :raises Unreachable: one could not be copied
        """
        for remote, local in paths:
            self.copy_from(remote, local)

    def collect_artifacts(self, directory: Path) -> None:
        """Copy what the description calls artifacts into DIRECTORY; what is not there is left out."""
        directory.mkdir(parents=True, exist_ok=True)
        for path in self._spec.get("artifacts", ()):
            if not self.ssh(["test", "-e", path], show_output=False):
                self.copy_from(path, directory / path.strip("/").replace("/", "_"))

    # Services and snapshots

    def service(self, name: str) -> _Service:
        """Return the service NAME."""
        if self._service_class is None:
            self._service_class = self._detect_service_manager()
        return self._service_class(self, name)

    def _detect_service_manager(self) -> type[_Service]:
        """Return the kind of services that it has.

        :raises MachineFailed: none that we know
        """
        for kind in services.KINDS:
            if kind.is_supported(self):
                return kind
        raise MachineFailed(f"cannot find services in {self.name()}: its flavour ({self._spec['flavour']}) has no "
                            "manager for them")

    def guest_agent(self) -> _Service:
        """Return the service of the guest agent."""
        return self.service("qemu-guest-agent")

    def create_snapshot(self, name: str) -> None:
        """Keep disks, and if it runs also memory, under NAME; it goes on as if nothing had happened.

        :raises SnapshotFailed: there is one of that name, or it can't be made
        """
        snapshots.create(self, name)

    def _create_live_snapshot(self, name: str) -> Mapping[str, Any]:
        return snapshots.live(self, name)

    def _create_dead_snapshot(self, name: str) -> Mapping[str, Any]:
        return snapshots.dead(self, name)

    def revert_snapshot(self, name: str) -> None:
        """Go back to the snapshot NAME: disks as they were, and running if it was.

        :raises SnapshotFailed: there is none of that name, or it can't be brought back
        """
        snapshots.revert(self, name)

    def _reclaim_disks(self) -> None:
        """Delete overlays that neither the machine nor a snapshot needs."""
        snapshots.reclaim(self)

    def bootstrap(self) -> None:
        """Write what makes this machine out of its system: name, keys, addresses. The next start takes it over."""
        self._env.prefix.prepare(self)


def _asking_the_first_program(what: str) -> str:
    """Return a line of shell that has the machine ``reboot`` or ``poweroff``, whichever program runs it."""
    return f"sync; if [ -d /run/systemd/system ]; then systemctl {what}; else busybox {what}; fi"
