"""The verbs ``powercut`` and ``crash-states`` of ``pdimage lab``. Outcomes go to stdout."""

import functools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from fussy.commands import command
from fussy.errors import FussyError

_FILESYSTEMS = ("ext4", "xfs", "btrfs", "f2fs", "overlay")
_SCENES = ("clean", "confirm", "failsafe", "fallback", "first", "install", "reject", "rollback", "trial")
_POLICIES = ("none", "all", "prefix", "subset", "torn")
_LINGER = 2.5

_filesystem = click.option("-f", "--filesystem", "names", multiple=True, type=click.Choice([*_FILESYSTEMS, "all"]),
                           default=["ext4"], show_default=True, help="What the disk is formatted with (repeatable).")
_scene = click.option("--scene", "scenes", multiple=True, type=click.Choice(_SCENES),
                      help="What is going on when the power is cut (repeatable).  [default: all]")
_without_sync = click.option("--without-sync", is_flag=True, help="Turn each sync of the commands into nothing: this "
                             "must fail, otherwise the test proves nothing.")
_verbose = click.option("-v", "--verbose", is_flag=True, help="Print a line for each one that went well, too.")


def _verb(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a verb of a function; it runs in namespaces of its own, which end with the command, even when killed."""

    def made(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def called(**arguments: Any) -> None:
            from pdimage.lab import private

            if private.inside():
                function(**arguments)
            elif code := private.run([sys.executable, "-m", "pdimage", *sys.argv[1:]]):
                raise click.exceptions.Exit(code)

        return command(name)(_filesystem(_scene(_without_sync(_verbose(called)))))

    return made


def _rigs(names: tuple[str, ...], without_sync: bool) -> Iterator[Any]:
    """Yield a rig for each file system; say which are left out."""
    from pdimage.lab import private
    from pdimage.lab.filesystems import FILESYSTEMS
    from pdimage.lab.rig import WITHOUT_SYNC, Rig

    for name in _FILESYSTEMS if "all" in names else names:
        if missing := FILESYSTEMS[name].missing():
            click.echo(f"{name}: skipped: {missing}")
            continue
        yield Rig(FILESYSTEMS[name], private.PLACE / name, WITHOUT_SYNC if without_sync else None)


def _judge(bad: int, count: int, what: str) -> None:
    if bad:
        raise FussyError(f"cannot call this safe: {bad} of {count} {what} left a router that is not well")


@_verb("powercut")
@click.option("-n", "--cuts", default=20, show_default=True, help="How often power is cut, for each file system.")
@click.option("-s", "--seed", default=1, show_default=True, help="The first seed; each cut has the next.")
@click.option("--at", type=int, help="Cut at this write, once, instead of what the seed says.")
@click.option("--policy", type=click.Choice(_POLICIES), help="Which unflushed writes survive that.")
@click.option("--again", default=0, help="Cut once more, at this write of the boot that follows.")
@click.option("-k", "--keep", type=click.Path(path_type=Path, file_okay=False), metavar="DIRECTORY",
              help="Keep the disks that something is wrong with.")
def powercut_command(
    names: tuple[str, ...], scenes: tuple[str, ...], without_sync: bool, verbose: bool, cuts: int, seed: int,
    at: int | None, policy: Any, again: int, keep: Path | None,
) -> None:
    """Cut the power of a disk in the middle of upgrades, boot, and look whether the router is well.

    It runs on this machine's kernel, as root; nothing stays on it.
    """
    from pdimage.lab import powercut

    if keep:
        keep.mkdir(parents=True, exist_ok=True)
    if at and (len(scenes) != 1 or not policy):
        raise click.UsageError("--at goes with one --scene and a --policy")
    bad = count = 0
    for rig in _rigs(names, without_sync):
        lengths = {} if at else powercut.lengths(rig, scenes or _SCENES)
        plans = [powercut.Plan(scenes[0], at, policy, seed, again)] if at else [
            powercut.drawn(number, lengths) for number in range(seed, seed + cuts)]
        begun = time.monotonic()
        seen: Counter[str] = Counter()
        for plan in plans:
            outcome = powercut.cut(rig, plan, keep)
            seen.update(done=int(outcome.done), repaired=int(outcome.repaired), bad=int(bool(outcome.problems)))
            if verbose or outcome.problems:
                click.echo(f"{rig.kind.name}: {'; '.join(outcome.problems) or 'well'}: "
                           f"pdimage lab powercut -f {rig.kind.name} {plan.words()}")
        bad, count = bad + seen["bad"], count + len(plans)
        click.echo(f"{rig.kind.name}: {len(plans)} cuts, seeds {plans[0].seed} to {plans[-1].seed}: "
                   f"{seen['bad']} not well, {seen['done']} after the end, {seen['repaired']} repaired at boot; "
                   f"{(time.monotonic() - begun) / len(plans):.2f} s each")
    _judge(bad, count, "power cuts")


@_verb("crash-states")
@click.option("-s", "--seed", default=1, show_default=True, help="Chooses which writes are lost.")
@click.option("--samples", default=3, show_default=True, help="Ways to lose unflushed writes, for each flush.")
@click.option("-r", "--recording", type=click.Path(path_type=Path, file_okay=False), metavar="DIRECTORY",
              help="Replay the recordings in there; those that are missing are made.")
def crash_states_command(
    names: tuple[str, ...], scenes: tuple[str, ...], without_sync: bool, verbose: bool, seed: int, samples: int,
    recording: Path | None,
) -> None:
    """Write down what upgrades write, and boot from everything that a power cut can leave of that.

    It runs on this machine's kernel, as root; nothing stays on it but what --recording names.
    """
    from pdimage.lab import crashstates
    from pdimage.lab.scenes import SCENES

    bad = count = 0
    for rig in _rigs(names, without_sync):
        for name in scenes or _SCENES:
            place = (recording or rig.place) / f"{rig.kind.name}-{name}"
            if not place.exists():
                crashstates.record(rig, SCENES[name], place, _LINGER if without_sync else 0)
            begun = time.monotonic()
            seen: Counter[str] = Counter()
            for verdict in crashstates.replay(rig, SCENES[name], place, seed, samples):
                seen.update(states=1, repaired=int(verdict.repaired), bad=int(bool(verdict.problems)))
                if verbose or verdict.problems:
                    click.echo(f"{rig.kind.name} {name}: {verdict.state.name}: {'; '.join(verdict.problems) or 'well'}")
            bad, count = bad + seen["bad"], count + seen["states"]
            click.echo(f"{rig.kind.name} {name}: {seen['states']} states, seed {seed}: {seen['bad']} not well, "
                       f"{seen['repaired']} repaired at boot; {(time.monotonic() - begun) / seen['states']:.2f} s each")
    _judge(bad, count, "crash states")
