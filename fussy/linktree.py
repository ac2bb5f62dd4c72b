"""Puts links to the files of a distribution where the system looks for them.

``fussy-link-tree /opt/firmware/current/etc /etc`` makes ``/etc/dnsmasq.conf`` a link to
``/opt/firmware/current/etc/dnsmasq.conf``, and so on for each file. Directories of the distribution become real
directories in the target, so that others can have files in them too. Links are absolute and keep the path as it was
given: one that goes through ``current`` follows each swap by itself. Another run is needed only for the files that a
release adds or drops.

Everything is compared first, and all conflicts are told at once. Then whatever is new is made beside its place, under
a name of this process (``.fussy-link~PID.N``), synced, and renamed into place: a reader finds the old file or the new
one, at any moment and after a power cut, and an error before the first rename leaves the target as it was. What a
killed run has left is removed by the next one that changes the same directory.
"""

import contextlib
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from fussy import cronlock, disk, manifest
from fussy.commands import command, start_logging
from fussy.errors import SystemSetup
from fussy.linkways import COPY, HARD, SYMBOLIC, Way, is_linked, own

log = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"\.fussy-link~(\d+)\.\d+")


@dataclass(frozen=True)
class Linked:
    """What was done: paths made or replaced, how many were right already, paths removed.

    A new directory stands for all that is in it.
    """

    made: list[str]
    kept: int
    removed: list[str]


@dataclass
class _Plan:
    """What a distribution needs in a target: steps are pairs of a source and its place."""

    distribution: str
    release: Path
    way: Way
    steps: list[tuple[str, str]] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    kept: int = 0
    conflicts: list[str] = field(default_factory=list)
    #: The source for each place, that without symbolic links on the way.
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def directories(self) -> list[str]:
        """The existing directories that change."""
        return sorted({*(os.path.dirname(place) for _, place in self.steps), *map(os.path.dirname, self.stale)})


def link_tree(
    distribution_dir: str | os.PathLike[str], target_dir: str | os.PathLike[str] = "/", symbolic: bool = True, *,
    copy: bool = False, prune: bool = False,
) -> Linked:
    """Link all files under DISTRIBUTION_DIR from the same places under TARGET_DIR.

    A file or link that is in the way is replaced; a directory, or a link to one, never is. Links to directories in the
    target are followed (Debian's ``/lib`` is one), except into the release: a directory that is linked as a whole needs
    no links in it. ``.fussy`` in DISTRIBUTION_DIR describes the release and is left out.

    :param symbolic: make symbolic links; if not, hard links, which stay with the release they were made from.
    :param copy: copy the files instead.
    :param prune: also remove symbolic links that an earlier run has made for files the distribution no longer has, in
        the directories that it, or a release beside it, has.
    :raises SystemSetup: it can't be done; nothing was changed, and the message has all the reasons.
    :raises OSError: the disk failed or was full; nothing was changed if it was before the first rename.
    """
    source, target = os.path.abspath(distribution_dir), os.path.abspath(target_dir)
    for path in (source, target):
        if not os.path.isdir(path):
            raise SystemSetup(f"cannot link {source!r} into {target!r}: {path!r} is not a directory; name one that is")
    release = _release(source)
    if _is_inside(target, release):
        raise SystemSetup(f"cannot link {source!r} into {target!r}: that is part of the release; name another target")
    plan = _Plan(source, release, COPY if copy else SYMBOLIC if symbolic else HARD)
    _compare(source, target, plan)
    plan.stale = sorted(_stale(target, plan)) if prune else []
    if problems := [*plan.conflicts, *_obstacles(plan)]:
        raise SystemSetup(f"cannot link {source!r} into {target!r}: {'; '.join(problems)}; "
                          "nothing was changed, put this right first")
    _carry_out(plan)
    return Linked([place for _, place in plan.steps], plan.kept, plan.stale)


def _release(source: str) -> Path:
    """Return the release that SOURCE is part of, without symbolic links; SOURCE itself if it is of none."""
    real = Path(os.path.realpath(source))
    return next((path for path in (real, *real.parents) if _is_release(path)), real)


def _is_release(path: Path) -> bool:
    return path.joinpath(os.fsdecode(manifest.PATH)).exists()


