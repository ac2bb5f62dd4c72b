"""Projects that clients send: the tar of a chute's directory, read as if an enemy had made it.

::

    CONFIG_HOME_DIR/uploads/     emptied when the daemon starts
        tmp….tar                 while a request comes in
        tmp…/                    unpacked, until the update it is for is done
"""

import itertools
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import IO, Any

import yaml

from paradrop.lib import settings
from paradrop.lib.errors import DescriptorError, ParadropError
from paradrop.lib.utils import pdosq

BYTES = 512 << 20
FILES = 20_000
_DESCRIPTORS = ("paradrop.yaml", "config.yaml")
_DESCRIPTOR_BYTES = 1 << 20
_VALUES = 10_000


def place() -> Path:
    """Return the directory of uploads."""
    directory = Path(settings.CONFIG_HOME_DIR) / "uploads"
    pdosq.makedirs(directory)
    return directory


def clear() -> None:
    """Remove what an earlier run of the daemon left."""
    shutil.rmtree(place(), ignore_errors=True)


def receive() -> IO[bytes]:
    """Return a file for an upload that is gone once it is closed."""
    return tempfile.NamedTemporaryFile(dir=place(), suffix=".tar")


def unpack(archive: IO[bytes]) -> tuple[Path, dict[str, Any]]:
    """Unpack a project into a new directory; return it and the descriptor.

    Raises:
        ParadropError: it is no tar, holds anything but files and directories below its root, too much or too many of
            them, or no descriptor. Nothing is left then.
    """
    directory = Path(tempfile.mkdtemp(dir=place()))
    try:
        archive.seek(0)
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            _extract(tar, directory)
        return directory, _descriptor(directory)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise ParadropError(f"cannot unpack the project: {error}") from error
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _extract(tar: tarfile.TarFile, directory: Path) -> None:
    size = 0
    for number, member in enumerate(tar):
        inside = PurePosixPath(member.name)
        if inside.is_absolute() or ".." in inside.parts or "\0" in member.name:
            raise ValueError(f"{member.name!r} leads out of it")
        size += member.size
        if size > BYTES or number >= FILES:
            raise ValueError(f"it holds more than {BYTES >> 20} MiB or {FILES} files")
        target = directory / inside
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
        elif member.isreg() and (content := tar.extractfile(member)):
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                shutil.copyfileobj(content, file)
            target.chmod(0o755 if member.mode & 0o100 else 0o644)
        else:
            raise ValueError(f"{member.name!r} is neither a file nor a directory")


def _descriptor(directory: Path) -> dict[str, Any]:
    for name in _DESCRIPTORS:
        path = directory / name
        if path.is_file():
            if path.stat().st_size > _DESCRIPTOR_BYTES:
                raise ValueError(f"{name} is too long")
            try:
                content = yaml.safe_load(path.read_text())
            except (yaml.YAMLError, RecursionError) as error:
                raise ValueError(f"{name}: {error}") from error
            if not isinstance(content, dict):
                raise DescriptorError([f"{name}: not a mapping of keys to values"])
            plain: dict[str, Any] = _plain(content, itertools.count())
            return plain
    raise ValueError(f"it has no {' or '.join(_DESCRIPTORS)}")


def _plain(value: Any, count: "itertools.count[int]") -> Any:
    """Return a value of YAML as JSON has it. Aliases can make a small file stand for a huge value: ValueError then."""
    if next(count) > _VALUES:
        raise ValueError(f"its descriptor holds more than {_VALUES} values")
    if isinstance(value, dict):
        return {str(key): _plain(item, count) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item, count) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)
