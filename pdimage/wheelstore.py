"""The cache of wheels, packed and unpacked.

::

    CACHE/wheels/SHA256/NAME-VERSION-TAGS.whl   the files, named by content
    CACHE/choices/KEY                           which of them a line of a lock came to mean, for one kind of machine
    CACHE/unpacked/SHA256-RECIPE/               the same, unpacked

Each appears by one rename when it is complete. What is damaged is fetched again. Nothing here is ever needed: a
cache can be deleted at any time.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pdimage import wheels
from pdimage.errors import Mistake, Mistakes, PartFailed
from pdimage.lock import Pin
from pdimage.machine import Machine
from pdimage.wheels import Wheel


class WheelStore:
    """Wheels below the directory CACHE."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def add(self, file: Path) -> Wheel:
        """Copy a wheel into the store and return it."""
        digest = wheels.file_digest(file)
        kept = self._cache / "wheels" / digest / file.name
        if kept.exists() and wheels.file_digest(kept) != digest:
            shutil.rmtree(kept.parent)
        if not kept.exists():
            with appearing(kept.parent) as directory:
                shutil.copyfile(file, directory / file.name)
        return parsed(kept)

    def unpacked(self, wheel: Wheel) -> Path:
        """Return the directory with the unpacked WHEEL, which the caller must not change.

        :raises Mistakes: it is no sound wheel
        """
        ready = self._cache / "unpacked" / f"{wheel.file.parent.name}-{wheels.RECIPE}"
        if not ready.is_dir():
            with appearing(ready) as directory:
                try:
                    wheels.unpack(wheel.file, directory)
                except ValueError as error:
                    raise Mistakes([Mistake(wheel.file.name, 0, "", f"is not a sound wheel: {error}")]) from error
        return ready

    def chosen(self, pin: Pin, sources: Sequence[str], machine: Machine) -> Wheel | None:
        """Return the wheel that PIN came to mean before, None if it is new or damaged."""
        try:
            wheel = parsed(self._cache / "wheels" / self._choice(pin, sources, machine).read_text())
            return wheel if wheel.sha256 in pin.sha256 else None
        except OSError:
            return None

    def choose(self, pin: Pin, sources: Sequence[str], machine: Machine, wheel: Wheel) -> None:
        """Remember that PIN means WHEEL."""
        choice = self._choice(pin, sources, machine)
        choice.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=choice.parent, delete=False) as file:
            file.write(str(wheel.file.relative_to(self._cache / "wheels")))
        os.replace(file.name, choice)

    def _choice(self, pin: Pin, sources: Sequence[str], machine: Machine) -> Path:
        key = repr((str(pin), sorted(pin.sha256), list(sources), machine))
        return self._cache / "choices" / hashlib.sha256(key.encode()).hexdigest()


@contextmanager
def appearing(directory: Path) -> Iterator[Path]:
    """Yield a new directory that gets the name DIRECTORY when all went well, and otherwise leaves nothing.

    Names stand for contents, so if another process made it meanwhile, that one is as good.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=directory.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        try:
            temporary.rename(directory)
        except OSError:
            if not directory.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def parsed(file: Path) -> Wheel:
    """Return the wheel in FILE by its name.

    :raises PartFailed: it is not named as wheels are
    """
    wheel = wheels.parse_name(file)
    if isinstance(wheel, Mistake):
        raise PartFailed(f"cannot use {file.name}: it {wheel.text}")
    return wheel
