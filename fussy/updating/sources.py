"""Where a channel is read from: a web server, or a directory such as a USB stick or a share of the local network."""

import errno
import glob
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fussy.errors import Unreachable, UntrustedChannel
from fussy.updating.pace import Limits, Pace

CHUNK = 1 << 16


class Missing(Unreachable):
    """The source works, but has no such file."""


@dataclass(frozen=True)
class Route:
    """How web servers are reached. ``proxy``: URL of a proxy, ``none``, or "" for what the environment says
    (``http_proxy``, ``no_proxy`` …). ``authority``: a file (PEM) with authorities that may vouch for them, beside those
    that the system knows."""

    proxy: str = ""
    authority: str = ""


USUAL = Route()


@dataclass(frozen=True)
class Body:
    """The bytes of a file from START on. TOTAL is the size of the whole file, -1 if the source does not say.
    VALIDATOR names this state of the file; "" where the source has no such names."""

    chunks: Iterator[bytes]
    start: int = 0
    total: int = -1
    validator: str = ""


class Source(Protocol):
    """A copy of the channel. A PATH is relative to the channel, with ``/`` between names."""

    name: str

    def open(self, path: str, start: int = 0, validator: str = "") -> AbstractContextManager[Body]:
        """Open a file at START, if it is still the one that VALIDATOR names; otherwise from its beginning.

        :raises Missing: there is no such file
        :raises Unreachable: the source can't be read
        :raises TooSlow: it sends too slowly
        """


class Directory:
    """A channel in a directory. What lies there may be anybody's: only regular files are opened. It may be a share of
    the network, so it has to keep the same pace as a server."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self.name = str(root)
        self._root = root
        self._limits = limits

    @contextmanager
    def open(self, path: str, start: int = 0, validator: str = "") -> Iterator[Body]:
        """See :class:`Source`; the validator is made of inode, size and time."""
        try:
            descriptor = os.open(self._root / path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Missing(f"{self.name} has no {path}") from error
        except OSError as error:
            raise Unreachable(f"cannot read {self._root / path}: {error.strerror}") from error
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise Unreachable(f"cannot read {self._root / path}: it is not a regular file")
            now = f"{facts.st_ino}-{facts.st_size}-{facts.st_mtime_ns}"
            start = start if start <= facts.st_size and validator in ("", now) else 0
            os.lseek(descriptor, start, os.SEEK_SET)
            yield Body(self._chunks(descriptor), start, facts.st_size, now)
        finally:
            os.close(descriptor)

    def _chunks(self, descriptor: int) -> Iterator[bytes]:
        try:
            pace = Pace(self._limits)
            while chunk := os.read(descriptor, CHUNK):
                pace.count(len(chunk))
                yield chunk
        except OSError as error:
            what = "it was taken out" if error.errno in (errno.EIO, errno.ENODEV) else error.strerror
            raise Unreachable(f"cannot read {self.name} any more: {what}") from error


def read(source: Source, path: str, most: int) -> bytes:
    """Return a file of at most MOST bytes.

    :raises UntrustedChannel: it is longer (an endless data attack)
    """
    found = bytearray()
    with source.open(path) as body:
        for chunk in body.chunks:
            found += chunk
            if len(found) > most:
                raise UntrustedChannel(f"{path} is longer than {most} bytes (endless data attack)")
    return bytes(found)


def present(names: list[str]) -> list[str]:
    """Return the sources that are there: addresses, and directories (or what a pattern matches) that hold a channel."""
    found = []
    for name in names:
        if not name.startswith("/"):
            found.append(name)
        else:
            found += [path for path in sorted(glob.glob(name)) if os.path.isdir(os.path.join(path, "metadata"))]
    return list(dict.fromkeys(found))


def connect(name: str, limits: Limits, route: Route = USUAL) -> Source:
    """Return the source of this name; nothing is asked of it yet."""
    if name.startswith("/"):
        return Directory(Path(name), limits)
    from fussy.updating.web import Web  # urllib3 takes a while to load

    return Web(name, limits, route)
