"""Who signs what: a new channel, other keys, other expiry, product lines."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, Targets

from fussy.errors import SystemSetup
from fussy.publishing import keyfiles, metadata, settle
from fussy.publishing.keyfiles import Ring
from fussy.publishing.metadata import Published
from fussy.publishing.places import ONLINE, TOP, Places, Settings, check_product, locked
from fussy.publishing.settle import Work

log = logging.getLogger(__name__)

# Days before the end of what no cron job can sign at which it is time to do so by hand.
SOON = 30
ONLINE_KEY = "online"


@dataclass(frozen=True)
class Signers:
    """Who signs for a role: THRESHOLD of the keys in these files; without files a key is made."""

    files: Sequence[Path] = ()
    threshold: int = 1


def init(where: Places, ring: Ring, products: Sequence[str], signers: Mapping[str, Signers], settings: Settings,
         passphrase: str = "") -> None:
    """Make a channel with these PRODUCTS. Roles that SIGNERS does not name get a key of their own, made here.

    Snapshot and timestamp share the key ``online``. PASSPHRASE protects the keys that are made for other roles.

    :raises Waiting: roles have keys that are not here
    :raises SystemSetup: there is a channel already
    """
    if not products:
        raise SystemSetup("cannot make a channel without a product line; name one with --product")
    for product in products:
        check_product(product)
    if strangers := set(signers) - {*TOP, *products}:
        raise SystemSetup(f"cannot give keys to {', '.join(sorted(strangers))}: there are the roles "
                          f"{', '.join((*TOP, *products))}")
    with locked(where):
        if metadata.load(where) or any(where.prepared.glob("*.json")):
            raise SystemSetup(f"cannot make a channel in {where.channel}: there is one already, or one is prepared; "
                              "see fussy-publish CHANNEL roles, and publish")
        where.save_settings(settings)
        days = settings.days
        root = Root(expires=metadata.expiry("root", days), consistent_snapshot=True)
        targets = Targets(expires=metadata.expiry("targets", days), delegations=Delegations({}, {}))
        work = Work(where, ring, days, None)
        for role in TOP:
            keys = keys_for(work, role, signers.get(role, Signers()), passphrase)
            metadata.set_keys(root, role, keys, signers.get(role, Signers()).threshold)
        for product in products:
            add_line(work, targets, product, signers.get(product, Signers()), passphrase)
        work.touched.add("root")
        work.drafts |= {("root", 1): Metadata(root), ("targets", 1): Metadata(targets)}
        settle.settle(work)


def keys_for(work: Work, role: str, wanted: Signers, passphrase: str = "") -> list[Key]:
    """Return the public keys of a role; a key that has to be made is made, and signs from now on."""
    if wanted.files:
        return [keyfiles.public_of(path, work.ring.ask) for path in wanted.files]
    path = work.where.keys / f"{ONLINE_KEY}-1.pem"
    if role not in ONLINE or work.published or not path.exists():
        path = keyfiles.free_name(work.where.keys, ONLINE_KEY if role in ONLINE else role)
        keyfiles.make(path, "" if role in ONLINE else passphrase)
        log.info("made the key %s", path)
    work.ring = work.ring.also(path)
    return [keyfiles.public_of(path, work.ring.ask)]


def add_line(work: Work, targets: Targets, product: str, wanted: Signers, passphrase: str = "") -> None:
    """Delegate a new product line, which offers nothing yet."""
    check_product(product)
    work.touched.add(product)
    delegations = targets.delegations or Delegations({}, {})
    lines = delegations.roles if delegations.roles is not None else {}
    if product in lines:
        raise SystemSetup(f"cannot add the product line {product}: there is one of this name")
    targets.delegations = delegations
    lines[product] = DelegatedRole(product, [], 1, terminating=True, paths=[f"{product}/*"])
    metadata.set_keys(targets, product, keys_for(work, product, wanted, passphrase), wanted.threshold)
    # the versions of a line that had this name before are not used again: clients refuse to go back
    before = work.published.snapshot.signed.meta.get(f"{product}.json") if work.published else None
    version = before.version + 1 if before else 1
    offers = Targets(version, expires=metadata.expiry(product, work.days))
    work.drafts[product, version] = Metadata(offers)


def remove_line(work: Work, product: str) -> None:
    """Give up a product line: its devices find nothing any more."""
    work.now().product(product)
    targets = work.edit_targets()
    for keyid in list(metadata.keys_of(targets, product)):
        targets.revoke_key(keyid, product)
    if targets.delegations and targets.delegations.roles:
        del targets.delegations.roles[product]


def delegator_of(work: Work, role: str) -> Root | Targets:
    """Return the draft of who says which keys sign for ROLE."""
    if role not in TOP:
        work.now().product(role)
        return work.edit_targets()
    return work.edit_root()


def rotate(work: Work, role: str, *, add: Sequence[Path] = (), remove: Sequence[str] = (), threshold: int | None = None,
           passphrase: str = "") -> None:
    """Change who signs for a role: ADD keys from files, REMOVE some by (the beginning of) their ids.

    Without either, and without a new threshold, all its keys are replaced by a new one that is made here.
    """
    delegator = delegator_of(work, role)
    before = metadata.keys_of(delegator, role)
    if not add and not remove and threshold is None:
        metadata.set_keys(delegator, role, keys_for(work, role, Signers(), passphrase), 1)
        return
    gone = {one_of(before, wanted) for wanted in remove}
    added = [keyfiles.public_of(path, work.ring.ask) for path in add]
    kept = [key for keyid, key in before.items() if keyid not in gone]
    metadata.set_keys(delegator, role, [*kept, *added], threshold or metadata.role_of(delegator, role).threshold)


def revoke(work: Work, key: str, replacement: Path | None = None) -> list[str]:
    """Take a key out of every role that it signs for; return the roles. Another takes its place: made here, or given.

    :raises SystemSetup: no role has such a key
    """
    published = work.now()
    held = {role: metadata.keys_of(published.delegator(role), role) for role in metadata.roles(published)}
    holders = {role: keys for role, keys in held.items() if any(keyid.startswith(key) for keyid in keys)}
    if not holders:
        raise SystemSetup(f"cannot revoke {key}: no role has a key of that id; see fussy-publish CHANNEL roles")
    made: list[Key] = []
    for role, before in holders.items():
        delegator = delegator_of(work, role)
        stolen = one_of(before, key)
        if replacement:
            made = [keyfiles.public_of(replacement, work.ring.ask)]
        elif not made:
            made = keys_for(work, role, Signers())
        kept = [one for keyid, one in metadata.keys_of(delegator, role).items() if keyid != stolen]
        metadata.set_keys(delegator, role, [*kept, *made], metadata.role_of(delegator, role).threshold)
    return list(holders)


def one_of(keys: Mapping[str, Key], wanted: str) -> str:
    """Return the only key id that begins with WANTED."""
    found = [keyid for keyid in keys if keyid.startswith(wanted)]
    if len(found) != 1:
        raise SystemSetup(f"cannot find the key {wanted}: {len(found)} of the role's keys have an id that begins so; "
                          "see fussy-publish CHANNEL roles")
    return found[0]


def renew(work: Work, role: str) -> None:
    """Have a role sign again what it says, with new expiry."""
    if role in ONLINE:
        raise SystemSetup(f"cannot renew {role}: refresh does that")
    work.edit(role)


def refresh(where: Places, ring: Ring, *, force: bool = False) -> list[str]:
    """Sign snapshot and timestamp again, when half of their time is over; return what will expire within 30 days.

    Needs the online keys only. What an interrupted command left is finished first.

    :raises Waiting: the online keys are not here
    """
    with locked(where):
        work = Work(where, ring, where.settings().days, metadata.load(where))
        work.drafts = settle.load_drafts(where, work.published)
        settle.advance(work)
        after = published = work.now()
        if force or half_over(published, "snapshot", work):
            after = settle.led_to(work, published, {})
        elif half_over(published, "timestamp", work):
            after = settle.stamped(work, published)
        if after is not published:
            if wrong := after.faults():
                raise SystemSetup(f"cannot refresh {where.channel}: {'; '.join(wrong)}; bring the online keys here, "
                                  "or name them with --key")
            settle.write(work, after)
        return ending(after, [role for role in metadata.roles(after) if role not in ONLINE], SOON)


def half_over(published: Published, role: str, work: Work) -> bool:
    meta = published.role(role)
    return meta is None or meta.signed.expires - datetime.now(UTC) < timedelta(days=work.days.of(role) / 2)


def ending(published: Published, names: Sequence[str], days: float) -> list[str]:
    """Return in words which roles expire within so many DAYS."""
    found = []
    for role in names:
        meta = published.role(role)
        if meta and meta.signed.expires - datetime.now(UTC) < timedelta(days=days):
            how = "refresh" if role in ONLINE else f"renew {role}"
            found.append(f"{role} expires {meta.signed.expires:%Y-%m-%d}; run fussy-publish CHANNEL {how}")
    return found
