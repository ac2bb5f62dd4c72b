"""Where a channel has what, the publisher's settings, and the lock.

::

    /srv/channel/               served as it is; see fussy.channel
        metadata/
        targets/
    /srv/channel.private/       0700, beside it on the same file system; never served
        settings.json           yours to edit, see Settings
        keys/NAME.pem NAME.pub  keys that this machine may sign with
        keyring/                opens and verifies bundles, as a device's keyring does
        prepared/N.ROLE.json    metadata that waits for signatures, or whose publishing was interrupted
        staging/                files on their way into the channel
        store/PRODUCT/          a fussy target with the last releases, unpacked
        lock
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from fussy import cronlock, disk
from fussy.errors import Busy, SystemSetup

ONLINE = ("snapshot", "timestamp")
TOP = ("root", "targets", *ONLINE)
_PRODUCT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

_Days = Annotated[float, msgspec.Meta(gt=0, le=36500)]


class Days(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many days what a role signs is valid. Devices refuse what has expired."""

    root: _Days = 365
    targets: _Days = 365
    product: _Days = 365
    snapshot: _Days = 14
    timestamp: _Days = 7

    def of(self, role: str) -> float:
        days: float = getattr(self, role if role in TOP else "product")
        return days


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``settings.json`` of a publisher.

    ``keep``: releases for which a new one gets deltas, and which stay in the store. ``memory``: MiB that devices may
    need to apply a delta. ``grace``: days for which files stay that the channel no longer names. ``encrypt_for`` and
    ``sign_with``: keys of GNUPGHOME for bundles that are made here. ``keyring``: another one than that of the private
    directory.
    """

    keep: Annotated[int, msgspec.Meta(ge=0, le=100)] = 4
    memory: Annotated[int, msgspec.Meta(ge=1, le=32)] = 8
    grace: Annotated[float, msgspec.Meta(ge=0)] = 14
    days: Days = Days()
    encrypt_for: list[str] = []
    sign_with: str = ""
    keyring: str = ""


@dataclass(frozen=True)
class Places:
    """The paths of a channel and of its private directory; both absolute."""

    channel: Path
    private: Path

    @property
    def metadata(self) -> Path:
        return self.channel / "metadata"

    @property
    def targets(self) -> Path:
        return self.channel / "targets"

    @property
    def keys(self) -> Path:
        return self.private / "keys"

    @property
    def keyring(self) -> Path:
        return Path(self.settings().keyring or self.private / "keyring")

    @property
    def prepared(self) -> Path:
        return self.private / "prepared"

    @property
    def unsaved(self) -> Path:
        return self.private / "prepared~"

    @property
    def staging(self) -> Path:
        return self.private / "staging"

    def store(self, product: str) -> Path:
        return self.private / "store" / product

    def settings(self) -> Settings:
        """Return the settings; without a file the defaults.

        :raises SystemSetup: the file is wrong; the message names the field
        """
        path = self.private / "settings.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Settings)
        except FileNotFoundError:
            return Settings()
        except msgspec.MsgspecError as error:
            raise SystemSetup(f"cannot use {path}: {error}; put it right") from error

    def save_settings(self, settings: Settings) -> None:
        data = msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n"
        disk.replace_file(self.private / "settings.json", data)

    def place(self, staged: Path, final: Path) -> None:
        """Bring a file of the staging directory into the channel, readable for a web server, durable."""
        descriptor = os.open(staged, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        make_directories(final.parent, self.channel)
        staged.rename(final)
        disk.sync_directory(final.parent)

    def put(self, final: Path, data: bytes) -> None:
        """Write a small file of the channel: a reader sees what was there before, or all of it."""
        with tempfile.NamedTemporaryFile(dir=self.staging, delete=False) as file:
            file.write(data)
        self.place(Path(file.name), final)


def make_directories(directory: Path, top: Path) -> None:
    """Make DIRECTORY and those above it up to TOP, readable for a web server, each name durable."""
    if directory.is_dir():
        return
    if directory != top:
        make_directories(directory.parent, top)
    directory.mkdir(mode=0o755, parents=directory == top)
    directory.chmod(0o755)
    disk.sync_directory(directory.parent)


def places(channel: Path, private: Path | None = None) -> Places:
    """Return the places of the channel at a path, which need not be there yet."""
    there = channel.absolute()
    return Places(there, (private or there.with_name(there.name + ".private")).absolute())


@contextmanager
def locked(where: Places) -> Iterator[None]:
    """Make the private directory if it isn't there, and hold its lock; leftovers of a killed command go.

    :raises Busy: another command publishes to this channel
    :raises SystemSetup: the directories lie on two file systems
    """
    where.private.mkdir(mode=0o700, parents=True, exist_ok=True)
    for directory in (where.keys, where.prepared, where.staging):
        directory.mkdir(mode=0o700, exist_ok=True)
    make_directories(where.channel, where.channel)
    if where.channel.stat().st_dev != where.private.stat().st_dev:
        raise SystemSetup(f"cannot publish to {where.channel}: {where.private} lies on another file system, so nothing "
                          "can be renamed between them; choose another with --private")
    with ExitStack() as stack:
        try:
            stack.enter_context(cronlock.Flock(where.private / "lock"))
        except cronlock.Busy as error:
            raise Busy(f"cannot publish to {where.channel}: another command works on it ({error}); wait for it to "
                       "end") from error
        disk.empty(where.staging)
        yield


def check_product(name: str) -> None:
    """Refuse a name that a product line can't have.

    :raises SystemSetup: it is not one, or that of a role
    """
    if not _PRODUCT.fullmatch(name) or name in TOP:
        raise SystemSetup(f"cannot call a product line {name!r}: use lower-case letters, digits, _ and - (at most 64), "
                          f"not {', '.join(TOP)}")
