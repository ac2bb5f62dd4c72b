"""Brings the content of a bundle into the target as a new release, without touching the one in use."""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from functools import cache, partial, wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import msgspec

from fussy import (
    bundle,
    checked,
    disk,
    enable,
    hooks,
    manifest,
    oldfiles,
    owner,
    preflight,
    recycle,
    share,
    state,
    unpack,
)
from fussy.errors import NoSpace, full, is_full
from fussy.patch import MEMORY
from fussy.target import Target
from fussy.trial import refuse_during

log = logging.getLogger(__name__)

Accept = Callable[[manifest.Description], object]
Placing = Callable[[str], object]
P = ParamSpec("P")
R = TypeVar("R")


def _once_more(place: Callable[Concatenate[Target, P], R]) -> Callable[Concatenate[Target, P], R]:
    """Have PLACE try again without the spare where room is short: what it holds may be just what lacks."""

    @wraps(place)
    def placed(target: Target, /, *arguments: P.args, **options: P.kwargs) -> R:
        try:
            return place(target, *arguments, **options)
        except NoSpace as error:
            if not recycle.give_up(target):
                raise
            log.info("%s; trying again without %s", error, target.spare)
            return place(target, *arguments, **options)

    return placed


@_once_more
def place(
    target: Target, filename: Path, keyring: Path, *, boards: list[str], progress: unpack.Progress | None = None,
    accept: Accept | None = None, placing: Placing | None = None, memory: int = MEMORY,
) -> tuple[Path, str]:
    """Verify the bundle FILENAME, write its release into the locked TARGET; return its path and its digest.

    Nothing is left after an error, and nothing is written before the bundle is verified and is known to fit.

    :param accept: is given what the verified bundle says of itself, and raises an error if that is not to be had
    :param placing: is told the digest of the release when it is complete but has no name yet, and may raise an error
    :param memory: MiB that applying a delta may take
    :raises FussyError: see the errors of fussy.bundle, fussy.preflight and fussy.unpack
    """
    disk.check_durable(target.root)
    refuse_during(target, "install")
    owner.refuse_mistakes(owner.directory())
    disk.empty(target.staging)
    known = cache(partial(checked.load, target))
    kept: dict[int, checked.Record | None] = {}

    def recycled(described: manifest.Manifest) -> recycle.Reuse | None:
        found = recycle.reuse(target, known, described)
        if found:
            kept.update(found.kept)
        else:
            known.cache_clear()  # a spare that was given up took names from files, whose records are new then
        return found

    try:
        shared = target.spare if target.spare.is_dir() else target.current_release()
        with ExitStack() as stack:
            with share.read_ahead(shared):
                signer, source = stack.enter_context(bundle.opened(filename, keyring))
            log.info("%s: signed by %s (%s)", filename, signer.fingerprint, signer.user_id)
            plan = _plan(target, boards, accept, known)
            target.staging.mkdir(mode=0o700, exist_ok=True)
            described = unpack.unpack_release(source, target.staging / "tree", plan, most=disk.free(target.root),
                                              progress=progress, find=partial(oldfiles.find, target), memory=memory,
                                              recycle=recycled)
        staged = target.staging / "tree"
        hooks.check(staged, target.current)
        digest = manifest.stored_digest(staged / os.fsdecode(manifest.PATH))
        if placing:
            placing(digest)
        release = _free_name(target, described.name)
        previous = target.current_release()
        records = _records(staged, described, kept)
        _note_start(target, release, previous, digest)
        disk.publish(staged, release)
    except OSError as error:
        disk.empty(target.staging)
        if is_full(error):
            raise NoSpace(f"cannot install: {full(target.root, error)}; run fussy-clean or make room") from error
        raise
    except BaseException:
        disk.empty(target.staging)
        raise
    checked.save(target, records)
    return release, digest


def _plan(target: Target, boards: list[str], accept: Accept | None, known: checked.Known) -> unpack.Plan:
    """Return the preflight: refuses what is not for this device or does not fit; else says what can be shared."""

    def plan(described: manifest.Manifest, kept: Collection[int]) -> dict[int, bytes]:
        now = state.load(target)
        current = enable.description(target.current_release())
        preflight.check_compatible(described, boards=boards, current=current.version, floor=now.floor)
        if accept:
            accept(described)
        shared = share.sources(described.entries, target, kept, known)
        preflight.check_space(described.entries, {*shared, *kept}, target)
        return shared

    return plan


def _free_name(target: Target, name: str) -> Path:
    """Return NAME in the target, or NAME-1, NAME-2, …, whichever is free first."""
    path, i = target.release(name), 0
    while os.path.lexists(path):
        i += 1
        path = target.release(f"{name}-{i}")
    return path


def _note_start(target: Target, release: Path, previous: Path | None, digest: str) -> None:
    transaction = state.Transaction(release=release.name, previous=previous.name if previous else "",
                                    action="install", digest=digest)
    now = state.with_digest(state.load(target), target, release.name, digest)
    state.save(target, msgspec.structs.replace(now, transaction=transaction), everything=True)


def _records(
    staged: Path, described: manifest.Manifest, kept: Mapping[int, checked.Record | None]
) -> Iterable[checked.Record]:
    """Return what is known of each file of the release now that it is complete.

    What is known of those that were KEPT holds, but for those that got a further name and so stand for others, too.
    """
    root = os.fsencode(staged) + b"/"
    known = {one.inode: one for one in kept.values() if one}
    for i, entry in enumerate(described.entries):
        if entry.type == "file" and not kept.get(i):
            facts = os.lstat(root + entry.name)
            known[facts.st_ino] = checked.record(facts, entry.identity())
    return known.values()
