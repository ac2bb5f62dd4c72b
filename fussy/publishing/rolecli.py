"""Sub-commands of ``fussy-publish`` about keys and roles."""

from pathlib import Path

import click

from fussy.publishing import metadata, roles
from fussy.publishing.places import Days, Settings
from fussy.publishing.session import PATH, Session, first_line, json_option, pairs, show, verb

_new_passphrase = click.option("--new-passphrase-file", type=PATH,
                               help="Protect the keys made here with the first line of this file (not the online key).")


@verb("init")
@click.option("-p", "--product", "products", multiple=True, required=True, metavar="NAME",
              help="Product line to offer releases in (repeatable).")
@click.option("--role-key", "role_keys", multiple=True, metavar="ROLE=FILE",
              help="Key that signs for root, targets, snapshot, timestamp or a product line, public or secret half "
              "(repeatable). A role without any gets one that is made here.")
@click.option("--threshold", "thresholds", multiple=True, metavar="ROLE=COUNT",
              help="How many of a role's keys must sign (repeatable; default 1).")
@click.option("--days", multiple=True, metavar="ROLE=DAYS",
              help="How long what root, targets, product, snapshot or timestamp signs is valid (default 365, 365, 365, "
              "14, 7; repeatable).")
@click.option("-s", "--signer", "signers", multiple=True, metavar="KEY",
              help="OpenPGP key of GNUPGHOME that may sign bundles: makes the keyring that opens bundles here "
              "(repeatable).")
@click.option("--keyring", type=PATH, help="Open bundles with this keyring instead.")
@click.option("-e", "--encrypt-for", multiple=True, metavar="KEY",
              help="Encrypt deltas and parts, and trees that are packed, for this key (repeatable).")
@click.option("--sign-with", default="", metavar="KEY", help="Sign them with this key instead of gpg's default key.")
@click.option("--keep", type=click.IntRange(0, 100), default=4, show_default=True,
              help="Make deltas from as many earlier releases.")
@click.option("--grace", type=click.FloatRange(0), default=14.0, show_default=True,
              help="Days for which files stay that the channel no longer names.")
@_new_passphrase
def init(session: Session, products: tuple[str, ...], role_keys: tuple[str, ...], thresholds: tuple[str, ...],
         days: tuple[str, ...], signers: tuple[str, ...], keyring: Path | None, encrypt_for: tuple[str, ...],
         sign_with: str, keep: int, grace: float, new_passphrase_file: Path | None) -> None:
    """Make a new channel, with keys for roles that have none; print the path of its first root.

    \b
    Put that file into the firmware as /etc/fussy/keys/root.json: devices begin with it.
    Then take the secret halves of root and targets out of the private directory, and keep them offline.
    """
    from fussy.gpg import choose_signer
    from fussy.gpghome import list_keys
    from fussy.trust import choose_key, key_query

    for key in encrypt_for:
        choose_key(list_keys(None, key_query(key, "E")), key, "E")
    if sign_with:
        choose_signer(None, sign_with)
    wanted: dict[str, roles.Signers] = {}
    counts = {role: number(role, count) for role, count in pairs(thresholds, "thresholds")}
    files: dict[str, list[Path]] = {}
    for role, file in pairs(role_keys, "keys of roles"):
        files.setdefault(role, []).append(Path(file))
    for role in {*files, *counts}:
        wanted[role] = roles.Signers(files.get(role, ()), counts.get(role, 1))
    settings = Settings(keep=keep, grace=grace, encrypt_for=list(encrypt_for), sign_with=sign_with,
                        keyring=str(keyring.absolute()) if keyring else "", days=days_of(days))
    if signers:
        settings = with_keyring(session, settings, signers)
    roles.init(session.where, session.ring(), products, wanted, settings,
               first_line(new_passphrase_file) if new_passphrase_file else "")
    click.echo(session.where.metadata / "1.root.json")


def number(role: str, count: str) -> int:
    if not count.isdigit():
        raise click.UsageError(f"write the threshold of {role} as a number, not {count}")
    return int(count)


def days_of(values: tuple[str, ...]) -> Days:
    """Return how long the roles' signatures are valid."""
    import msgspec

    try:
        return msgspec.convert(dict(pairs(values, "days")), Days, strict=False)
    except msgspec.ValidationError as error:
        raise click.UsageError("write --days as ROLE=NUMBER, a number above 0, and root, targets, product, snapshot or "
                               f"timestamp for ROLE ({error})") from error


