"""Goes back to a release that is still there, by hand."""

from pathlib import Path

from fussy import disk, enable, manifest, preflight, state, trial
from fussy.errors import FussyError, Incompatible
from fussy.target import Target


def rollback(target: Target, name: str = "", *, below_floor: bool = False) -> Path:
    """Make the release NAME (otherwise the previous one) of the locked TARGET current, and return its path.

    :raises SystemSetup: there is no such release
    :raises FussyError: it is current already
    :raises OnTrial: the current release is on trial
    :raises Incompatible: it is older than this device accepts, and not BELOW_FLOOR
    :raises Reverted: it failed, and the release in use before is in use again
    """
    disk.check_durable(target.root)
    trial.refuse_during(target, "roll back")
    now = state.load(target)
    if not name and not now.previous:
        raise FussyError(f"cannot roll back: {target.root} has no previous release; name one (see fussy status)")
    release = target.named(name or now.previous)
    if release == target.current_release():
        raise FussyError(f"cannot roll back to {release.name}: it is current already")
    if not below_floor and release != target.failsafe:
        try:
            described = enable.description(release)
            preflight.check_compatible(manifest.Description(version=described.version), boards=(), current="",
                                       floor=now.floor)
        except Incompatible as error:
            raise Incompatible(f"{error}; --below-floor does it all the same") from error
    enable.make_current(target, release, "rollback")
    return release
