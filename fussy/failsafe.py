"""Makes the release of last resort: a full copy of the current release that shares no inode with any other."""

import os

from fussy import disk, manifest, share, state, trial
from fussy.errors import DamagedRelease, SystemSetup
from fussy.stage import Stage, blocks_of
from fussy.target import Target


def make_failsafe(target: Target) -> None:
    """Copy the current release of the locked TARGET to ``failsafe``, each file checked against its manifest.

    An earlier failsafe is replaced in one step, and deleted after that.

    :raises OnTrial: the current release is on trial
    :raises SystemSetup: there is no current release, or it is the failsafe release
    :raises DamagedRelease: a file of the current release is not what its manifest says
    """
    trial.refuse_during(target, "make a failsafe")
    current = target.current_release()
    if current is None or current == target.failsafe:
        raise SystemSetup("cannot make a failsafe: no other release is current; install one first")
    disk.empty(target.staging)
    staged = target.staging / "tree"
    staged.mkdir(parents=True, mode=0o700)
    stage = Stage(os.fsencode(staged))
    entries = list(share.installed_entries(current))
    if wrong := manifest.Checker(devices=True).problems(entries):
        raise DamagedRelease(f"cannot make a failsafe: the manifest of {current.name} is wrong: {wrong[0]}")
    for entry in entries:
        source = os.path.join(os.fsencode(current), entry.name)
        if entry.type == "directory":
            stage.make_directory(entry)
        elif entry.type == "hardlink":
            stage.link_inside(entry)
        elif entry.type != "file":
            stage.make_special(entry)
        elif stage.write(entry, blocks_of(source)) != entry.sha256:
            disk.empty(target.staging)
            raise DamagedRelease(f"cannot make a failsafe: {os.fsdecode(entry.name)!r} of {current.name} is not what "
                                 "its manifest says; install a sound release first")
    file = current / os.fsdecode(manifest.PATH)
    described = file.read_bytes() if file.is_file() else None
    stage.finish(entries, described)
    # while it may be the old one or the new one, no digest is known of it
    state.save(target, state.with_digest(state.load(target), target, target.failsafe.name, ""))
    if target.failsafe.is_dir():
        disk.sync_filesystem(staged)
        disk.exchange(staged, target.failsafe)
        disk.discard(staged, target.trash)
    else:
        disk.publish(staged, target.failsafe)
    if described is not None:
        digest = manifest.digest(described)
        state.save(target, state.with_digest(state.load(target), target, target.failsafe.name, digest))