def with_keyring(session: Session, settings: Settings, signers: tuple[str, ...]) -> Settings:
    """Make the keyring that opens bundles here; what is encrypted is encrypted for its key too."""
    import msgspec

    from fussy import keys

    session.where.private.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = session.where.private / "keyring"
    if directory.exists():  # of an init that was interrupted
        own = next(one.key.fingerprint for one in keys.list_keyring(directory) if one.secret)
        public = keys.export(directory, own)
    else:
        public = keys.device_keyring(directory, [keys.export(None, key) for key in signers],
                                     f"channel-{session.where.channel.name}")
    own = keys.import_device(None, public)
    click.echo(f"Encrypt bundles that are added here for {own} too.", err=True)
    recipients = [*settings.encrypt_for, own] if settings.encrypt_for else []
    return msgspec.structs.replace(settings, encrypt_for=recipients, keyring="")


@verb("roles")
@json_option
def show_roles(session: Session, as_json: bool) -> None:
    """Show who signs what: versions, thresholds, keys, expiry."""
    published = metadata.loaded(session.where)
    here = session.ring().files
    found = []
    for role in metadata.roles(published):
        meta = published.role(role)
        delegator = published.delegator(role)
        if meta:
            keys = [{"id": keyid, "here": keyid in here} for keyid in metadata.keys_of(delegator, role)]
            found.append({"role": role, "version": meta.signed.version, "keys": keys,
                          "threshold": metadata.role_of(delegator, role).threshold,
                          "expires": meta.signed.expires.isoformat()})
    if as_json:
        show(found)
        return
    for one in found:
        listed = ", ".join(f"{key['id'][:16]}{' (here)' if key['here'] else ''}" for key in one["keys"])
        click.echo(f"{one['role']:12} version {one['version']:<4} {one['threshold']} of {len(one['keys'])}  "
                   f"until {one['expires'][:10]}  {listed}")


@verb("rotate")
@click.argument("role")
@click.option("-a", "--add", multiple=True, type=PATH, metavar="FILE", help="Key that signs from now on (repeatable).")
@click.option("-r", "--remove", multiple=True, metavar="KEY",
              help="Key that signs no longer: the beginning of its id (repeatable).")
@click.option("-t", "--threshold", type=int, metavar="COUNT", help="How many keys must sign.")
@_new_passphrase
def rotate(session: Session, role: str, add: tuple[Path, ...], remove: tuple[str, ...], threshold: int | None,
           new_passphrase_file: Path | None) -> None:
    """Change the keys of ROLE, or replace all of them by one that is made here."""
    with session.working() as work:
        roles.rotate(work, role, add=add, remove=remove, threshold=threshold,
                     passphrase=first_line(new_passphrase_file) if new_passphrase_file else "")


@verb("revoke")
@click.argument("key")
@click.option("-w", "--replace-with", type=PATH, metavar="FILE", help="Key that takes its place (default: a new one).")
def revoke(session: Session, key: str, replace_with: Path | None) -> None:
    """Take a stolen or lost KEY (the beginning of its id) out of every role; print the roles.

    The versions of snapshot and timestamp that clients may have been given by a thief no longer count for them.
    """
    with session.working() as work:
        changed = roles.revoke(work, key, replace_with)
    click.echo("\n".join(changed))


@verb("renew")
@click.argument("role")
def renew(session: Session, role: str) -> None:
    """Have root, targets or a product line signed again, for as long as its days say."""
    with session.working() as work:
        roles.renew(work, role)


@verb("refresh")
@click.option("--force", is_flag=True, help="Also before half of the time is over.")
def refresh(session: Session, force: bool) -> None:
    """Sign snapshot and timestamp again before they expire; for cron, needs the online keys only.

    Prints nothing unless roles that cron can't sign expire within 30 days.
    """
    for line in roles.refresh(session.where, session.ring(), force=force):
        click.echo(line, err=True)


@verb("product")
@click.argument("name")
@click.option("--role-key", "files", multiple=True, type=PATH, metavar="FILE",
              help="Key that signs for the line (repeatable; default: one that is made here).")
@click.option("--threshold", type=int, default=1, show_default=True, help="How many of its keys must sign.")
@click.option("--remove", is_flag=True, help="Give the line up.")
@_new_passphrase
def product(session: Session, name: str, files: tuple[Path, ...], threshold: int, remove: bool,
            new_passphrase_file: Path | None) -> None:
    """Add the product line NAME, with keys of its own."""
    with session.working() as work:
        if remove:
            roles.remove_line(work, name)
        else:
            work.now()
            phrase = first_line(new_passphrase_file) if new_passphrase_file else ""
            roles.add_line(work, work.edit_targets(), name, roles.Signers(files, threshold), phrase)


VERBS = (init, show_roles, rotate, revoke, renew, refresh, product)
