"""Where releases live: the layout of a target directory, its lock, and what is known of the device.

::

    /opt/firmware/
        current -> firmware-7       the release in use
        firmware-6/                 a release; complete from the moment it has this name
        firmware-7/
        failsafe/                   the release of last resort; shares no inode with any other
        .fussy/                     private (0700)
            lock                    held (flock(2)) by whoever changes anything
            spare/                  what the next release can be made of (see fussy.recycle)
            staging/                a release being unpacked
            trash/                  a release being deleted
            state.json              see fussy.state
            checked                 see fussy.checked
            board                   names of this board, one a line (optional)
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fussy.errors import Busy, FussyError, NoSpace, SystemSetup, is_full

DEFAULT = Path("/opt/firmware")
PRIVATE = ".fussy"


@dataclass(frozen=True)
class Target:
    """The paths in a target directory; ``root`` is absolute and free of symbolic links."""

    root: Path

    @property
    def current(self) -> Path:
        return self.root / "current"

    @property
    def failsafe(self) -> Path:
        return self.root / "failsafe"

    @property
    def private(self) -> Path:
        return self.root / PRIVATE

    @property
    def staging(self) -> Path:
        return self.private / "staging"

    @property
    def spare(self) -> Path:
        return self.private / "spare"

    @property
    def trash(self) -> Path:
        return self.private / "trash"

    @property
    def lock(self) -> Path:
        return self.private / "lock"

    @property
    def state(self) -> Path:
        return self.private / "state.json"

    @property
    def checked(self) -> Path:
        return self.private / "checked"

    @property
    def board(self) -> Path:
        return self.private / "board"

    def release(self, name: str) -> Path:
        return self.root / name

    def current_release(self) -> Path | None:
        """Return the release that is current, or None when ``current`` is not there or leads nowhere.

        :raises SystemSetup: ``current`` is a directory, or leads out of the target.
        """
        if not os.path.lexists(self.current):
            return None
        if not self.current.is_symlink():
            raise SystemSetup(f"cannot use {self.current}: it is not a symbolic link; move it to {self.failsafe} "
                              f"(fussy-install does so when that is free)")
        release = Path(os.path.realpath(self.current))
        if release.parent != self.root:
            raise SystemSetup(f"cannot use {self.current}: it leads to {release}, which is not in {self.root}; "
                              "link it to a release of this target")
        return release if release.is_dir() else None

    def releases(self) -> list[Path]:
        """Return the releases, failsafe included, sorted by name."""
        return sorted(path for path in self.root.iterdir()
                      if not path.name.startswith(".") and path.is_dir() and not path.is_symlink())

    def named(self, name: str) -> Path:
        """Return the release NAME, or the current one for "".

        :raises SystemSetup: there is no such release
        """
        release = self.release(name) if name else self.current_release()
        if release is None or release not in self.releases():
            there = ", ".join(path.name for path in self.releases()) or "none"
            raise SystemSetup(f"cannot find release {name or 'current'} in {self.root}; there are: {there}")
        return release

    def boards(self) -> list[str]:
        """Return the names of this board: ``.fussy/board``, or what the device tree says it is compatible with."""
        for source, separator in ((self.board, "\n"), (Path("/proc/device-tree/compatible"), "\0")):
            try:
                return [name.strip() for name in source.read_text().split(separator) if name.strip()]
            except FileNotFoundError:
                continue
        return []


def find(path: str | Path) -> Target:
    """Return the target at PATH, for reading.

    :raises SystemSetup: there is no such directory.
    """
    root = Path(os.path.realpath(path))
    if not root.is_dir():
        raise SystemSetup(f"cannot find the target {path}: no such directory; name another with --target")
    return Target(root)


@contextmanager
def hold(path: str | Path, *, create: bool = False) -> Iterator[Target]:
    """Lock the target at PATH and return it; with CREATE, make it when it is not there.

    :raises Busy: another command works on it.
    :raises SystemSetup: it can't be written, or its parts lie on different file systems.
    """
    from fussy import cronlock

    if create:
        _writable(path, lambda: Path(path).mkdir(mode=0o755, parents=True, exist_ok=True))
    target = find(path)
    _writable(path, lambda: target.private.mkdir(mode=0o700, exist_ok=True))
    if os.lstat(target.private).st_dev != os.lstat(target.root).st_dev:
        raise SystemSetup(f"cannot use {target.root}: {target.private} lies on another file system, so nothing can be "
                          "renamed between them; unmount it")
    try:
        lock = cronlock.Flock(os.fspath(target.lock))
        lock.__enter__()
    except cronlock.Busy as error:
        raise Busy(f"cannot change {target.root}: another fussy command works on it ({error}); "
                   "wait for it to end") from error
    except OSError as error:
        raise unwritable(target.root, error) from error
    try:
        yield target
    finally:
        lock.__exit__(None, None, None)


def _writable(path: str | Path, step: Callable[[], object]) -> None:
    try:
        step()
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: str | Path, error: OSError) -> FussyError:
    """Return the error that says why the target can't be changed."""
    if is_full(error):
        return NoSpace(f"cannot write to {path}: {error.strerror}; make room there, for instance with "
                       "fussy-clean --no-spare")
    what = "it is no directory" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
    return SystemSetup(f"cannot write to {path}: {what}; make it writable, run as root, or choose another "
                       "with --target")
