"""Puts the Python packages of an image into its tree: those of a lock or a directory of wheels, and our own."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.util import cache_from_source
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pdimage import bytecode, launchers, ownparts, treefiles, wheeldirectory, wheelindex
from pdimage import lock as locks
from pdimage.components import Component
from pdimage.errors import Mistake, Mistakes
from pdimage.lock import Lock
from pdimage.machine import Machine
from pdimage.merge import merge
from pdimage.tools import Progress
from pdimage.wheels import LIBRARY, Facts, Wheel, read_facts
from pdimage.wheelstore import WheelStore

log = logging.getLogger(__name__)


def install(
    tree: Path,
    *,
    requirements: Path | None = None,
    wheels: Path | None = None,
    own: Sequence[str] = ("fussy", "paradrop"),
    cache: Path,
    machine: Machine | None = None,
    progress: Progress = lambda step: None,
) -> tuple[Component, ...]:
    """Put Python packages below TREE (see :mod:`pdimage.wheels` for where) and return them, sorted.

    REQUIREMENTS is a lock with hashes. WHEELS is a directory of wheels to take instead of pip's index; without a lock
    all that is there is taken. OWN names packages of ours. CACHE keeps wheels, unpacked wheels and compiled modules.
    MACHINE is what the image is for, the one we run on if not given. Two installs of the same packages write the same
    bytes.

    :raises Mistakes: what is wrong with the lock, the wheels, or what they need and do not have
    :raises PartFailed: pip failed, or two packages claim the same file
    """
    machine = machine or Machine.here()
    store = WheelStore(cache)
    locked = locks.read(requirements, machine.environment()) if requirements else None
    chosen = _choose(store, locked, wheels, machine, progress)
    installed = {}
    for wheel in sorted(chosen, key=lambda wheel: wheel.name):
        installed[str(wheel.name)] = _install(store.unpacked(wheel), tree, wheel)
    if ownparts.DISTRIBUTION in installed:
        own = ()  # the lock chose which of our versions to carry
    needs = _needs(installed, locked, own, machine)
    missing = sorted({(who, str(need)) for who, wanted in needs.items() for need in wanted
                      if not _have(need, installed)})
    where = requirements or wheels
    if missing and where:
        raise Mistakes(Mistake(str(where), 0, "", f"{who} needs {need}, which is not here; add it")
                       for who, need in missing)
    for who, need in missing:
        log.warning("%s needs %s, which the image does not carry: the router's own Python must have it", who, need)
    components = [component for component, _ in installed.values()] + list(ownparts.install(tree, own))
    if components:
        treefiles.copy(tree, launchers.START, launchers.START_FILE)
    compiled = frozenset(f"{LIBRARY}/{path}" for path in bytecode.add(tree / LIBRARY, cache / "compiled", machine))
    return tuple(sorted(_complete(component, needs.get(component.name, ()), installed, compiled)
                        for component in components))


def _choose(
    store: WheelStore, locked: Lock | None, directory: Path | None, machine: Machine, progress: Progress
) -> list[Wheel]:
    if directory:
        return [store.add(wheel.file) for wheel in wheeldirectory.choose(directory, locked, machine)]
    return wheelindex.fetch(store, locked, machine, progress) if locked else []


def _install(unpacked: Path, tree: Path, wheel: Wheel) -> tuple[Component, Facts]:
    files = merge(unpacked, tree, f"the Python package {wheel.name}")
    [dist_info] = (unpacked / LIBRARY).glob("*.dist-info")
    facts = read_facts(dist_info)
    component = Component(
        "python", str(wheel.name), wheel.version, facts.licences, f"pkg:pypi/{wheel.name}@{wheel.version}", files,
        wheel.sha256, tuple(f"{LIBRARY}/{dist_info.name}/{text}" for text in facts.texts))
    return component, facts


_Installed = dict[str, tuple[Component, Facts]]


def _needs(
    installed: _Installed, locked: Lock | None, own: Iterable[str], machine: Machine
) -> dict[str, list[Requirement]]:
    """Return what each package needs on MACHINE, by its name."""
    extras = {pin.name: sorted(pin.requirement.extras) for pin in (locked.pins if locked else ())}
    wanted = {name: [(need, extra) for need in facts.requires for extra in ("", *extras.get(name, ()))]
              for name, (_, facts) in installed.items()}
    wanted |= {name: list(ownparts.requirements(name)) for name in own}
    environment = machine.environment()
    return {name: list({str(need): need for need, extra in pairs
                        if not need.marker or need.marker.evaluate({**environment, "extra": extra})}.values())
            for name, pairs in wanted.items()}


def _have(need: Requirement, installed: _Installed) -> bool:
    there = installed.get(canonicalize_name(need.name))
    return there is not None and need.specifier.contains(there[0].version, prereleases=True)


def _complete(
    component: Component, needs: Iterable[Requirement], installed: _Installed, compiled: frozenset[str]
) -> Component:
    """Return COMPONENT with what it needs, and with its compiled modules."""
    names = {canonicalize_name(need.name) for need in needs}
    purls = sorted(installed[name][0].purl for name in names if name in installed)
    modules = {cache_from_source(path) for path in component.files if path.endswith(".py")} & compiled
    return replace(component, requires=tuple(purls), files=tuple(sorted({*component.files, *modules})))
