"""A prefix: the directory with everything of one environment."""

import contextlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fussy.errors import FussyError
from pdimage.lab import config, images, paths, subnet_lease, sysprep, templates, topology, utils, virt
from pdimage.lab.keeping import Keeper
from pdimage.lab.machine import VM
from pdimage.lab.templates import TemplateRepository, TemplateStore

log = logging.getLogger(__name__)


class PrefixFailed(FussyError, RuntimeError):
    """A prefix can't be made, or is not as it must be for what was asked."""


class Prefix:
    """The environment in the directory PREFIX, which may be there or not.

    If BOUND, what is started ends with this process, however that ends: for tests. Otherwise it goes on.
    """

    def __init__(self, prefix: str | Path, *, bound: bool = False) -> None:
        self._prefix = str(Path(prefix).absolute())
        self._paths = self._create_paths()
        self._virt_env: virt.VirtEnv | None = None
        self._metadata: dict[str, Any] | None = None
        self.bound = bound

    def _create_paths(self) -> paths.Paths:
        return paths.Paths(self._prefix)

    @property
    def paths(self) -> paths.Paths:
        """Where everything lies."""
        return self._paths

    @property
    def metadata(self) -> dict[str, Any]:
        """Free values that are kept with the prefix by :meth:`save`."""
        if self._metadata is None:
            self._metadata = self._get_metadata()
        return self._metadata

    @property
    def virt_env(self) -> virt.VirtEnv:
        """The machines and networks.

        :raises PrefixFailed: there are none yet
        """
        if self._virt_env is None:
            self._virt_env = self._create_virt_env()
        return self._virt_env

    def initialized(self) -> bool:
        """Tell whether the prefix is complete."""
        return Path(self.paths.prefix_lagofile()).exists()

    def initialize(self) -> None:
        """Make the directory, the prefix's uuid and its keys. If that fails nothing is left.

        :raises PrefixFailed: the directory is there already, or can't be made
        """
        with utils.RollbackContext() as rollback:
            try:
                Path(self._prefix).mkdir(parents=True, mode=0o755)
            except OSError as error:
                raise PrefixFailed(f"cannot make the environment {self._prefix}: {error.strerror}; "
                                   "use another directory, or delete it: 'pdimage lab destroy --prefix …'") from error
            rollback.prependDefer(shutil.rmtree, self._prefix, ignore_errors=True)
            for directory in (self.paths.images(), self.paths.logs(), self.paths.virt()):
                Path(directory).mkdir()
            Path(self.paths.uuid()).write_text(uuid.uuid4().hex, encoding="utf-8")
            self._create_ssh_keys()
            self._save_metadata()
            rollback.clear()

    def virt_conf(self, conf: dict[str, Any], template_repo: TemplateRepository | None = None,
                  template_store: TemplateStore | None = None) -> None:
        """Make what the configuration CONF asks for: leases of subnets, disks, descriptions of machines and networks.

        CONF is what a LagoInitFile says (:func:`pdimage.lab.description.load`); it is filled in. If something fails the
        leases are given back and no disk is left.

        :raises RuntimeError: an address can't be, or no subnet is free
        """
        with utils.RollbackContext() as rollback:
            rollback.prependDefer(self._discard_disks)
            for domain in conf["domains"].values():
                self._use_prototype(domain, conf)
            self._config_net_topology(conf, rollback)
            for name, domain in conf["domains"].items():
                self._prepare_domain(name, domain, template_repo, template_store)
            self._virt_env = virt.VirtEnv(self, conf["domains"], conf["nets"])
            self._create_host_keys()
            self._virt_env.bootstrap()
            self.save()
            Path(self.paths.prefix_lagofile()).write_text("", encoding="utf-8")
            rollback.clear()

    def start(self) -> None:
        """Start all machines and networks; see :meth:`pdimage.lab.virt.VirtEnv.start`."""
        self.virt_env.start()

    def stop(self) -> None:
        """Stop everything that runs."""
        self.virt_env.stop()

    def save(self) -> None:
        """Write what describes the environment to the prefix."""
        self._save_metadata()
        self.virt_env.save()

    def cleanup(self) -> None:
        """Stop what runs and give leases back; the prefix is no longer initialized. Files stay, see :meth:`destroy`."""
        Keeper(Path(self.paths.virt()), Path(self.paths.logs())).stop()
        if self.initialized():
            for net in self.virt_env.get_nets().values():
                if "gw" in net.spec:
                    subnet_lease.release_if_owned(net.gw(), self.paths.uuid())
            Path(self.paths.prefix_lagofile()).unlink()
        self._virt_env = None

    def destroy(self) -> None:
        """Clean up and delete the directory.

        :raises PrefixFailed: it is not a prefix
        """
        if not Path(self.paths.uuid()).is_file():
            raise PrefixFailed(f"cannot destroy {self._prefix}: it is not an environment")
        self.cleanup()
        utils.remove(Path(self._prefix))

    def create_snapshots(self, name: str) -> None:
        """Make a snapshot of every machine."""
        self.virt_env.create_snapshots(name)

    def revert_snapshots(self, name: str) -> None:
        """Bring every machine back to its snapshot NAME."""
        self.virt_env.revert_snapshots(name)

    def collect_artifacts(self, directory: str | Path) -> None:
        """Copy logs, and what machines that run have as artifacts, into DIRECTORY (made if missing)."""
        shutil.copytree(self.paths.logs(), Path(directory) / "logs", dirs_exist_ok=True)
        for name, vm in self.virt_env.get_vms().items():
            if vm.alive():
                vm.collect_artifacts(Path(directory) / name)

    # Keys

    def _create_ssh_keys(self) -> None:
        """Make the key that lets us into all machines.

        :raises PrefixFailed: that failed
        """
        self._create_key(Path(self.paths.ssh_id_rsa()))

    def _create_host_keys(self) -> None:
        """Make each machine's own key, and note them all, so that nobody has to believe one at the first contact."""
        known = []
        for name in self.virt_env.get_vms():
            path = Path(self.paths.virt(f"{name}.key"))
            self._create_key(path)
            known.append(f"{name} {path.with_suffix('.key.pub').read_text(encoding='utf-8')}")
        Path(self.paths.virt("known_hosts")).write_text("".join(known), encoding="utf-8")

    def _create_key(self, path: Path) -> None:
        status = utils.run_command(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(path)])
        if status:
            raise PrefixFailed(f"cannot make ssh keys: {status.err.strip()}")

    # Descriptions

    def _get_metadata(self) -> dict[str, Any]:
        """Return what was saved, nothing if nothing was."""
        with contextlib.suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads(Path(self.paths.metadata()).read_text(encoding="utf-8"))
            return found
        return {}

    def _save_metadata(self) -> None:
        kept = self.metadata
        with open(self.paths.metadata(), "w", encoding="utf-8") as file:
            utils.json_dump(kept, file)

    def _create_virt_env(self) -> virt.VirtEnv:
        if not self.initialized():
            raise PrefixFailed(f"cannot use {self._prefix}: it is not an environment; make one with 'pdimage lab init'")
        return virt.VirtEnv.from_prefix(self)

    def _use_prototype(self, spec: dict[str, Any], conf: dict[str, Any]) -> dict[str, Any]:
        """Fill SPEC in from the prototype that it names (``based-on``), and return it."""
        prototype = conf.get("prototypes", {}).get(spec.pop("based-on", ""), {})
        for key, value in json.loads(json.dumps(prototype)).items():
            spec.setdefault(key, value)
        return spec

    # Networks

    def _config_net_topology(self, conf: dict[str, Any], rollback: utils.RollbackContext) -> None:
        """Lease subnets and give addresses."""
        self._init_net_specs(conf)
        self._check_predefined_subnets(conf)
        for subnet in self._allocate_subnets(conf):
            rollback.prependDefer(subnet_lease.release, subnet)
        self._register_preallocated_ips(conf)
        self._allocate_ips_to_nics(conf)
        topology.give_hardware_addresses(conf)

    def _init_net_specs(self, conf: dict[str, Any]) -> None:
        """Fill in what descriptions of networks leave out, and see that one of them reaches all machines."""
        for name, net in conf["nets"].items():
            net.update(name=name, mapping={})
            net.setdefault("type", "nat")
        nets = list(conf["nets"].values())
        if not any(net.get("management") for net in nets):
            next(net for net in nets if net["type"] == "nat")["management"] = True
        for name, domain in conf["domains"].items():
            domain["name"] = name
            domain.setdefault("nics", [])

    def _check_predefined_subnets(self, conf: dict[str, Any]) -> None:
        """See that subnets written in CONF are among those that are leased.

        :raises RuntimeError: one is not
        """
        for name, net in conf["nets"].items():
            if "gw" in net and not subnet_lease.is_leasable_subnet(net["gw"]):
                raise PrefixFailed(f"cannot use nets.{name}.gw: {net['gw']} is not in "
                                   f"192.168.{subnet_lease.MIN_SUBNET}.0 to 192.168.{subnet_lease.MAX_SUBNET}.0")

    def _allocate_subnets(self, conf: dict[str, Any]) -> list[str]:
        """Lease a subnet for each network with addresses; return their gateways. If one fails none stays leased."""
        leased: list[str] = []
        with utils.RollbackContext() as rollback:
            for net in conf["nets"].values():
                if net["type"] == "nat" or "gw" in net:
                    net["gw"] = subnet_lease.acquire(self.paths.uuid(), net.get("gw"))
                    rollback.prependDefer(subnet_lease.release, net["gw"])
                    leased.append(net["gw"])
            rollback.clear()
        return leased

    def _register_preallocated_ips(self, conf: dict[str, Any]) -> None:
        topology.register_preallocated_ips(conf)

    def _allocate_ips_to_nics(self, conf: dict[str, Any]) -> None:
        topology.allocate_ips_to_nics(conf)

    def _add_nic_to_mapping(self, net: dict[str, Any], dom: dict[str, Any], nic: dict[str, Any]) -> None:
        topology.add_nic_to_mapping(net, dom, nic)

    # Disks

    def _prepare_domain(self, name: str, domain: dict[str, Any], template_repo: TemplateRepository | None,
                        template_store: TemplateStore | None) -> None:
        """Make the disks of a machine, and note what it boots."""
        system = images.debian(config.cache())
        domain.setdefault("flavour", "minimal")
        domain.update(kernel=str(system.kernel), init=images.FLAVOURS[domain["flavour"]],
                      initrd=self.paths.images(f"{name}.initrd"))
        disks = domain.setdefault("disks", [])
        if not disks or disks[0].get("type") == "empty":
            disks.insert(0, {"type": "template", "template_name": "debian", "name": "root"})
        for number, disk in enumerate(disks):
            disk.setdefault("name", "root" if number == 0 else f"disk{number}")
            disk["path"], disk["metadata"] = self._create_disk(name, disk, template_repo, template_store)

    def _create_disk(self, name: str, spec: dict[str, Any], template_repo: TemplateRepository | None = None,
                     template_store: TemplateStore | None = None) -> tuple[str, dict[str, Any]]:
        """Make the disk SPEC of the machine NAME; return its path and its template's metadata.

        :raises RuntimeError: there is no such type of disks, or it can't be made
        """
        path = Path(self.paths.images(f"{name}-{spec['name']}.0.qcow2"))
        return templates.create_disk(spec, path, template_repo, template_store)

    def _discard_disks(self) -> None:
        shutil.rmtree(self.paths.images(), ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            Path(self.paths.images()).mkdir()

    # Machines

    def prepare(self, vm: VM) -> None:
        """Write what makes VM out of the system that it boots, and join it with the system's first programs."""
        spec = vm.spec
        seed = sysprep.sysprep(spec["disks"][0]["path"], self._modifications(vm))
        system = images.debian(config.cache())
        with open(spec["initrd"], "wb") as file:
            first = system.initrd.read_bytes()
            file.write(first + bytes(-len(first) % 4))  # the kernel looks for an archive at multiples of 4
            file.write(seed.read_bytes())

    def _modifications(self, vm: VM) -> Iterator[sysprep.Files]:
        spec = vm.spec
        yield sysprep.set_hostname(vm.name())
        yield sysprep.set_machine_id(vm.virt_env().prefixed_name(vm.name()))
        yield sysprep.set_root_password(vm.root_password())
        yield sysprep.add_ssh_key(self.paths.ssh_id_rsa_pub())
        yield sysprep.set_host_key(Path(self.paths.virt(f"{vm.name()}.key")))
        yield sysprep.set_iscsi_initiator_name(vm.iscsi_name())
        management = vm.virt_env().get_net()
        yield sysprep.set_nameserver(management.gw())
        yield from self._network_modifications(vm, management.name())
        modules = {"mac80211_hwsim": f"radios={spec['radios']}"} if spec["radios"] else {}
        if spec["watchdog"]:
            modules["i6300esb"] = "heartbeat=10"
            yield sysprep.use_watchdog()
        yield sysprep.load_modules(modules)
        yield sysprep.mount_disks({disk["name"]: disk["mount"] for disk in spec["disks"] if disk.get("mount")})
        for remote, local in spec.get("files", {}).items():
            yield sysprep._upload_file(local, remote)

    def _network_modifications(self, vm: VM, management: str) -> Iterator[sysprep.Files]:
        nets = vm.virt_env().get_nets()
        way_out = next((nic["net"] for nic in vm.nics() if nic.get("gateway")), management)
        for number, nic in enumerate(vm.nics()):
            net, name = nets[nic["net"]], f"eth{number}"
            if nic.get("dhcp"):
                yield sysprep.config_net_interface_dhcp(name, nic["mac"])
            elif "ip" in nic:
                gateway = net.gw() if net.spec["type"] == "nat" and nic["net"] == way_out else None
                yield sysprep.config_net_interface_static(name, nic["mac"], f"{nic['ip']}/24", gateway)
            else:
                yield sysprep.config_net_interface_none(name, nic["mac"])


def find(start: Path, name: str) -> Path:
    """Return the prefix NAME in the directory START or the nearest above it.

    :raises PrefixFailed: there is none
    """
    for directory in (start, *start.parents):
        if Path(paths.Paths(directory / name).prefix_lagofile()).exists():
            return directory / name
    raise PrefixFailed(f"cannot find an environment in {start}: make one with 'pdimage lab init', or name one with "
                       "--prefix")
