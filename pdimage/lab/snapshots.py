"""Snapshots of a machine: layers of its disks, and the memory of one that runs.

A disk is a chain of qcow2 files; only the last is written. A snapshot keeps what is there now by adding a file to the
chain, so it costs nothing until something changes. Memory goes into a file of its own; going back to a running machine
takes a second and no boot. Disks that lie elsewhere (``nbd``) or are raw take no part.
"""

import contextlib
import functools
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fussy.errors import FussyError
from pdimage import tools
from pdimage.lab import costs

if TYPE_CHECKING:
    from pdimage.lab.machine import VM


class SnapshotFailed(FussyError):
    """A snapshot can't be made, or there is none of that name."""


@contextlib.contextmanager
def lean_and_still(vm: "VM") -> Iterator[None]:
    """Have a machine stand still, with all on disk and nothing in memory that it can read from there again."""
    with contextlib.suppress(FussyError):
        vm.ssh("sync; echo 3 >/proc/sys/vm/drop_caches", show_output=False, seconds=60)
    vm.monitor.command("stop")
    try:
        yield
    finally:
        vm.monitor.command("cont")


Still = Callable[["VM"], AbstractContextManager[None]]


def create(vm: "VM", name: str, still: Still = lean_and_still) -> None:
    """See :meth:`pdimage.lab.virt.VM.create_snapshot`; STILL has a machine that runs stand still meanwhile."""
    if name in vm.spec["snapshots"]:
        raise SnapshotFailed(f"cannot make the snapshot {name} of {vm.name()}: there is one; choose another name")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise SnapshotFailed(f"cannot make the snapshot {name!r} of {vm.name()}: use letters, digits, dots and dashes")
    vm.spec["snapshots"][name] = live(vm, name, still) if vm.alive() else dead(vm, name)
    vm.save()


def live(vm: "VM", name: str, still: Still = lean_and_still) -> dict[str, Any]:
    """Keep the disks and memory of a machine that runs."""
    memory = Path(vm.virt_env().prefix.paths.images(f"{vm.name()}-{name}.memory"))
    frozen = _paths(vm)
    with still(vm):
        for disk, overlay in zip(_layered(vm), _next_paths(vm), strict=True):
            vm.monitor.command("blockdev-snapshot-sync", **{
                "device": disk["name"], "snapshot-file": str(overlay), "format": "qcow2"})
            disk["path"] = str(overlay)
        vm.save()
        vm.monitor.save_memory(memory)
    return {"disks": frozen, "memory": str(memory), "boot": vm.console.boot_id()}


def dead(vm: "VM", name: str) -> dict[str, Any]:
    """Keep the disks of a machine that does not run."""
    frozen = _paths(vm)
    _branch(vm, frozen)
    return {"disks": frozen, "memory": None, "boot": ""}


def forget(vm: "VM", names: Iterable[str]) -> None:
    """Delete snapshots."""
    for name in names:
        if memory := vm.spec["snapshots"].pop(name)["memory"]:
            Path(memory).unlink()
    vm.save()
    reclaim(vm)


def revert(vm: "VM", name: str, set_time: bool = True) -> None:
    """See :meth:`pdimage.lab.virt.VM.revert_snapshot`; without SET_TIME its clock goes on from where it was."""
    kept = vm.spec["snapshots"].get(name)
    if kept is None:
        known = ", ".join(vm.spec["snapshots"]) or "none"
        raise SnapshotFailed(f"cannot revert {vm.name()} to {name}: there is no such snapshot; there are: {known}")
    if vm.virt_env().keeper.alive():
        vm.power_off()
    _branch(vm, kept["disks"])
    vm.save()
    reclaim(vm)
    if kept["memory"] is None:
        return
    with costs.measured(f"revert to a running machine, {vm.spec['flavour']}"):
        vm.console.rotate()
        vm.console.path.write_text(f"lab-ready {kept['boot']}\n")
        memory = Path(kept["memory"])
        vm.power_on(memory)
        vm.monitor.load_memory(memory)
        vm.monitor.command("cont")
    if set_time:
        # its answer may take a second under emulation, and whoever goes on need not wait for it
        threading.Thread(target=_set_time, args=[vm], daemon=True).start()


def _set_time(vm: "VM") -> None:
    with contextlib.suppress(FussyError):  # the machine may have been stopped already
        vm.agent.set_time()


def reclaim(vm: "VM") -> None:
    """Delete the files of the machine's disks that are no part of a chain that is still wanted."""
    wanted = set()
    for paths in (_paths(vm), *(kept["disks"] for kept in vm.spec["snapshots"].values())):
        for path in paths.values():
            wanted.update(_chain(Path(path)))
    for disk in _layered(vm):
        first = Path(disk["path"])
        for path in first.parent.glob(f"{_stem(vm, disk)}.*.qcow2"):
            if path not in wanted:
                path.unlink()


def _layered(vm: "VM") -> list[dict[str, Any]]:
    return [disk for disk in vm.spec["disks"] if disk["format"] == "qcow2"]


def _paths(vm: "VM") -> dict[str, str]:
    """Return the files that are written now, by the names of disks."""
    return {disk["name"]: disk["path"] for disk in _layered(vm)}


def _stem(vm: "VM", disk: dict[str, Any]) -> str:
    return f"{vm.name()}-{disk['name']}"


def _next_paths(vm: "VM") -> list[Path]:
    """Return a new file name for each disk."""
    mark = time.monotonic_ns()
    return [Path(vm.virt_env().prefix.paths.images(f"{_stem(vm, disk)}.{mark}.qcow2")) for disk in _layered(vm)]


def _branch(vm: "VM", frozen: dict[str, str]) -> None:
    """Let the machine write into new files, on top of FROZEN."""
    for disk, overlay in zip(_layered(vm), _next_paths(vm), strict=True):
        overlay_of(Path(frozen[disk["name"]]), "qcow2", overlay)
        disk["path"] = str(overlay)


def overlay_of(base: Path, base_format: str, overlay: Path, size: str | None = None) -> None:
    """Make the qcow2 file OVERLAY, which takes what it does not have from BASE."""
    tools.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", base_format, overlay,
               *([size] if size else [])], what="make an overlay")


@functools.cache  # what a file lies on never changes
def _chain(path: Path) -> set[Path]:
    """Return PATH and all files that it is on top of."""
    shown = tools.run(["qemu-img", "info", "--backing-chain", "--force-share", path], what="look at a disk")
    return {Path(line.removeprefix("image: ")) for line in shown.splitlines() if line.startswith("image: ")}
