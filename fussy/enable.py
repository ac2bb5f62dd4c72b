"""Makes a release current, and brings the one before it back when that fails.

::

    placing ──> enabling ──> .pre-install ──> swap ──> .post-install ──> health checks ──> installed
                                 │fails                     │fails            │fails
                                 └──────────────┬───────────┴─────────────────┘
                                                v
                     previous (hooks, swap) ──fails──> failsafe (hooks, swap) ──fails──> unrecoverable
                                └──> reverted                  └──> failsafe

Each arrow can be a power cut; :mod:`fussy.recover` goes on from what it finds. Once a release has failed the way is
only back: the reason is in the transaction before anything is done about it. A release that must be confirmed later is
``on trial`` instead of ``installed`` (see fussy.trial). The watchdog is held through all of it.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NoReturn

import msgspec

from fussy import checked, disk, health, hooks, manifest, owner, state, trial, uptime, versions, watchdog
from fussy.errors import (
    BadBundle,
    FussyError,
    HookFailed,
    Reverted,
    SystemSetup,
    UnhealthyRelease,
    Unrecoverable,
    words,
)
from fussy.target import Target

log = logging.getLogger(__name__)

Action = Literal["install", "rollback", "fallback"]

# Seconds that a swap and what belongs to it may take beside hooks and checks, on a slow disk.
_SLACK = 60.0


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

    :raises SystemSetup: what the owner demands can't be read; nothing was changed
    :raises Reverted: it failed, and the release before it, or the failsafe, is in use and well
    :raises Unrecoverable: it failed, and nothing else could be brought up
    """
    previous = target.current_release()
    checks, _ = asked(release), demanded(release)
    with guarded(target, release, previous):
        worked = health.before(release, checks) if previous else {}
        begun = msgspec.structs.replace(state.load(target), transaction=state.Transaction(
            release=release.name, previous=previous.name if previous else "", action=action, stage="enabling",
            digest=digest, worked=worked))
        state.save(target, begun)
        try:
            before_swap(target, release, previous, action)
            disk.swap_link(target.current, release.name)
        except (HookFailed, OSError) as error:
            log.info("%s", error)
            bring_back(target, previous, failed=release, reason=words(error), discard=action == "install",
                       excused=isinstance(error, OSError))
        finish(target, release, previous, action)


def finish(target: Target, release: Path, previous: Path | None, action: Action) -> None:
    """Do what follows the swap: ``.post-install``, health checks, and the note that it went well.

    :raises Reverted: as :func:`make_current`
    :raises Unrecoverable: as :func:`make_current`
    """
    try:
        going = state.load(target).transaction
        after_swap(target, release, previous, action, going.worked if going else {})
    except (HookFailed, UnhealthyRelease, SystemSetup, OSError) as error:
        log.info("%s", error)
        bring_back(target, previous, failed=release, reason=words(error), excused=isinstance(error, OSError))
    old = state.load(target)
    done = msgspec.structs.replace(
        old, previous=previous.name if previous and previous != release else old.previous)
    wanted = demanded(release)
    back = previous or target.failsafe
    if going and action == "install" and wanted.confirm != "checks" and back != release and back.is_dir():
        done = msgspec.structs.replace(state.ended(done, "on-trial", release),
                                       trial=trial.begun(going, wanted, uptime.now(), state.now(), old.previous))
    else:
        done = accepted(done, release, "rolled-back" if action == "rollback" else "installed")
    state.save(target, done)


def accepted(now: state.State, release: Path, outcome: state.Outcome) -> state.State:
    """Return the state NOW after RELEASE, which is current, has proved itself."""
    floor = max(now.floor, description(release).floor, key=versions.key)
    return msgspec.structs.replace(state.ended(now, outcome, release), floor=floor, trial=None,
                                   bad=[bad for bad in now.bad if bad.release != release.name])


def demanded(release: Path) -> manifest.Trial:
    """Return when RELEASE counts as good: what it and the device's owner demand (see fussy.owner).

    :raises SystemSetup: the owner's file can't be read
    """
    return owner.stricter(description(release).trial, owner.demands(owner.directory()))


def asked(release: Path) -> list[manifest.Check]:
    """Return the health checks of RELEASE and of the device's owner.

    :raises SystemSetup: the owner's files can't be read
    """
    return [*description(release).health, *owner.checks(owner.directory())]


@contextmanager
def guarded(target: Target, release: Path, previous: Path | None) -> Iterator[None]:
    """Hold the watchdog meanwhile, for as long as hooks and checks of all that may become current can take."""
    with watchdog.held(*vigil(target, release, previous)):
        yield


def vigil(target: Target, release: Path, previous: Path | None) -> tuple[str, float]:
    """Return the watchdog ("": none), and the seconds that hooks and checks of all that may become current can take."""
    device, seconds = description(release).trial.watchdog, 0.0
    try:
        device = demanded(release).watchdog
        seconds += sum(check.seconds for check in owner.checks(owner.directory()))
    except SystemSetup as error:
        log.warning("%s", error)
    for one in (release, previous, target.failsafe):
        described = description(one)
        seconds += sum(check.seconds for check in described.health) + _SLACK
        seconds += described.limits.pre_install + described.limits.post_install
    return device, seconds


