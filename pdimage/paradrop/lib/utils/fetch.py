"""Fetches the project that a chute is built of, as a tar archive over HTTP, into a private directory."""

import base64
import logging
import re
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, TYPE_CHECKING

from paradrop.lib import descriptor, settings
from paradrop.lib.chutespec import Download
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils.dockerclient import Deadline

if TYPE_CHECKING:
    from paradrop.backend.fc.updateObject import UpdateObject

log = logging.getLogger(__name__)

LARGEST = 1 << 30
"""Bytes that an archive may have, packed as well as unpacked."""
_PIECE = 1 << 16
_SOCKET_TIMEOUT = 30
_GITHUB = re.compile(r"https?://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?")


def fetchFiles(update: "UpdateObject") -> None:
    """Plan: fetch the projects of the services that have a ``download``, into ``update.directories`` by service.

    Raises:
        ParadropError: one cannot be had, or is unsafe to unpack.
    """
    for service in descriptor.parse(update.new.descriptor).services:
        if service.download is not None:
            update.progress(f"Fetching {service.download.url}\n")
            target = Path(tempfile.mkdtemp(prefix="paradrop-"))
            update.directories[service.name] = target
            update.directories[service.name] = project(service.download, target)


def removeFiles(update: "UpdateObject") -> None:
    """Plan, and undo of fetchFiles: remove what was fetched."""
    for directory in update.directories.values():
        top = next((path for path in [directory, *directory.parents] if path.name.startswith("paradrop-")), directory)
        shutil.rmtree(top, ignore_errors=True)
    update.directories.clear()


def project(source: Download, target: Path) -> Path:
    """Fetch and unpack an archive, and return the directory in it that has the Dockerfile, or else its top."""
    with tempfile.TemporaryFile() as archive:
        _download(source, archive)
        archive.seek(0)
        unpack(archive, target)
    found = sorted(target.rglob("Dockerfile"), key=lambda path: len(path.parts))
    return found[0].parent if found else target


def unpack(archive: IO[bytes], target: Path) -> None:
    """Unpack a tar archive, compressed or not, into an empty directory.

    Raises:
        ParadropError: it is none, or has an entry that would lie outside, or that is no file, directory or safe link.
    """
    size = 0
    try:
        with tarfile.open(fileobj=archive) as tar:
            for member in tar:
                size += member.size
                if size > LARGEST:
                    raise ParadropError(f"cannot unpack the chute: it has more than {LARGEST} bytes")
                tar.extract(member, target, set_attrs=True, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ParadropError(f"cannot unpack the chute: {error}") from error


def address(source: Download) -> str:
    """Return where the archive of a download is: of a GitHub project, that of its checkout, by default master.

    >>> address(Download("https://github.com/a/b", checkout="v1"))
    'https://codeload.github.com/a/b/tar.gz/v1'
    >>> address(Download("https://example.org/c.tar.gz"))
    'https://example.org/c.tar.gz'
    """
    if found := _GITHUB.fullmatch(source.url):
        return f"https://codeload.github.com/{found[1]}/{found[2]}/tar.gz/{source.checkout or 'master'}"
    return source.url


def _download(source: Download, file: IO[bytes]) -> None:
    url = address(source)
    request = urllib.request.Request(url)
    if source.user is not None:
        secret = base64.b64encode(f"{source.user}:{source.secret or ''}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    deadline = Deadline(settings.DOCKER_BUILD_TIMEOUT, f"cannot fetch {url}")
    try:
        with urllib.request.urlopen(request, timeout=_SOCKET_TIMEOUT) as answer:
            while piece := answer.read(_PIECE):
                deadline.check()
                file.write(piece)
                if file.tell() > LARGEST:
                    raise ParadropError(f"cannot fetch {url}: it has more than {LARGEST} bytes")
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise ParadropError(f"cannot fetch {url}: {error}") from error
