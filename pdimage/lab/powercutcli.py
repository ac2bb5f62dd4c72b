"""The verbs ``powercut`` and ``crash-states`` of ``pdimage lab``. Outcomes go to stdout."""

import contextlib
import functools
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from fussy.commands import command
from fussy.errors import FussyError
from pdimage.lab.filesystems import FILESYSTEMS
from pdimage.lab.stages import STAGES
from pdimage.lab.writelog import POLICIES

_SCENES = sorted(STAGES)
# Without syncs, how long a disk stays in use after a command: long enough for a commit by the kernel itself.
_LINGER = 2.5
_COUNT = click.IntRange(1)

_filesystem = click.option("-f", "--filesystem", "names", multiple=True, type=click.Choice([*FILESYSTEMS, "all"]),
                           default=["ext4"], show_default=True, help="What the disk is formatted with (repeatable).")
_scene = click.option("--scene", "scenes", multiple=True, type=click.Choice(_SCENES),
                      help="What is going on when the power is cut (repeatable).  [default: all]")
_without_sync = click.option("--without-sync", is_flag=True, help="Turn each sync of the commands into nothing: this "
                             "must fail, otherwise the test proves nothing.")
_without = click.option("--without", default="", metavar="POINT,…",
                        help="Leave out single syncs of fussy, such as swap_link:directory (see powercut.rst).")
_verbose = click.option("-v", "--verbose", is_flag=True, help="Print a line for each one that went well, too.")