def before_swap(target: Target, release: Path, previous: Path | None, action: Action) -> None:
    """Run ``.pre-install`` of RELEASE."""
    hooks.run(release, hooks.PRE_INSTALL, facts(target, release, previous, action),
              recovering=action == "fallback", limit=description(release).limits.pre_install)


def after_swap(
    target: Target, release: Path, previous: Path | None, action: Action, worked: health.Worked | None = None
) -> None:
    """Run ``.post-install`` of RELEASE and the health checks: its own, and the owner's unless it is brought back."""
    described = description(release)
    hooks.run(release, hooks.POST_INSTALL, facts(target, release, previous, action),
              recovering=action == "fallback", limit=described.limits.post_install)
    if action == "fallback":
        health.check(release, described.health)
    else:
        health.check(release, asked(release), worked, demanded(release).seconds)


def facts(target: Target, release: Path, previous: Path | None, action: Action) -> Mapping[str, str]:
    """Return what hooks are told (see fussy.hooks)."""
    return {
        "ACTION": action, "RELEASE": str(release), "VERSION": description(release).version,
        "TARGET": str(target.root), "PREVIOUS": str(previous or ""), "PREVIOUS_VERSION": description(previous).version,
        "MANIFEST": str(release / os.fsdecode(manifest.PATH)),
    }


def bring_back(
    target: Target, previous: Path | None, *, failed: Path, reason: str, discard: bool = False, excused: bool = False
) -> NoReturn:
    """Go back to PREVIOUS, or to the failsafe release, after FAILED could not be enabled for REASON. Always raises.

    The swap to a release is made even when its ``.pre-install`` fails: a device must not stay on the bad one for that.
    With DISCARD the failed release is deleted in the end; EXCUSED says that it was not its doing (see fussy.state.Bad).

    :raises Reverted: a release is in use again and its hooks and health checks passed
    :raises Unrecoverable: none could be; the last one that exists is current all the same
    """
    mark(target, previous, failed=failed, reason=reason, discard=discard, excused=excused)
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
    if candidates and target.current_release() != candidates[-1]:
        # the link to the last of them could not be made: the transaction stays, so the next run goes on with it
        raise Unrecoverable(f"cannot enable {failed.name}: {reason}; going back failed too "
                            f"({'; '.join(problems)}); that is tried again at the next boot or run")
    if target.current_release() == failed:
        disk.remove_link(target.current)
    _end(target, "unrecoverable", failed, "; ".join([reason, *problems]), discard)
    there = f"going back failed too ({'; '.join(problems)})" if problems else \
        "there is no release to go back to, so none is current"
    raise Unrecoverable(f"cannot enable {failed.name}: {reason}; {there}. Install a firmware that works")


def mark(
    target: Target, previous: Path | None, *, failed: Path, reason: str, discard: bool = False, excused: bool = False
) -> None:
    """Note that FAILED is bad here and on its way out to PREVIOUS, before anything is tried that may fail too."""
    now = state.load(target)
    earlier = now.trial.earlier if now.trial else now.previous
    going = now.transaction or state.Transaction(
        failed.name, previous.name if previous else "", "install", digest=now.trial.digest if now.trial else "")
    excuses = next((bad.excused for bad in now.bad if (bad.digest or bad.release) in (going.digest, failed.name)), 0)
    if not going.reason:
        going = msgspec.structs.replace(going, attempts=0, boot="")
        excuses = excuses + 1 if excused else 0
    going = msgspec.structs.replace(going, stage="enabling", reason=reason, discard=discard)
    bad = state.Bad(failed.name, description(failed).version, going.digest, reason, state.now(), excuses)
    state.save(target, state.marked_bad(msgspec.structs.replace(
        now, transaction=going, trial=None, previous=earlier), bad))


def _revive(target: Target, release: Path, failed: Path) -> str:
    """Make RELEASE current again; return what went wrong on the way, or an empty text."""
    problems = []
    try:
        before_swap(target, release, failed, "fallback")
    except (FussyError, OSError) as error:
        problems.append(words(error))
    try:
        if target.current_release() != release:
            disk.swap_link(target.current, release.name)
        after_swap(target, release, failed, "fallback")
    except (FussyError, OSError) as error:
        problems.append(words(error))
    for problem in problems:
        log.error("%s", problem)
    return "; ".join(problems)


def _end(target: Target, outcome: state.Outcome, failed: Path, reason: str, discard: bool) -> None:
    """Note the outcome; delete the failed release if that is asked for and it is not the one in use."""
    state.save(target, state.ended(state.load(target), outcome, failed, reason))
    if discard and failed.is_dir() and target.current_release() != failed:
        with checked.kept(target):
            disk.discard(failed, target.trash)
