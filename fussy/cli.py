"""The command lines of fussy: ``fussy`` with its verbs, and the documented commands of their own.

Verbs are loaded when they run, so ``--help`` is quick on a slow device. Results go to stdout, the log to stderr.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fussy import __version__
from fussy.commands import (
    command,
    keyring_option,
    logfile_option,
    start_logging,
    target_option,
    verbose_option,
)
from fussy.errors import DamagedRelease

if TYPE_CHECKING:
    from fussy.target import Target


@command("fussy-pack")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("-r", "--root", type=click.Path(path_type=Path), default="firmware", show_default=True,
              help="Directory to pack; its name becomes the name of the release.")
@click.option("-x", "--exclude", multiple=True, metavar="PATTERN",
              help="Leave out what matches, as tar's --exclude does (repeatable).")
@click.option("-e", "--encrypt-for", multiple=True, metavar="KEY",
              help="Encrypt for this key: id, fingerprint or unique e-mail (repeatable).")
@click.option("-k", "--key", "sign_with", metavar="KEY", help="Sign with this key instead of gpg's default key.")
@click.option("-z", "--compress", type=click.Choice(["gzip", "zstd"]), default="gzip", show_default=True,
              help="zstd bundles are smaller and quicker.")
@click.option("-V", "--firmware-version", metavar="VERSION", help="Version of the firmware.")
@click.option("-c", "--compatible", multiple=True, metavar="BOARD", help="Board the firmware is for (repeatable).")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False),
              help="Directory for the bundle (default: a new temporary one).")
@click.option("-p", "--passphrase-file", type=click.Path(path_type=Path, dir_okay=False),
              help="Read the key's pass-phrase from this file instead of asking for it.")
@click.option("-B", "--base", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="RELEASE",
              help="Make a delta for devices that have this older release: its directory, as fussy installed or "
              "unpacked it.")
@click.option("-m", "--memory", type=click.IntRange(1, 32), default=8, show_default=True, metavar="MIB",
              help="What a device may need to apply the delta, beside what any bundle takes.")
@verbose_option
def pack_command(
    directory: Path | None, root: Path, exclude: Sequence[str], encrypt_for: Sequence[str], sign_with: str | None,
    compress: str, firmware_version: str | None, compatible: Sequence[str], output: Path | None,
    passphrase_file: Path | None, base: Path | None, memory: int, verbose: bool,
) -> None:
    """Pack a directory into a signed firmware bundle and print the bundle's name.

    The directory's .fussy/release.json says what the firmware is for and how it is checked; --firmware-version and
    --compatible go before it. Keys come from $GNUPGHOME.
    """
    from fussy import progress
    from fussy.pack import pack

    start_logging(verbose)
    with progress.bar("packing") as show:
        bundle = pack(directory or root, excludes=exclude, encrypt_for=encrypt_for, sign_with=sign_with,
                      compress=compress, version=firmware_version, compatible=compatible, output=output,
                      passphrase_file=passphrase_file, base=base, memory=memory, progress=show)
    click.echo(bundle)


@command("fussy-install")
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("-f", "--file", type=click.Path(path_type=Path), help="Bundle to install.")
@keyring_option
@target_option
@click.option("-b", "--board", multiple=True, metavar="NAME", help="Name of this board (default: see fussy status).")
@click.option("-m", "--memory", type=click.IntRange(1, 32), default=8, show_default=True, metavar="MIB",
              help="Refuse a delta that needs more.")
@logfile_option
@verbose_option
def install_command(
    bundle: Path | None, file: Path | None, keyring: Path, target: Path, board: Sequence[str], memory: int,
    logfile: Path, verbose: bool,
) -> None:
    """Verify a firmware bundle, unpack it beside the running release, and switch to it.

    If the new release fails, the previous one is brought back (exit code 3), or the failsafe.
    """
    from fussy import progress
    from fussy.install import install_release

    if bundle is None and file is None:
        raise click.UsageError("name the bundle to install")
    start_logging(verbose, logfile)
    with progress.bar("installing") as show:
        install_release(bundle or file or Path(), keyring, target, boards=list(board), progress=show,
                        memory=memory)


@command("fussy-clean")
@target_option
@click.option("--no-spare", is_flag=True, help="Also delete what is kept of an old release to make the next one of.")
@logfile_option
@verbose_option
def clean_command(target: Path, no_spare: bool, logfile: Path, verbose: bool) -> None:
    """Delete releases that are not needed: all but the current, the previous, a trial and the failsafe one."""
    from fussy.install import clean

    start_logging(verbose, logfile)
    clean(target, spare=not no_spare)


@command("verify")
@click.argument("what", required=False, type=click.Path(path_type=Path))
@keyring_option
@target_option
def verify_command(what: Path | None, keyring: Path, target: Path) -> None:
    """Check an installed release (a directory, or its name in the target), or a bundle (a file).

    Without WHAT, the current release is checked. A release is compared with its manifest, file by file; a bundle's
    signature is checked against the keyring, and its files against its manifest. A delta is applied to its base, if the
    target has it, without writing anything.
    """
    from functools import partial

    from fussy import oldfiles, verify
    from fussy.target import find

    if what is not None and what.is_file():
        sound = verify.verify_bundle(what, keyring, partial(oldfiles.find, find(target)))
        signed = f"signed by {sound.signer.fingerprint} {sound.signer.user_id}"
        if sound.delta and not sound.manifest:
            click.echo(f"{what}: well-formed, {signed}; what it makes can't be checked: its base is not in {target}")
            return
        name = f"{sound.manifest.name}, " if sound.manifest else "no manifest, "
        click.echo(f"{what}: good ({name}{sound.files} files, {signed})")
        return
    if what is not None and what.is_dir():
        release = what
    else:
        release = find(target).named(os.fspath(what or ""))
    if found := verify.damage(release):
        for line in found:
            click.echo(line)
        raise DamagedRelease(f"cannot trust {release}: {len(found)} differences from its manifest; install it again "
                             "or go back with fussy rollback")
    click.echo(f"{release}: good")


@command("rollback")
@click.argument("release", required=False, default="")
@target_option
@click.option("--below-floor", is_flag=True, help="Also go back to a version with known security faults.")
@logfile_option
@verbose_option
def rollback_command(release: str, target: Path, below_floor: bool, logfile: Path, verbose: bool) -> None:
    """Go back to the previous release, or to RELEASE, with its hooks and health checks."""
    from fussy.install import ready
    from fussy.rollback import rollback

    start_logging(verbose, logfile)
    with ready(target) as held:
        left = held.current_release()
        now = rollback(held, release, below_floor=below_floor)
        click.echo(now)
        if left and _comes_again(held, left, now):
            click.echo(f"fussy update may install {left.name} again; fussy hold keeps it from that", err=True)


def _comes_again(target: "Target", left: Path, now: Path) -> bool:
    """Whether an updater works on TARGET that nothing keeps from going from the release NOW to the newer one LEFT."""
    from fussy import versions
    from fussy.enable import description
    from fussy.updating import record

    newer = versions.key(description(left).version) > versions.key(description(now).version)
    return newer and bool(record.load(target).at) and \
        not record.current(record.load_owner(target), int(time.time())).held


@command("failsafe")
@target_option
@logfile_option
@verbose_option
def failsafe_command(target: Path, logfile: Path, verbose: bool) -> None:
    """Make a full copy of the current release the release of last resort."""
    from fussy.failsafe import make_failsafe
    from fussy.install import ready

    start_logging(verbose, logfile)
    with ready(target) as held:
        make_failsafe(held)
        click.echo(held.failsafe)


class _Verbs(click.Group):
    """The verbs of ``fussy``; those of other modules are loaded when they are asked for."""

    own: dict[str, click.Command] = {
        "clean": clean_command, "failsafe": failsafe_command, "install": install_command, "pack": pack_command,
        "rollback": rollback_command, "verify": verify_command,
    }
    # modules with get_options(), or the commands themselves
    elsewhere = {
        "check": "fussy.upkeepverbs:check", "confirm": "fussy.trialverbs:confirm", "hold": "fussy.updating.hold",
        "keys": "fussy.keys",
        "link-tree": "fussy.linktree", "log": "fussy.updating.history", "postpone": "fussy.updating.postpone",
        "publish": "fussy.publishing.cli", "recover": "fussy.trialverbs:recover",
        "reject": "fussy.trialverbs:reject", "southrollback": "fussy.southrollback",
        "status": "fussy.upkeepverbs:status",
        "trial": "fussy.trialverbs:trial", "update": "fussy.updating.update",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*self.own, *self.elsewhere])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.elsewhere:
            import importlib

            module, _, name = self.elsewhere[cmd_name].partition(":")
            found = getattr(importlib.import_module(module), name or "get_options")
            made: click.Command = found if name else found()
            return made
        return self.own.get(cmd_name)


@click.group("fussy", cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def fussy_command() -> None:
    """Field upgrades that routers can trust: pack, install, fall back."""


def main() -> None:
    """Run ``fussy``."""
    fussy_command(prog_name="fussy")
