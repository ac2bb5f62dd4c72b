"""Install a firmware package onto the file system: ``fussy-install``, ``fussy-clean`` (fussy documents, section 4.3).

These are the documented functions; each of those that change the target takes its lock and begins by finishing what an
interrupted run left (see fussy.recover).
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fussy import clean as cleaning
from fussy import disk, place, recover, state
from fussy import enable as enabling
from fussy import target as targets
from fussy.errors import FussyError, Reverted, SystemSetup, Unrecoverable
from fussy.patch import MEMORY
from fussy.unpack import Progress

if TYPE_CHECKING:
    import click

DEFAULT_KEYRING = "/etc/fussy/keys"
DEFAULT_TARGET = os.fspath(targets.DEFAULT)


def install(
    filename: str | Path, keyring: str | Path = DEFAULT_KEYRING, target: str | Path = DEFAULT_TARGET
) -> tuple[int, str]:
    """Install the firmware FILENAME into TARGET and make it current.

    Steps: unpack (:func:`install_bytes`), enable (:func:`enable`); if enabling fails, the *previous* release is enabled
    again, or *failsafe* if there is none or that fails too.

    :returns: (error code, path of the installed package): 0; 3 when an earlier release was brought back; 4 when none
        could be. The path is that of the new package in each case, though it may be deleted already.
    :raises FussyError: it could not be unpacked, and nothing was changed; ``exit_code`` tells the kinds apart
    """
    with ready(target, create=True) as held:
        release, digest = place.place(held, Path(filename), Path(keyring), boards=held.boards())
        try:
            enabling.make_current(held, release, "install", digest)
        except (Reverted, Unrecoverable) as error:
            return error.exit_code, os.fspath(release)
        return 0, os.fspath(release)


def install_release(
    filename: Path, keyring: Path, target: Path, *, boards: list[str] | None = None, progress: Progress | None = None,
    accept: place.Accept | None = None, placing: place.Placing | None = None, memory: int = MEMORY,
) -> Path:
    """Do what :func:`install` does, with a progress report; return the path of the release that is now current.

    ACCEPT may refuse the verified bundle by what it says of itself, before anything is written; PLACING is told its
    digest before it gets a name. A delta that needs more
    than MEMORY MiB is refused.

    :raises Reverted: an earlier release was brought back
    :raises Unrecoverable: none could be
    :raises FussyError: nothing was changed
    """
    with ready(target, create=True) as held:
        release, digest = place.place(held, filename, keyring, boards=boards or held.boards(), progress=progress,
                                      accept=accept, placing=placing, memory=memory)
        enabling.make_current(held, release, "install", digest)
        return release


def install_bytes(
    filename: str | Path, keyring: str | Path = DEFAULT_KEYRING, target: str | Path = DEFAULT_TARGET
) -> str:
    """Install the packaged bytes into a directory of TARGET, without making them current; return its full path.

    Files that the current release has already are hard-linked, changed ones are written once; every file is checked
    against the manifest. Nothing is left after an error.

    :raises FussyError: it could not be unpacked
    """
    with ready(target, create=True) as held:
        release, _ = place.place(held, Path(filename), Path(keyring), boards=held.boards())
        state.save(held, msgspec.structs.replace(state.load(held), transaction=None))
        return os.fspath(release)


def enable(final_target: str | Path, current: str | Path) -> None:
    """Attempt to enable the release FINAL_TARGET as the link CURRENT beside it.

    Runs ``.pre-install``, swaps the link, runs ``.post-install`` and the health checks. If it fails before the swap is
    complete, FINAL_TARGET is deleted, unless it was in use before: a release to fall back to is never deleted.

    :raises FussyError: a hook or health check failed, or the release is not in the directory of CURRENT
    """
    release = Path(final_path(final_target))
    with ready(os.path.dirname(os.path.abspath(current))) as held:
        if release.parent != held.root:
            raise FussyError(f"cannot enable {release}: it is not in {held.root}, where {current} is")
        previous = held.current_release()
        in_use = (previous, held.failsafe, held.release(state.load(held).previous or "."))
        try:
            enabling.before_swap(held, release, previous, "install")
            disk.swap_link(held.current, release.name)
        except (FussyError, OSError):
            if release not in in_use:
                disk.discard(release, held.trash)
            raise
        enabling.after_swap(held, release, previous, "install")


def swap_link(final_target: str | Path, current: str | Path) -> None:
    """Swap the link CURRENT to point to FINAL_TARGET in one step, durable when this returns.

    A temporary link that is left over is removed, a new one made and renamed over CURRENT. Where the two lie in the
    same directory the link has just the name in it, so the target can be mounted elsewhere.
    """
    final, link = Path(os.path.abspath(final_target)), Path(os.path.abspath(current))
    disk.swap_link(link, final.name if final.parent == link.parent else os.fspath(final))


def final_path(link: str | Path) -> str:
    """Return the normalised real path of the directory that LINK leads to.

    :raises OSError: it does not exist or is not a directory (the documented IOError)
    """
    path = os.path.realpath(link, strict=True)
    if not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    return path


def ensure_current_link(current: str | Path, failsafe: str | Path) -> None:
    """Ensure that CURRENT is a link: a directory of that name becomes FAILSAFE, and CURRENT a link to it.

    CURRENT leads to the complete release at each moment in between. Does nothing when CURRENT is a link or not there.

    :raises RuntimeError: CURRENT is a directory and FAILSAFE exists already
    :raises FussyError: the two are not ``current`` and ``failsafe`` of one directory
    """
    target = targets.find(os.path.dirname(os.path.abspath(current)))
    if (target.current.name, os.path.abspath(failsafe)) != (Path(current).name, os.fspath(target.failsafe)):
        raise FussyError(f"cannot use {current} and {failsafe}: they must be 'current' and 'failsafe' of one target")
    recover.ensure_current_link(target)


def clean(target: str | Path = DEFAULT_TARGET, protected: Iterable[str | Path] | None = None, *,
          spare: bool = True) -> None:
    """Delete what is not needed in TARGET: all names but those in PROTECTED, which are full paths.

    Never deleted: the current release, the previous one, a trial, ``failsafe``, names that begin with a dot, and
    anything outside the target, wherever links lead. Without SPARE nothing is kept to make the next release of.

    :raises FussyError: no such target, or another command works on it
    """
    with ready(target) as held:
        cleaning.clean(held, protected or (), spare=spare)


@contextmanager
def ready(target: str | Path, *, create: bool = False) -> Iterator[targets.Target]:
    """Lock TARGET and bring it into a settled state; with CREATE, make it when it is not there."""
    with targets.hold(target, create=create) as held:
        try:
            recover.ensure_current_link(held)
        except RuntimeError as error:
            raise SystemSetup(str(error)) from error
        recover.recover(held)
        yield held


def get_options() -> "click.Command":
    """Return the command line of ``fussy-install``."""
    from fussy.cli import install_command

    return install_command


def main() -> None:
    """Run ``fussy-install``: parse the arguments, install."""
    get_options()()


def clean_main() -> None:
    """Run ``fussy-clean``: parse the arguments, clean."""
    from fussy.cli import clean_command

    clean_command()