def _verb(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a verb of a function; it runs in namespaces of its own, which end with the command, even when killed.

    Virtual routers have such namespaces anyway.
    """

    def made(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def called(**arguments: Any) -> None:
            from pdimage.lab import private, unsynced

            if not set(arguments["without"].split(",")) <= {"", *unsynced.POINTS}:
                raise click.UsageError(f"--without: the points are {', '.join(unsynced.POINTS)}")
            if private.inside() or arguments.get("router"):
                function(**arguments)
            elif code := private.run([sys.executable, "-m", "pdimage", *sys.argv[1:]]):
                raise click.exceptions.Exit(code)

        return command(name)(_filesystem(_scene(_without_sync(_without(_verbose(called))))))

    return made


def _rigs(names: tuple[str, ...], without_sync: bool, without: str) -> Iterator[Any]:
    """Yield a rig for each file system; say which are left out."""
    from pdimage.lab import private
    from pdimage.lab.rig import Rig

    for name in FILESYSTEMS if "all" in names else names:
        if missing := FILESYSTEMS[name].missing():
            click.echo(f"{name}: skipped: {missing}")
            continue
        yield Rig(FILESYSTEMS[name], private.PLACE / name, without_sync=without_sync, without=without)


def _judge(bad: int, count: int, what: str) -> None:
    if bad:
        raise FussyError(f"cannot call this safe: {bad} of {count} {what} left a router that is not well")


@_verb("powercut")
@click.option("-n", "--cuts", type=_COUNT, default=20, show_default=True,
              help="How often power is cut, for each file system.")
@click.option("-s", "--seed", default=1, show_default=True, help="The first seed; each cut has the next.")
@click.option("--at", type=_COUNT, help="Cut at this write, once, instead of what the seed says.")
@click.option("--policy", type=click.Choice(POLICIES), help="Which unflushed writes survive that.")
@click.option("--again", type=_COUNT, help="Cut once more, at this write of the boot that follows.")
@click.option("-R", "--router", is_flag=True, help="Let a virtual router do it, on the kernel that it boots.")
@click.option("--stage", default="", help="Count --at from the beginning of this stage of the scene (with --router).")
@click.option("--planned", is_flag=True, help="Cut in every stage of the scenes instead (with --router).")
@click.option("-k", "--keep", type=click.Path(path_type=Path, file_okay=False), metavar="DIRECTORY",
              help="Keep the disks that something is wrong with.")
def powercut_command(
    names: tuple[str, ...], scenes: tuple[str, ...], without_sync: bool, without: str, verbose: bool, cuts: int,
    seed: int, at: int | None, policy: Any, again: int | None, router: bool, stage: str, planned: bool,
    keep: Path | None,
) -> None:
    """Cut the power of a disk in the middle of upgrades, boot, and look whether the router is well.

    It runs on this machine's kernel, as root, or with --router on that of a virtual router; nothing stays on it.
    """
    from pdimage.lab import powercut

    if keep:
        keep.mkdir(parents=True, exist_ok=True)
    if (at or policy or again) and not (at and policy and len(scenes) == 1):
        raise click.UsageError("--at goes with one --scene and a --policy; --policy and --again go with --at")
    if (stage or planned) and not router:
        raise click.UsageError("--stage and --planned go with --router")
    if stage and (not at or stage not in STAGES[scenes[0]]):
        raise click.UsageError(f"--stage goes with --at and one --scene, which has the stages "
                               f"{', '.join(STAGES[scenes[0]]) if len(scenes) == 1 else 'that it has'}")

    def plans(lengths: Callable[[Iterable[str]], Mapping[str, int]]) -> list[Any]:
        if at:
            return [powercut.Plan(scenes[0], at, policy, seed, again or 0, stage)]
        if planned:
            return powercut.planned(seed, scenes or _SCENES)
        writes = lengths(scenes or _SCENES)
        return [powercut.drawn(number, writes) for number in range(seed, seed + cuts)]

    bad = count = 0
    options = "".join((" --router" * router, " --without-sync" * without_sync, f" --without {without}" * bool(without)))
    # whatever ends it, what is under way is undone before what it stands on
    with contextlib.closing((_on_a_router if router else _on_a_rig)(names, without_sync, without, plans, keep)) as runs:
        for name, outcomes in runs:
            with contextlib.closing(outcomes):
                wrong, number = _report(name, outcomes, verbose, options)
            bad, count = bad + wrong, count + number
    _judge(bad, count, "power cuts")


# Makes plans, given what tells how many writes scenes take.
Plans = Callable[[Callable[[Iterable[str]], Mapping[str, int]]], list[Any]]
# Each file system with the outcomes of its cuts.
Runs = Generator[tuple[str, Generator[Any, None, None]], None, None]


def _on_a_rig(names: tuple[str, ...], without_sync: bool, without: str, plans: Plans, keep: Path | None) -> Runs:
    """Yield each file system with the outcomes of its cuts, on this machine's kernel."""
    from pdimage.lab import powercut

    for rig in _rigs(names, without_sync, without):
        yield rig.kind.name, (powercut.cut(rig, plan, keep) for plan in plans(functools.partial(powercut.lengths, rig)))


def _on_a_router(names: tuple[str, ...], without_sync: bool, without: str, plans: Plans, keep: Path | None) -> Runs:
    """Yield the same, on a virtual router."""
    from pdimage.lab import attended, machinecuts, moments

    with attended.Machine(without_sync=without_sync) as machine:
        for name in FILESYSTEMS if "all" in names else names:
            with moments.Recorder(machine, name, without) as recorder:
                yield name, machinecuts.cuts(recorder, plans(recorder.lengths), keep)
                click.echo(f"{name}: {recorder.spent()}")


def _report(name: str, outcomes: Iterable[Any], verbose: bool, options: str) -> tuple[int, int]:
    """Print a line for each outcome that is not well, and one for all; return how many were not, and how many cuts."""
    seen: Counter[str] = Counter()
    seeds: list[int] = []
    seconds = 0.0
    for outcome in outcomes:
        seeds.append(outcome.plan.seed)
        seconds += outcome.seconds
        seen.update(done=int(outcome.done), repaired=int(outcome.repaired), bad=int(bool(outcome.problems)))
        if verbose or outcome.problems:
            click.echo(f"{name}: {'; '.join(outcome.problems) or 'well'}: "
                       f"pdimage lab powercut{options} -f {name} {outcome.plan.words()}")
    click.echo(f"{name}: {len(seeds)} cuts, seeds {seeds[0]} to {seeds[-1]}: "
               f"{seen['bad']} not well, {seen['done']} after the end, {seen['repaired']} repaired at boot; "
               f"{seconds / len(seeds):.2f} s each")
    return seen["bad"], len(seeds)


@_verb("crash-states")
@click.option("-s", "--seed", default=1, show_default=True, help="Chooses which writes are lost.")
@click.option("--samples", type=click.IntRange(0), default=3, show_default=True,
              help="Ways to lose unflushed writes, for each flush.")
@click.option("-r", "--recording", type=click.Path(path_type=Path, file_okay=False), metavar="DIRECTORY",
              help="Replay the recordings in there; those that are missing are made.")
def crash_states_command(
    names: tuple[str, ...], scenes: tuple[str, ...], without_sync: bool, without: str, verbose: bool, seed: int,
    samples: int, recording: Path | None,
) -> None:
    """Write down what upgrades write, and boot from everything that a power cut can leave of that.

    It runs on this machine's kernel, as root; nothing stays on it but what --recording names.
    """
    from pdimage.lab import crashstates
    from pdimage.lab.scenes import SCENES

    bad = count = 0
    for rig in _rigs(names, without_sync, without):
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
