"""Sub-commands of ``fussy-publish`` about what is prepared, and about the channel as a whole."""

from pathlib import Path

import click

from fussy.errors import SystemSetup
from fussy.publishing import metadata
from fussy.publishing.places import locked
from fussy.publishing.session import PATH, Session, json_option, show, verb


@verb("sign")
@click.argument("files", nargs=-1, type=PATH)
def sign(session: Session, files: tuple[Path, ...]) -> None:
    """Sign prepared FILES (by default all that wait here) with the keys that are here; show what they change.

    On another machine CHANNEL may be a copy, of which only metadata/ is read, or a directory that is not there.
    """
    from fussy.publishing import signing

    published = metadata.load(session.where)
    ring = session.ring()
    chosen = files or sorted(session.where.prepared.glob("*.json"))
    signed = 0
    for path in chosen:
        for line in signing.describe(path, published):
            click.echo(line)
        for keyid in signing.sign_file(path, ring, published):
            click.echo(f"  signed by {keyid}")
            signed += 1
    if not chosen:
        raise SystemSetup(f"cannot sign: nothing is prepared in {session.where.prepared}; name files that are")
    if not signed:
        raise SystemSetup(f"cannot sign {', '.join(map(str, chosen))}: no key is here that "
                          "should and has not signed; name one with --key")


@verb("publish")
@click.argument("files", nargs=-1, type=PATH)
def publish(session: Session, files: tuple[Path, ...]) -> None:
    """Publish what is prepared and has enough signatures; take over those of FILES that were signed elsewhere.

    Also finishes what a killed command left.
    """
    from fussy.publishing import signing

    with session.working() as work:
        signing.take(work, files)


@verb("cancel")
def cancel(session: Session) -> None:
    """Throw away what is prepared and waits for signatures."""
    from fussy.publishing import signing

    with locked(session.where):
        for path in signing.cancel(session.where):
            click.echo(path)


@verb("verify")
@click.option("--root", type=PATH, help="Begin with this root, as devices do that have it (default: the first).")
@json_option
def verify(session: Session, root: Path | None, as_json: bool) -> None:
    """Follow the channel as a device does, and read every file."""
    from fussy.publishing import check, roles

    count = check.check(session.where, root)
    published = metadata.loaded(session.where)
    ending = roles.ending(published, list(metadata.roles(published)), 1)
    if as_json:
        show({"channel": str(session.where.channel), "targets": count, "root": published.root.signed.version,
              "timestamp": published.timestamp.signed.version, "ending": ending})
        return
    for line in ending:
        click.echo(line, err=True)
    click.echo(f"{session.where.channel}: good ({count} targets, root {published.root.signed.version})")


@verb("gc")
@click.option("--grace", type=float, metavar="DAYS", help="How long files stay (default: grace of settings.json).")
@click.option("-n", "--dry-run", is_flag=True, help="Only print what would go.")
def collect(session: Session, grace: float | None, dry_run: bool) -> None:
    """Stop offering what no device can need, and delete files that the channel has not named for some time.

    Prints each. Needs the keys of the product lines when there is something to stop.
    """
    from fussy.publishing import collect as garbage

    settings = session.where.settings()
    if not dry_run:
        with session.working() as work:
            for name in garbage.prune(work, settings.keep):
                click.echo(f"offered no longer: {name}")
    with locked(session.where):
        doomed = garbage.garbage(session.where, metadata.loaded(session.where),
                                 settings.grace if grace is None else grace)
        for path in doomed:
            click.echo(path)
        if not dry_run:
            garbage.delete(session.where, doomed)


VERBS = (sign, publish, cancel, verify, collect)
