"""The command line ``fussy-publish``, also ``fussy publish``: sub-commands about releases; see also rolecli."""

from pathlib import Path
from typing import Any

import click

from fussy.commands import start_logging
from fussy.publishing import places, rolecli, signcli
from fussy.publishing.session import PATH, Session, given, json_option, show, size, verb


@click.group("fussy-publish", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("channel", type=PATH)
@click.option("--private", type=PATH, help="The publisher's own directory (default: CHANNEL.private beside it).")
@click.option("-k", "--key", "keys", multiple=True, type=PATH, metavar="FILE",
              help="Key that signs, beside those of the private directory (repeatable).")
@click.option("--key-passphrase-file", type=PATH, help="First line: pass-phrase of the channel's keys.")
@click.option("-v", "--verbose", is_flag=True, help="Show the log on stderr.")
@click.pass_context
def publish(context: click.Context, channel: Path, private: Path | None, keys: tuple[Path, ...],
            key_passphrase_file: Path | None, verbose: bool) -> None:
    """Make and maintain CHANNEL, a directory of signed files that routers follow."""
    start_logging(verbose)
    context.obj = Session(places.places(channel, private), keys, key_passphrase_file)


def making(function: Any) -> Any:
    """Options of what makes deltas and parts."""
    for option in (
        click.option("--deltas", type=int, metavar="COUNT",
                     help="Make deltas from as many earlier releases (default: keep of settings.json)."),
        click.option("--memory", type=click.IntRange(1, 32), metavar="MIB",
                     help="What devices may need to apply a delta (default: memory of settings.json, 8)."),
        click.option("--parts", is_flag=True, help="Also make parts, of which routers repair single files."),
        click.option("-e", "--encrypt-for", multiple=True, metavar="KEY",
                     help="Encrypt for this OpenPGP key instead of those of settings.json (repeatable)."),
        click.option("--sign-with", metavar="KEY", help="Sign with this OpenPGP key."),
        click.option("--passphrase-file", type=PATH, help="First line: pass-phrase of the OpenPGP key."),
    ):
        function = option(function)
    return facts(function)


def facts(function: Any) -> Any:
    """Options of what is said of a release."""
    for option in (
        click.option("--percent", type=float, help="Roll out to as many of a hundred devices (default 100)."),
        click.option("--window", help="When to install it, as 02:00-05:00; the owner's own window goes before it."),
        click.option("--security/--no-security", default=None, help="It mends a security fault."),
        click.option("--notes", help="What is new, for people."),
        click.option("--floor", metavar="VERSION", help="Devices refuse versions below once they have it."),
    ):
        function = option(function)
    return function


def wish(session: Session, options: dict[str, Any]) -> Any:
    """Return how a release is to be offered."""
    from fussy.publishing.packing import Sealing
    from fussy.publishing.releases import Wish

    settings = session.where.settings()
    sealing = Sealing(options.pop("sign_with") or settings.sign_with or None,
                      options.pop("encrypt_for") or settings.encrypt_for, options.pop("passphrase_file"))
    deltas = options.pop("deltas")
    return Wish(settings.keep if deltas is None else deltas, options.pop("memory") or settings.memory,
                options.pop("parts"), sealing, given(**options))


def report(added: Any, as_json: bool) -> None:
    """Print the targets that were made."""
    if as_json:
        show([{"path": one.path, "length": one.length, "sha256": one.hashes["sha256"], **one.custom} for one in added])
        return
    for one in added:
        click.echo(f"{one.path}  {size(one.length)}")


@verb("add")
@click.argument("product")
@click.argument("what", type=click.Path(path_type=Path, exists=True))
@click.option("-V", "--firmware-version", metavar="VERSION", help="Version of a tree that is packed.")
@click.option("-c", "--compatible", multiple=True, metavar="BOARD", help="Board that a tree is for (repeatable).")
@making
@json_option
def add(session: Session, product: str, what: Path, firmware_version: str | None, compatible: tuple[str, ...],
        as_json: bool, **options: Any) -> None:
    """Offer WHAT in a product line: a bundle, or a directory to pack; with deltas from earlier releases."""
    from fussy.publishing import releases

    wanted = wish(session, options)
    with session.working() as work:
        work.now().product(product)
        bundle = releases.pack_tree(what, work, wanted.sealing, version=firmware_version, compatible=compatible) \
            if what.is_dir() else what
        added = releases.add(work, product, bundle, wanted)
        releases.trim(work, product, session.where.settings().keep)
    report(added, as_json)


@verb("promote")
@click.argument("product")
@click.argument("release")
@click.argument("other")
@making
@json_option
def promote(session: Session, product: str, release: str, other: str, as_json: bool, **options: Any) -> None:
    """Offer a RELEASE of one product line in OTHER too, for instance from beta to stable."""
    from fussy.publishing import releases

    wanted = wish(session, options)
    with session.working() as work:
        added = releases.promote(work, product, release, other, wanted)
        releases.trim(work, other, session.where.settings().keep)
    report(added, as_json)


@verb("set")
@click.argument("product")
@click.argument("release")
@facts
def change(session: Session, product: str, release: str, **options: Any) -> None:
    """Change what is said of a RELEASE on offer: how far it is rolled out, when it should be installed, notes."""
    from fussy.publishing import releases

    said = given(**options)
    if not said:
        raise click.UsageError("say what to change: --percent, --window, --security, --notes or --floor")
    with session.working() as work:
        releases.change(work, product, release, said)


@verb("rollout")
@click.argument("product")
@click.argument("release")
@click.argument("percent", type=float)
def rollout(session: Session, product: str, release: str, percent: float) -> None:
    """Roll a RELEASE out to PERCENT of the devices; those that had it offered keep it when you raise the number."""
    from fussy.publishing import releases

    with session.working() as work:
        releases.change(work, product, release, {"percent": percent})


@verb("withdraw")
@click.argument("product")
@click.argument("release")
def withdraw(session: Session, product: str, release: str) -> None:
    """Offer a RELEASE no longer. Devices that have it keep it, and get the next one by delta."""
    from fussy.publishing import releases

    with session.working() as work:
        releases.withdraw(work, product, release)


@verb("list")
@click.argument("product", required=False)
@json_option
def listing(session: Session, product: str | None, as_json: bool) -> None:
    """List the releases on offer, the newest first."""
    from fussy.publishing import metadata, offers

    published = metadata.loaded(session.where)
    names = [product] if product else sorted(published.products)
    found = {name: list(reversed(offers.releases(published.product(name)))) for name in names}
    if as_json:
        show({name: [summary(one) for one in there] for name, there in found.items()})
        return
    for name, there in found.items():
        click.echo(name)
        for one in there:
            facts = summary(one)
            parts = f", {_count(facts['parts'], 'part')}" if facts["parts"] else ""
            click.echo(f"  {one.full.release:24} {one.full.version or '-':12} {one.full.percent:g} %  "
                       f"{size(facts['full']['length'])}, {_count(facts['deltas'], 'delta')}{parts}")


def _count(files: list[Any], kind: str) -> str:
    return f"{len(files)} {kind}{'s' * (len(files) != 1)}"


def summary(release: Any) -> dict[str, Any]:
    """Return a release on offer as JSON has it."""
    from fussy.publishing import offers

    def target(one: Any) -> dict[str, Any]:
        offer = offers.offer_of(one)
        extra = {"base": offer.base} if offer.base else {"first": offer.first, "last": offer.last} \
            if offer.kind == "part" else {}
        return {"path": one.path, "length": one.length, "sha256": one.hashes["sha256"], **extra}

    full = release.full
    return {"release": full.release, "version": full.version, "digest": full.digest, "compatible": full.compatible,
            "upgrade_from": full.upgrade_from, "floor": full.floor, "installer": full.installer,
            "size_installed": full.size_installed, "percent": full.percent, "seed": full.seed, "window": full.window,
            "security": full.security, "notes": full.notes, "full": target(release.of_kind("full")[0]),
            "deltas": [target(one) for one in release.of_kind("delta")],
            "parts": [target(one) for one in release.of_kind("part")]}


@verb("show")
@click.argument("product")
@click.argument("release")
@json_option
def show_release(session: Session, product: str, release: str, as_json: bool) -> None:
    """Show all that is said of a RELEASE on offer."""
    from fussy.publishing import metadata, offers

    found = summary(offers.named(metadata.loaded(session.where).product(product), release))
    if as_json:
        show(found)
        return
    files = [found.pop("full"), *found.pop("deltas"), *found.pop("parts")]
    for name, value in found.items():
        if value or name == "percent":
            click.echo(f"{name:15} {', '.join(value) if isinstance(value, list) else value}")
    for one in files:
        click.echo(f"{size(one['length']):15} {one['path']}")


for sub in (add, promote, change, rollout, withdraw, listing, show_release, *rolecli.VERBS, *signcli.VERBS):
    publish.add_command(sub)


def main() -> None:
    """Run ``fussy-publish``."""
    publish(prog_name="fussy-publish")


def get_options() -> click.Command:
    """Return the command line of ``fussy publish``."""
    return publish