def _is_inside(path: str, release: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(release)


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _children(directory: str) -> list[str]:
    return [os.path.join(directory, name) for name in sorted(os.listdir(directory))]


def _leaves(path: str) -> Iterator[str]:
    if _is_directory(path):
        for child in _children(path):
            yield from _leaves(child)
    else:
        yield path


def _compare(source: str, target: str, plan: _Plan) -> None:
    """Add to PLAN what the directory TARGET lacks of the directory SOURCE."""
    here = os.path.realpath(target)
    for path in _children(source):
        name = os.path.basename(path)
        place = os.path.join(target, name)
        if path == os.path.join(plan.distribution, ".fussy"):
            continue
        if _is_directory(path) and os.path.lexists(place):
            _compare_directory(path, place, plan)
        elif (other := plan.sources.setdefault(os.path.join(here, name), path)) != path:
            plan.conflicts.append(f"{place!r} can't be both {other!r} and {path!r}")
        elif not os.path.lexists(place):
            plan.steps.append((path, place))
        elif plan.way.is_done(path, place) or _are_equal_links(path, place):
            plan.kept += 1
        elif os.path.isdir(place) and not is_linked(path, place):
            plan.conflicts.append(f"{place!r} is a directory, but {path!r} is not")
        else:
            plan.steps.append((path, place))


def _compare_directory(path: str, place: str, plan: _Plan) -> None:
    if not os.path.isdir(place):
        plan.conflicts.append(f"{place!r} is not a directory, but {path!r} is")
    elif os.path.samefile(path, place):
        plan.kept += 1
    elif _is_inside(place, plan.release):
        plan.conflicts.append(f"{place!r} leads into the release, to {os.path.realpath(place)!r}")
    else:
        _compare(path, place, plan)


def _are_equal_links(path: str, place: str) -> bool:
    """Say whether both are the same link to a directory, as ``lib -> usr/lib`` in a firmware and in the system."""
    return (os.path.isdir(place) and os.path.islink(path) and os.path.islink(place)
            and os.readlink(path) == os.readlink(place))


def _obstacles(plan: _Plan) -> Iterator[str]:
    """Yield what keeps the steps of PLAN from being done."""
    for directory in plan.directories:
        if not os.access(directory, os.W_OK | os.X_OK):
            yield f"{directory!r} can't be written"
    for path, place in plan.steps:
        device = os.stat(os.path.dirname(place)).st_dev
        yield from (f"{leaf!r} {problem}" for leaf in _leaves(path) if (problem := plan.way.problem(leaf, device)))


def _build(source: str, place: str, way: Way) -> None:
    """Make PLACE, and if it is a directory all in it."""
    if not _is_directory(source):
        way.make(source, place)
        return
    os.mkdir(place, 0o700)
    for child in _children(source):
        _build(child, os.path.join(place, os.path.basename(child)), way)
    own(source, place)
    os.chmod(place, stat.S_IMODE(os.lstat(source).st_mode))


def _carry_out(plan: _Plan) -> None:
    """Make everything beside its place, then rename it all; remove what is stale."""
    with contextlib.ExitStack() as undo:
        for directory in plan.directories:
            _remove_leftovers(directory)
        ready = []
        for number, (source, place) in enumerate(plan.steps):
            temporary = os.path.join(os.path.dirname(place), f".fussy-link~{os.getpid()}.{number}")
            undo.callback(_remove, temporary)
            _build(source, temporary, plan.way)
            ready.append((temporary, place))
        for directory in {os.stat(directory).st_dev: directory for directory in plan.directories}.values():
            disk.sync_filesystem(Path(directory))
        for temporary, place in ready:
            os.rename(temporary, place)
            log.info("made %r", place)
    for place in plan.stale:
        os.unlink(place)
        log.info("removed %r", place)
    for directory in plan.directories:
        disk.sync_directory(Path(directory))


def _remove_leftovers(directory: str) -> None:
    for path in _children(directory):
        match = _TEMPORARY.fullmatch(os.path.basename(path))
        if match and (int(match[1]) == os.getpid() or not cronlock.lives(int(match[1]))):
            _remove(path)


def _remove(path: str) -> None:
    if _is_directory(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _stale(target: str, plan: _Plan) -> Iterator[str]:
    """Yield the links that linking the distribution has once made in TARGET and that now lead nowhere."""
    below = {os.path.relpath(directory, root) for root in [plan.distribution, *_beside(plan)]
             for directory, _, _ in os.walk(root)}
    for relative in below:
        directory = os.path.normpath(os.path.join(target, relative))
        if not os.path.isdir(directory) or _is_inside(directory, plan.release):
            continue
        for place in _children(directory):
            source = os.path.normpath(os.path.join(plan.distribution, relative, os.path.basename(place)))
            if is_linked(source, place) and not os.path.lexists(source):
                yield place


def _beside(plan: _Plan) -> Iterator[str]:
    """Yield what the distribution is in the other releases: ``firmware-6/etc`` for ``firmware-7/etc``."""
    if _is_release(plan.release):
        within = os.path.relpath(os.path.realpath(plan.distribution), plan.release)
        for release in map(Path, _children(os.path.dirname(plan.release))):
            if _is_release(release):
                yield os.path.join(release, within)


@command("fussy-link-tree")
@click.argument("directories", nargs=-1, type=click.Path(), metavar="[DIRECTORY [TARGET]]")
@click.option("-d", "--directory", type=click.Path(), help="Distribution directory, best below a current link.")
@click.option("-t", "--target", type=click.Path(), help="Directory that gets the links.  [default: /]")
@click.option("-H", "--hard", is_flag=True, help="Make hard links instead of symbolic ones.")
@click.option("-c", "--copy", is_flag=True, help="Copy the files instead of linking them.")
@click.option("-p", "--prune", is_flag=True, help="Remove links to files that the distribution no longer has.")
@click.option("-v", "--verbose", is_flag=True, help="Show each path that is made or removed.")
def link_tree_command(
    directories: tuple[str, ...], directory: str | None, target: str | None, hard: bool, copy: bool, prune: bool,
    verbose: bool,
) -> None:
    """Link the files of a distribution directory from the same places in a target directory."""
    words = list(directories)
    directory = directory or (words.pop(0) if words else None)
    target = target or (words.pop(0) if words else "/")
    if directory is None or words:
        raise click.UsageError("name one distribution directory and at most one target")
    if hard and copy:
        raise click.UsageError("--hard and --copy exclude each other")
    start_logging(verbose)
    done = link_tree(directory, target, symbolic=not hard, copy=copy, prune=prune)
    click.echo(f"{len(done.made)} made, {done.kept} right already, {len(done.removed)} removed")


def get_options() -> click.Command:
    """Return the command line of ``fussy-link-tree``."""
    return link_tree_command


def main() -> None:
    """Run ``fussy-link-tree``: parse the arguments, link."""
    get_options()()
