"""Gets wheels through pip, from wherever the machine's pip is configured to get them."""

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from pdimage import tools, wheels
from pdimage.errors import Mistake, Mistakes, PartFailed
from pdimage.lock import Lock, Pin
from pdimage.machine import Machine
from pdimage.tools import Progress
from pdimage.wheels import Wheel
from pdimage.wheelstore import WheelStore, parsed

_NOTHING = re.compile(r"No matching distribution found for (\S+)")
# How pip, asked to say more, names a wheel that it passes over.
_PASSED_OVER = re.compile(r"none of the wheel's tags .*?: \S*/(\S+\.whl)#sha256=([0-9a-f]{64})")

# An index without the package answers 404; anything else means that it couldn't be asked.
_NOT_ASKED = re.compile(r"Could not fetch URL (?!.*: 404 ).*")


def fetch(store: WheelStore, lock: Lock, machine: Machine, progress: Progress) -> list[Wheel]:
    """Return the wheels that LOCK names, in the store; pip fetches what isn't there.

    :raises Mistakes: all packages that have no wheel for MACHINE
    :raises PartFailed: pip couldn't reach its index, or what it got isn't what was locked
    """
    found = {pin: wheel for pin in lock.pins if (wheel := store.chosen(pin, lock.sources, machine))}
    missing = {pin.name: pin for pin in lock.pins if pin not in found}
    if missing:
        progress(f"fetching {len(missing)} Python packages")
        with tempfile.TemporaryDirectory(prefix="pdimage-pip-") as directory:
            _download(list(missing.values()), lock, machine, Path(directory))
            for file in sorted(Path(directory).glob("*.whl")):
                wheel = store.add(file)
                pin = missing[wheel.name]
                store.choose(pin, lock.sources, machine, wheel)
                found[pin] = wheel
    return [found[pin] for pin in lock.pins]


def _download(pins: list[Pin], lock: Lock, machine: Machine, directory: Path) -> None:
    """Let pip download PINS into DIRECTORY; pip stops at the first that doesn't fit, we go on without it."""
    mistakes = []
    while pins:
        code, output = _pip(pins, lock, machine, directory)
        if code == 0:
            break
        nothing = _NOTHING.search(output)
        lost = next((pin for pin in pins if nothing and str(pin) == nothing[1]), None)
        if lost is None:
            raise PartFailed(f"cannot fetch the packages of {lock.file}: pip says\n{tools.last_lines(output)}")
        mistakes.append(_nothing_fits(lost, lock, machine, directory))
        pins.remove(lost)
    if mistakes:
        raise Mistakes(mistakes)


def _pip(pins: Sequence[Pin], lock: Lock, machine: Machine, directory: Path, *more: str) -> tuple[int, str]:
    requirements = directory / "requirements.txt"
    # Markers were decided for the machine of the image; pip would decide them for this one.
    lines = [f"{_address(pin)} {' '.join(f'--hash=sha256:{digest}' for digest in sorted(pin.sha256))}" for pin in pins]
    requirements.write_text("\n".join([*lock.sources, *lines, ""]))
    fitting = [f"--platform={name}" for name in machine.platforms]
    return tools.attempt(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color", "download", *more,
         "--progress-bar=off", "--require-hashes", "--only-binary=:all:", "--no-deps", "--implementation=cp",
         f"--python-version={machine.python}", f"--abi={machine.abi}", "--abi=abi3", "--abi=none", *fitting,
         f"--dest={directory}", f"--requirement={requirements}"],
        what="fetch Python packages", cwd=lock.file.absolute().parent)


def _address(pin: Pin) -> str:
    return f"{pin.requirement.name} @ {pin.requirement.url}" if pin.requirement.url else str(pin)


def _nothing_fits(pin: Pin, lock: Lock, machine: Machine, directory: Path) -> Mistake:
    """Return the mistake of a line for which pip found nothing, with the wheels that it passed over."""
    _, output = _pip([pin], lock, machine, directory, "-vv")
    if failure := _NOT_ASKED.search(output):
        raise PartFailed(f"cannot fetch {pin}: pip says\n    {failure[0]}")
    passed_over = dict(_PASSED_OVER.findall(output))
    locked = [parsed(Path(unquote(name))) for name, digest in passed_over.items() if digest in pin.sha256]
    if locked:
        return pin.mistake(wheels.misfit(locked, machine))
    return pin.mistake(f"pip finds no wheel of {pin} for {machine}; choose a version that has one")
