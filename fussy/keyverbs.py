"""The command line of :mod:`fussy.keys`."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fussy import keys as verbs
from fussy import moments
from fussy.commands import command
from fussy.errors import SystemSetup

PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def keys() -> None:
    """Make and move keys: who may sign bundles, and who can open them.

    The build machine's ring is GNUPGHOME (gpg's own default otherwise).
    """


def home_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--home", type=PATH, help="The build machine's key directory, instead of GNUPGHOME.")(function)


def passphrase_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--passphrase-file", type=PATH, help="File with the key's pass-phrase as first line.")(function)


@command("signing")
@click.argument("user_id", metavar="'NAME <ADDRESS>'")
@home_option
@click.option("--expire", default="2y", show_default=True, help="90d, 2y, 2030-12-31, or 0 for never.")
@click.option("--algorithm", type=click.Choice(sorted(verbs.ALGORITHMS)), default="ed25519", show_default=True)
@passphrase_option
def signing(user_id: str, home: Path | None, expire: str, algorithm: str, passphrase_file: Path | None) -> None:
    """Make the key that signs releases; print its fingerprint last."""
    made = verbs.make_signing_key(home, user_id, expire=expire, algorithm=algorithm, passphrase_file=passphrase_file)
    click.echo(f"Revocation certificate: {made.revocation}", err=True)
    click.echo("Keep it, and what `fussy keys export --secret` gives, offline.", err=True)
    click.echo(made.fingerprint)


@command("device")
@click.argument("keyring", type=PATH)
@click.argument("name")
@home_option
def device(keyring: Path, name: str, home: Path | None) -> None:
    """Make the key of a device in its KEYRING; import its public half; print its fingerprint.

    \b
    NAME is the device's name, or 'Name <address>'. Give the fingerprint to fussy-pack --encrypt-for.
    """
    fingerprint = verbs.make_device_key(keyring, name)
    click.echo(verbs.import_device(home, verbs.export(keyring, fingerprint)))


@command("export")
@click.argument("key")
@home_option
@click.option("--secret", is_flag=True, help="Export the secret half, for safe-keeping.")
@click.option("-o", "--output", type=PATH, help="File to write, which must be new; otherwise standard output.")
@passphrase_option
def export(key: str, home: Path | None, secret: bool, output: Path | None, passphrase_file: Path | None) -> None:
    """Export a KEY, named by key id, fingerprint or e-mail address."""
    text = verbs.export_secret(home, key, passphrase_file=passphrase_file) if secret else verbs.export(home, key)
    if output is None:
        click.echo(text, nl=False)
        return
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if secret else 0o644)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


@command("keyring")
@click.argument("directory", type=PATH)
@click.option("-s", "--signer", "signers", multiple=True, required=True,
              help="Who may sign: a file with a public key, or a key of the build machine's ring. Repeatable.")
@click.option("-n", "--name", default="device", show_default=True, help="Name of the device or kind of device.")
@home_option
def keyring(directory: Path, signers: tuple[str, ...], name: str, home: Path | None) -> None:
    """Build a device's keyring in a new DIRECTORY; print the fingerprint of the device's key.

    \b
    The public half of the device's key goes into the build machine's ring.
    Give the fingerprint to fussy-pack --encrypt-for, and install the directory as /etc/fussy/keys.
    """
    public = verbs.device_keyring(directory, [public_key(one, home) for one in signers], name)
    click.echo(verbs.import_device(home, public))


def public_key(named: str, home: Path | None) -> str:
    """Read a public key from a file, or export it from the ring."""
    path = Path(named)
    if not path.is_file():
        return verbs.export(home, named)
    try:
        return path.read_text()
    except UnicodeDecodeError as error:
        raise SystemSetup(f"cannot read the key {path}: it is not ASCII armour; export it with --armor") from error


@command("list")
@click.argument("keyring", type=PATH, default="/etc/fussy/keys")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def listing(keyring: Path, as_json: bool) -> None:
    """List the keys of a device's KEYRING (by default /etc/fussy/keys): who may sign, and until when."""
    entries = verbs.list_keyring(keyring)
    if as_json:
        click.echo(json.dumps([{
            "fingerprint": one.key.fingerprint, "user_ids": one.key.user_ids, "may_sign": one.may_sign,
            "secret": one.secret, "expires": one.key.expires or None, "fault": one.key.fault,
        } for one in entries], indent=2))
        return
    for one in entries:
        click.echo(f"{one.key.fingerprint}  {describe(one)}  {', '.join(one.key.user_ids)}")


def describe(entry: verbs.Entry) -> str:
    """What a key may do, until when, in words."""
    role = "may sign" if entry.may_sign else "device's own" if entry.secret else "may not sign"
    if entry.key.fault:
        return f"{role}, but {entry.key.fault}"
    return role + (f", until {moments.utc(entry.key.expires, 'day')}" if entry.key.expires else "")


@command("channel")
@click.argument("file", type=PATH, metavar="FILE.pem")
@passphrase_option
def channel(file: Path, passphrase_file: Path | None) -> None:
    """Make a key for a role of a channel: its secret half in FILE.pem, its public half in FILE.pub; print its id.

    \b
    Give FILE.pub to who runs fussy-publish, and keep FILE.pem.
    """
    from fussy.publishing import keyfiles

    click.echo(keyfiles.make(file, verbs.read_passphrase(passphrase_file).decode()).keyid)


for verb in (signing, device, export, keyring, listing, channel):
    keys.add_command(verb)
