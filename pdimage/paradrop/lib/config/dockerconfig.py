"""What a chute's containers need of the router before they exist: sources of images, directories."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from paradrop.lib import descriptor
from paradrop.lib.chutespec import Service
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import pdosq
from paradrop.lib.utils.dockerbuild import Source
from paradrop.lib.utils.dockerspec import data_dir, system_dir

if TYPE_CHECKING:
    from paradrop.backend.fc.updateObject import UpdateObject


def getVirtPreamble(update: "UpdateObject") -> None:
    """Say for each service of the new chute what its image is made of.

    Stored in the cache key virtPreamble: a Source for each service's name.

    Raises:
        ParadropError: a service is of a type that this router cannot build.
    """
    chute = update.new
    if not chute.descriptor.keys() - {"name"}:
        return
    chute.setCache("virtPreamble", {service.name: _source(update, service)
                                    for service in descriptor.parse(chute.descriptor).services})


def _source(update: "UpdateObject", service: Service) -> Source:
    workdir = None if update.workdir is None else Path(update.workdir)
    return imageSource(update.name, service, workdir, update.directories.get(service.name))


def imageSource(chute: str, service: Service, workdir: Path | None, fetched: Path | None = None) -> Source:
    """Return what the image of a chute's service is made of.

    Args:
        workdir: the directory with the chute's files, if they came with it.
        fetched: the directory with the service's files, if they were downloaded.

    Raises:
        ParadropError: it cannot be built here.
    """
    if service.type == "light":
        raise ParadropError(f"cannot build {chute}: services of type light need templates that this router does "
                            "not have; give it a Dockerfile and the type normal")
    if fetched is None and service.dockerfile is None and service.type == "normal" and workdir is not None:
        fetched = workdir / service.source
    return Source(
        chute=chute, service=service.name, directory=fetched, dockerfile_path=service.dockerfile_path,
        reference=service.image,
        dockerfile=service.dockerfile.encode() if service.dockerfile is not None else None)


def createVolumeDirs(update: "UpdateObject") -> None:
    """Make the directories that the chute sees as /data and /paradrop. Those that are there keep what they hold."""
    for path in (data_dir(update.name), system_dir(update.name)):
        if pdosq.makedirs(path):
            update.new.appendCache("newVolumeDirs", path)


def abortCreateVolumeDirs(update: "UpdateObject") -> None:
    """Remove the directories that createVolumeDirs made."""
    for path in update.new.getCache("newVolumeDirs") or []:
        shutil.rmtree(path, ignore_errors=True)


def retireVolumeDirs(update: "UpdateObject") -> None:
    """Put a chute's directories aside, to be removed once its removal is certain. Missing ones are no harm."""
    for path in (Path(data_dir(update.name)), Path(system_dir(update.name))):
        with suppress(FileNotFoundError):
            path.rename(retired(path))
            pdosq.syncDir(path.parent)


def abortRetireVolumeDirs(update: "UpdateObject") -> None:
    """Bring back what retireVolumeDirs put aside."""
    bringBackVolumeDirs(update.name)


def bringBackVolumeDirs(name: str) -> None:
    """Bring back the directories of a chute that were put aside, where there is no newer one."""
    for path in (Path(data_dir(name)), Path(system_dir(name))):
        if retired(path).is_dir() and not path.exists():
            retired(path).rename(path)
            pdosq.syncDir(path.parent)


def removeVolumeDirs(name: str) -> None:
    """Remove for good the directories of a chute that were put aside."""
    for path in (Path(data_dir(name)), Path(system_dir(name))):
        shutil.rmtree(retired(path), ignore_errors=True)


def retired(path: Path) -> Path:
    """Return where a chute's directory lies after it was put aside. No chute's name begins with a dot."""
    return path.with_name(f".{path.name}.removed")
