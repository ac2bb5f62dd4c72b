"""The virtual part of a prefix: its machines and networks, and the namespaces that they live in."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fussy.errors import FussyError
from pdimage.lab import acceleration, topology, utils
from pdimage.lab.keeping import Keeper
from pdimage.lab.machine import VM, MachineFailed, _check_alive
from pdimage.lab.network import BridgeNetwork, NATNetwork, Network
from pdimage.lab.services import (
    ServiceState,
    _Service,
    _SystemdContainerService,
    _SystemdService,
    _SysVInitService,
)

if TYPE_CHECKING:
    from pdimage.lab.prefix import Prefix

__all__ = [
    "VM", "BridgeNetwork", "MachineFailed", "NATNetwork", "Network", "ServiceState", "VirtEnv", "_Service",
    "_SysVInitService", "_SystemdContainerService", "_SystemdService", "_check_alive", "_ip_to_mac",
]

NETWORKS: Mapping[str, type[Network]] = {"nat": NATNetwork, "bridge": BridgeNetwork}


class UnknownName(FussyError, LookupError):
    """The environment has no machine or network of that name."""


class VirtEnv:
    """The machines and networks of PREFIX, by their specifications. ``bound``: they end with this process."""

    def __init__(self, prefix: "Prefix", vm_specs: Mapping[str, dict[str, Any]],
                 net_specs: Mapping[str, dict[str, Any]]) -> None:
        self.prefix, self.bound = prefix, prefix.bound
        paths = prefix.paths
        self.keeper = Keeper(Path(paths.virt()), Path(paths.logs()))
        self._nets = {name: self._create_net(spec) for name, spec in net_specs.items()}
        self._vms = {name: self._create_vm(spec) for name, spec in vm_specs.items()}
        self._accel = ""

    def _create_net(self, net_spec: dict[str, Any]) -> Network:
        return NETWORKS[net_spec["type"]](self, net_spec)

    def _create_vm(self, vm_spec: dict[str, Any]) -> VM:
        return VM(self, vm_spec)

    @classmethod
    def from_prefix(cls, prefix: "Prefix") -> "VirtEnv":
        """Return the environment that was saved in PREFIX."""
        directory = Path(prefix.paths.virt())
        env = json.loads((directory / "env").read_text(encoding="utf-8"))
        vms, nets = ({name: json.loads((directory / f"{kind}-{name}").read_text(encoding="utf-8")) for name in env[key]}
                     for kind, key in (("vm", "vms"), ("net", "nets")))
        return cls(prefix, vms, nets)

    def save(self) -> None:
        """Write everything that describes the environment to the prefix."""
        for net in self._nets.values():
            net.save()
        for vm in self._vms.values():
            vm.save()
        with open(self.virt_path("env"), "w", encoding="utf-8") as file:
            utils.json_dump({"nets": list(self._nets), "vms": list(self._vms)}, file)

    def prefixed_name(self, unprefixed_name: str) -> str:
        """Return a name that no other environment on this machine has."""
        return f"{Path(self.prefix.paths.uuid()).read_text().strip()[:8]}-{unprefixed_name}"

    def virt_path(self, *args: str) -> str:
        """Return a path where the prefix keeps what is virtual."""
        return self.prefix.paths.virt(*args)

    def accel(self) -> str:
        """Return what emulates the processor: ``kvm`` or ``tcg``."""
        if not self._accel:
            spec = next(iter(self._vms.values())).spec
            self._accel = acceleration.found(Path(spec["kernel"]), Path(spec["initrd"]))
        return self._accel

    def bootstrap(self) -> None:
        """Prepare all machines for their first boot."""
        utils.invoke_in_parallel(VM.bootstrap, self._vms.values())

    def start(self, names: Iterable[str] = ()) -> None:
        """Start the networks and all machines, or those of NAMES, and wait until they can be reached.

        If one fails, what this call has started is stopped again.
        """
        vms = [self.get_vm(name) for name in names] or list(self._vms.values())
        with self.up() as rollback:
            for vm in vms:
                if not vm.alive():
                    rollback.prependDefer(vm.power_off)
                    vm.switch_on()
            utils.invoke_in_parallel(VM.wait_for_ssh, vms)

    @contextlib.contextmanager
    def up(self) -> Iterator[utils.RollbackContext]:
        """Have the namespaces and networks, made if need be; if the context fails what is new is gone again.

        Until it has ended well they do not outlive this process; then they do, if the prefix is not bound.
        """
        self.accel()
        with utils.RollbackContext() as rollback:
            new = self.keeper.start()
            if new:
                rollback.prependDefer(self.keeper.stop)
            for net in self._nets.values():
                net.start()
            yield rollback
            if new and not self.bound:
                self.keeper.stay()
            rollback.clear()

    def stop(self, names: Iterable[str] = ()) -> None:
        """Stop the machines of NAMES; without names all of them, and the networks."""
        chosen = [self.get_vm(name) for name in names]
        utils.invoke_in_parallel(VM.stop, chosen or list(self._vms.values()))
        if not chosen:
            self.keeper.stop()

    def create_snapshots(self, name: str) -> None:
        """Make a snapshot of every machine."""
        utils.invoke_in_parallel(lambda vm: vm.create_snapshot(name), self._vms.values())

    def revert_snapshots(self, name: str) -> None:
        """Bring every machine back to its snapshot NAME."""
        running = any(vm.spec["snapshots"].get(name, {}).get("memory") for vm in self._vms.values())
        with self.up() if running else contextlib.nullcontext():
            utils.invoke_in_parallel(lambda vm: vm.revert_snapshot(name), self._vms.values())

    def get_nets(self) -> dict[str, Network]:
        """Return the networks by name."""
        return self._nets.copy()

    def get_net(self, name: str | None = None) -> Network:
        """Return the network NAME; without a name the one that machines are reached over.

        :raises UnknownName: there is none
        """
        if name is None:
            return next(net for net in self._nets.values() if net.is_management())
        return _known(self._nets, name, "network")

    def get_vms(self) -> dict[str, VM]:
        """Return the machines by name."""
        return self._vms.copy()

    def get_vm(self, name: str) -> VM:
        """Return the machine NAME.

        :raises UnknownName: there is none
        """
        return _known(self._vms, name, "machine")

    def position(self, name: str) -> int:
        """Return which machine of the environment NAME is, counted from 0."""
        return list(self._vms).index(name)


_Part = TypeVar("_Part", VM, Network)


def _known(things: Mapping[str, _Part], name: str, what: str) -> _Part:
    if name not in things:
        raise UnknownName(f"cannot find the {what} {name}: the environment has {', '.join(things) or 'none'}")
    return things[name]


def _ip_to_mac(ip: str) -> str:
    """Return the hardware address of the card with the address IP.

    >>> _ip_to_mac("192.168.200.2")
    '54:52:c0:a8:c8:02'
    """
    return topology.hardware_address(map(int, ip.split(".")))
