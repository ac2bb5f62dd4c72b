"""Chooses wheels from a local directory, without an index."""

from collections.abc import Iterable
from pathlib import Path

from pdimage import wheels
from pdimage.errors import Mistake, Mistakes
from pdimage.lock import Lock
from pdimage.machine import Machine
from pdimage.wheels import Wheel


def choose(directory: Path, lock: Lock | None, machine: Machine) -> list[Wheel]:
    """Return the wheels of DIRECTORY to install, one for each package: what LOCK names, or everything.

    Wheels for other machines may lie there as long as one fits.

    :raises Mistakes: all packages for which none fits, is locked, or is there
    """
    by_name: dict[str, list[Wheel]] = {}
    mistakes = []
    for file in sorted(directory.glob("*.whl")):
        found = wheels.parse_name(file)
        if isinstance(found, Mistake):
            mistakes.append(found)
        else:
            by_name.setdefault(found.name, []).append(found)
    chosen = []
    for result in (_locked(by_name, lock, directory, machine) if lock else _all(by_name, machine)):
        if isinstance(result, Mistake):
            mistakes.append(result)
        else:
            chosen.append(result)
    if mistakes:
        raise Mistakes(mistakes)
    return chosen


def _all(by_name: dict[str, list[Wheel]], machine: Machine) -> Iterable[Wheel | Mistake]:
    for there in by_name.values():
        directory = str(there[0].file.parent)
        fitting = [wheel for wheel in there if wheel.rank(machine) is not None]
        best = wheels.best(fitting, machine)
        if best is None:
            yield Mistake(directory, 0, "", wheels.misfit(there, machine))
        elif len({wheel.version for wheel in fitting}) > 1:
            names = ", ".join(wheel.file.name for wheel in fitting)
            yield Mistake(directory, 0, "", f"{names}: one version of each package; take the others away or add a lock")
        else:
            yield best


def _locked(
    by_name: dict[str, list[Wheel]], lock: Lock, directory: Path, machine: Machine
) -> Iterable[Wheel | Mistake]:
    for pin in lock.pins:
        there = [wheel for wheel in by_name.get(pin.name, []) if not pin.version or pin.requirement.specifier.contains(
            wheel.version, prereleases=True)]
        meant = [wheel for wheel in there if wheel.sha256 in pin.sha256]
        if fitting := wheels.best(meant, machine):
            yield fitting
        elif meant:
            yield pin.mistake(wheels.misfit(meant, machine))
        elif there:
            names = ", ".join(f"{wheel.file.name} (sha256:{wheel.sha256})" for wheel in there)
            yield pin.mistake(f"the lock has none of the hashes of {names}; lock {pin} again")
        else:
            yield pin.mistake(f"no wheel of {pin} in {directory.name}/; put one there")
