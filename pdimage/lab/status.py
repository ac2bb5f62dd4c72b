"""What an environment is like right now, for people and for programs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pdimage.lab.prefix import Prefix


def of(prefix: "Prefix") -> dict[str, Any]:
    """Return the state of PREFIX as plain data."""
    env = prefix.virt_env
    return {
        "Prefix": {
            "Base directory": prefix.paths.prefix(),
            "UUID": Path(prefix.paths.uuid()).read_text(encoding="utf-8").strip(),
            "Networks": {name: {"status": "up" if net.alive() else "down", "type": net.spec["type"],
                                **({"gateway": net.gw()} if "gw" in net.spec else {}),
                                **({"management": True} if net.is_management() else {})}
                         for name, net in env.get_nets().items()},
            "VMs": {name: {"status": "running" if vm.alive() else "down", "flavour": vm.spec["flavour"],
                           "memory": vm.spec["memory"], "vcpu": vm.spec["vcpu"], "distro": vm.distro(),
                           "root password": vm.root_password(), "VNC port": vm.vnc_port(),
                           "Metadata": vm.metadata, "snapshots": ", ".join(vm.spec["snapshots"]),
                           "NICs": {f"eth{number}": {key: nic[key] for key in ("net", "ip", "mac") if key in nic}
                                    for number, nic in enumerate(vm.nics())}}
                    for name, vm in env.get_vms().items()},
        },
    }


def shown(state: dict[str, Any], form: str) -> str:
    """Return STATE in a FORM: ``json``, ``yaml``, ``flat`` (a line for each value) or ``default``."""
    if form == "json":
        return json.dumps(state, indent=4) + "\n"
    if form == "yaml":
        return str(yaml.safe_dump(state, sort_keys=False))
    if form == "flat":
        return "".join(f"{'/'.join(path)}: {value}\n" for path, value in _flat(state, ()))
    return "".join(_tree(state, 0))


def _flat(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, (*path, str(key).replace(" ", "_")))
    else:
        yield path, value


def _tree(state: dict[str, Any], depth: int) -> Iterator[str]:
    for key, value in state.items():
        if isinstance(value, dict):
            yield f"{'    ' * depth}[{key}]:\n"
            yield from _tree(value, depth + 1)
        else:
            yield f"{'    ' * depth}{key}: {value}\n"


def inventory(prefix: "Prefix") -> str:
    """Return the machines as an inventory for Ansible, by their groups, over the ssh connections of the lab."""
    groups: dict[str, list[str]] = {}
    for name, vm in prefix.virt_env.get_vms().items():
        options = f"-o ControlPath={prefix.paths.virt(f'{name}.ssh')} -o ProxyCommand=false"
        line = (f"{name} ansible_host={vm.ip()} ansible_user={vm.spec['ssh-user']} "
                f"ansible_ssh_common_args='{options}'\n")
        for group in vm.spec.get("groups") or ["ungrouped"]:
            groups.setdefault(group, []).append(line)
    return "".join(f"[{group}]\n{''.join(lines)}" for group, lines in groups.items())
