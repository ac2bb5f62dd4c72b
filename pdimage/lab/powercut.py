"""Cuts the power of a disk in the middle of an upgrade, boots, and looks whether the router is well.

A cut has a plan, which is drawn by a seed: what is done, at which write power is cut, which unflushed writes survive
that. After it the disk is checked and mounted as a boot does it, ``fussy recover`` runs, in some plans with a second
power cut on the way, and then everything that is promised is looked at (see :mod:`pdimage.lab.scenes`).
"""

import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pdimage.errors import PartFailed
from pdimage.lab import filesystems
from pdimage.lab.rig import Rig
from pdimage.lab.scenes import RECOVER, SCENES
from pdimage.lab.stages import STAGES
from pdimage.lab.volatile import Disk, copy_file
from pdimage.lab.writelog import POLICIES, Policy

# How many writes a boot takes at most, as far as it is worth to cut it.
_BOOT_WRITES = 12


@dataclass(frozen=True)
class Plan:
    """Power is cut at the AT-th write of a scene, or of its STAGE, or when it has ended.

    AGAIN: at which write of the boot once more.
    """

    scene: str
    at: int
    policy: Policy
    seed: int
    again: int = 0
    stage: str = ""

    def words(self) -> str:
        """Return it as options of ``pdimage lab powercut``."""
        again = f" --again {self.again}" if self.again else ""
        stage = f" --stage {self.stage}" if self.stage else ""
        return f"--scene {self.scene}{stage} --at {self.at} --policy {self.policy} --seed {self.seed}{again}"


@dataclass(frozen=True)
class Outcome:
    """What came of a plan: whether the command was DONE before the power went, whether the check at boot REPAIRED the
    file system, what was wrong in the end, and how long it took.
    """

    plan: Plan
    done: bool
    repaired: bool
    problems: tuple[str, ...]
    seconds: float


def drawn(seed: int, lengths: Mapping[str, int]) -> Plan:
    """Return the plan of a seed; LENGTHS: how many writes each scene takes. One in eleven is cut after the end."""
    chance = random.Random(seed)
    scene = chance.choice(sorted(lengths))
    at = chance.randint(1, round(lengths[scene] * 1.1))
    again = chance.randint(1, _BOOT_WRITES) if chance.random() < 0.3 else 0
    return Plan(scene, at, chance.choice(POLICIES), seed, again)


def planned(seed: int, scenes: Iterable[str]) -> list[Plan]:
    """Return plans that cut at the first and the third write of each stage of SCENES; policies take turns from SEED."""
    moments = [(scene, stage, at) for scene in scenes for stage in STAGES[scene] for at in (1, 3)]
    return [Plan(scene, at, POLICIES[number % len(POLICIES)], number, stage=stage)
            for number, (scene, stage, at) in enumerate(moments, seed)]


def lengths(rig: Rig, names: Iterable[str]) -> dict[str, int]:
    """Return how many writes each scene takes, mounting included. It differs by a few from run to run."""
    found = {}
    for name in names:
        disk = Disk(rig.copy(SCENES[name]))
        try:
            rig.run(disk, SCENES[name].command, SCENES[name].code, disk.cut)
            found[name] = disk.writes
        finally:
            disk.close()
    return found


def cut(rig: Rig, plan: Plan, keep: Path | None = None) -> Outcome:
    """Carry out a plan. If something is wrong then, the disk as the power cut left it is in the directory KEEP."""
    begun = time.monotonic()
    scene = SCENES[plan.scene]
    image = rig.copy(scene)
    done = _cut_once(rig, image, plan, plan.at, scene.command, scene.code)
    problems = []
    if plan.again:
        try:
            filesystems.check(rig.kind, image)
            _cut_once(rig, image, plan, plan.again, RECOVER, 0)
        except PartFailed as error:
            problems.append(str(error))
    kept = keep / f"{rig.kind.name}-{plan.scene}-{plan.seed}.image" if keep else rig.place / "left.image"
    copy_file(image, kept)
    repaired, found = rig.boot(image, scene, done)
    if not problems and not found:
        kept.unlink()
    return Outcome(plan, done, repaired, (*problems, *found), time.monotonic() - begun)


def _cut_once(rig: Rig, image: Path, plan: Plan, at: int, words: tuple[str, ...], code: int) -> bool:
    """Run a command and cut the power at a write, or when it has ended; return whether it had."""
    disk = Disk(image, cut_at=at, policy=plan.policy, seed=plan.seed)
    try:
        return rig.run(disk, words, code, disk.cut)
    finally:
        disk.close()
