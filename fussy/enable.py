"""Makes a release current, and brings the one before it back when that fails.

::

    placing ──> enabling ──> .pre-install ──> swap ──> .post-install ──> health checks ──> installed
                                 │fails                     │fails            │fails
                                 └──────────────┬───────────┴─────────────────┘
                                                v
                     previous (hooks, swap) ──fails──> failsafe (hooks, swap) ──fails──> unrecoverable
                                └──> reverted                  └──> failsafe

Each arrow can be a power cut; :mod:`fussy.recover` goes on from what it finds.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NoReturn

import msgspec

from fussy import checked, disk, health, hooks, manifest, state, versions
from fussy.errors import BadBundle, FussyError, HookFailed, Reverted, UnhealthyRelease, Unrecoverable
from fussy.target import Target

log = logging.getLogger(__name__)

Action = Literal["install", "rollback", "fallback"]


def description(release: Path | None) -> manifest.Description:
    """Return what an installed release says of itself; an empty description if it has no (usable) manifest."""
    if release is not None:
        try:
            return manifest.stored_description(release / os.fsdecode(manifest.PATH))
        except FileNotFoundError:
            pass
        except (BadBundle, OSError) as error:
            log.warning("%s: %s", release, error)
    return manifest.Description()


def make_current(target: Target, release: Path, action: Literal["install", "rollback"], digest: str = "") -> None:
    """Make RELEASE current: hooks, swap, hooks, health checks; or bring back what was current before.

    A release that fails before the swap of its own installation is deleted (fussy documents, ``install.enable``).

    :raises Reverted: it failed, and the release before it, or the failsafe, is in use and well
    :raises Unrecoverable: it failed, and nothing else could be brought up
    """
    previous = target.current_release()
    begun = msgspec.structs.replace(state.load(target), transaction=state.Transaction(
        release=release.name, previous=previous.name if previous else "", action=action, stage="enabling",
        digest=digest))
    state.save(target, begun)
    try:
        before_swap(target, release, previous, action)
        disk.swap_link(target.current, release.name)
    except (HookFailed, OSError) as error:
        log.info("%s", error)
        bring_back(target, previous, failed=release, reason=str(error), discard=action == "install")
    else:
        finish(target, release, previous, action)


def finish(target: Target, release: Path, previous: Path | None, action: Action) -> None:
    """Do what follows the swap: ``.post-install``, health checks, and the note that it went well.

    :raises Reverted: as :func:`make_current`
    :raises Unrecoverable: as :func:`make_current`
    """
    try:
        after_swap(target, release, previous, action)
    except (HookFailed, UnhealthyRelease, OSError) as error:
        log.info("%s", error)
        bring_back(target, previous, failed=release, reason=str(error))
    old = state.load(target)
    floor = max(old.floor, description(release).floor, key=versions.key)
    done = state.ended(old, "rolled-back" if action == "rollback" else "installed", release)
    done = msgspec.structs.replace(
        done, floor=floor, bad=[bad for bad in done.bad if bad.release != release.name],
        previous=previous.name if previous and previous != release else old.previous)
    state.save(target, done)


def before_swap(target: Target, release: Path, previous: Path | None, action: Action) -> None:
    """Run ``.pre-install`` of RELEASE."""
    hooks.run(release, hooks.PRE_INSTALL, facts(target, release, previous, action),
              recovering=action == "fallback", limit=description(release).limits.pre_install)


def after_swap(target: Target, release: Path, previous: Path | None, action: Action) -> None:
    """Run ``.post-install`` and the health checks of RELEASE."""
    described = description(release)
    hooks.run(release, hooks.POST_INSTALL, facts(target, release, previous, action),
              recovering=action == "fallback", limit=described.limits.post_install)
    health.check(release, described.health)


def facts(target: Target, release: Path, previous: Path | None, action: Action) -> Mapping[str, str]:
    """Return what hooks are told (see fussy.hooks)."""
    return {
        "ACTION": action, "RELEASE": str(release), "VERSION": description(release).version,
        "TARGET": str(target.root), "PREVIOUS": str(previous or ""), "PREVIOUS_VERSION": description(previous).version,
        "MANIFEST": str(release / os.fsdecode(manifest.PATH)),
    }


def bring_back(
    target: Target, previous: Path | None, *, failed: Path, reason: str, discard: bool = False
) -> NoReturn:
    """Go back to PREVIOUS, or to the failsafe release, after FAILED could not be enabled for REASON. Always raises.

    The swap to a release is made even when its ``.pre-install`` fails: a device must not stay on the bad one for that.
    With DISCARD the failed release is deleted in the end.

    :raises Reverted: a release is in use again and its hooks and health checks passed
    :raises Unrecoverable: none could be; the last one that exists is current all the same
    """
    _mark(target, failed, reason)
    candidates = [path for path in dict.fromkeys((previous, target.failsafe))
                  if path is not None and path != failed and path.is_dir()]
    problems = []
    for candidate in candidates:
        problem = _revive(target, candidate, failed)
        if not problem:
            outcome: state.Outcome = "reverted" if candidate == previous else "failsafe"
            _end(target, outcome, failed, reason, discard)
            raise Reverted(f"cannot enable {failed.name}: {reason}. {candidate.name} is in use again; "
                           "fussy status shows the reason")
        problems.append(f"{candidate.name}: {problem}")
    if not candidates and target.current_release() == failed:
        disk.remove_link(target.current)
    _end(target, "unrecoverable", failed, "; ".join([reason, *problems]), discard)
    there = f"going back failed too ({'; '.join(problems)})" if problems else \
        "there is no release to go back to, so none is current"
    raise Unrecoverable(f"cannot enable {failed.name}: {reason}; {there}. Install a firmware that works")


def _mark(target: Target, failed: Path, reason: str) -> None:
    """Note that FAILED is bad here, before anything is tried that may fail too."""
    now = state.load(target)
    digest = now.transaction.digest if now.transaction else ""
    bad = state.Bad(failed.name, description(failed).version, digest, reason, state.now())
    state.save(target, state.marked_bad(now, bad))


def _revive(target: Target, release: Path, failed: Path) -> str:
    """Make RELEASE current again; return what went wrong on the way, or an empty text."""
    problems = []
    try:
        before_swap(target, release, failed, "fallback")
    except (FussyError, OSError) as error:
        problems.append(str(error))
    try:
        if target.current_release() != release:
            disk.swap_link(target.current, release.name)
        after_swap(target, release, failed, "fallback")
    except (FussyError, OSError) as error:
        problems.append(str(error))
    for problem in problems:
        log.error("%s", problem)
    return "; ".join(problems)


def _end(target: Target, outcome: state.Outcome, failed: Path, reason: str, discard: bool) -> None:
    """Note the outcome; delete the failed release if that is asked for and it is not the one in use."""
    state.save(target, state.ended(state.load(target), outcome, failed, reason))
    if discard and failed.is_dir() and target.current_release() != failed:
        with checked.kept(target):
            disk.discard(failed, target.trash)
