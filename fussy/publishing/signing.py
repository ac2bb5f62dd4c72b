"""Signing on another machine: who has a key looks at a prepared file, signs it, and gives it back."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tuf.api.metadata import Root, Targets

from fussy import disk
from fussy.errors import SystemSetup
from fussy.publishing import metadata, offers, settle
from fussy.publishing.keyfiles import Ring
from fussy.publishing.metadata import Published
from fussy.publishing.places import TOP, Places
from fussy.publishing.settle import Work


def role_in(path: Path) -> str:
    """Return the role that a prepared file is for, by its name N.ROLE.json."""
    parts = path.name.split(".")
    if len(parts) != 3 or not parts[0].isdigit() or parts[2] != "json":
        raise SystemSetup(f"cannot sign {path}: its name is not VERSION.ROLE.json; name a file of prepared/")
    return parts[1]


def sign_file(path: Path, ring: Ring, published: Published | None) -> list[str]:
    """Add the signatures of the keys that are here and can count; return the ids of those that signed."""
    meta = metadata.read(path)
    before = set(meta.signatures)
    settle.sign(meta, asked(path, published) or set(ring.files), ring)
    if added := sorted(set(meta.signatures) - before):
        disk.replace_file(path, meta.to_bytes())
    return added


def asked(path: Path, published: Published | None) -> set[str]:
    """Return the ids of the keys whose signatures on a prepared file count, by what is published or prepared beside it.

    There are none where neither is here.
    """
    role = role_in(path)
    says: list[Root | Targets] = [
        metadata.read(one).signed for one in path.parent.glob(f"*.{'root' if role in TOP else 'targets'}.json")]
    if published:
        says += [root.signed for root in published.roots[-2:]] if role in TOP else [published.delegator(role)]
    return {keyid for one in says for keyid in metadata.keys_of(one, role)}


def take(work: Work, files: Sequence[Path]) -> None:
    """Take over the signatures of files that come back; all that is prepared is to be published.

    :raises SystemSetup: a file is not of what is prepared
    """
    work.touched |= {role for role, _ in work.drafts}
    for path in files:
        meta = metadata.read(path)
        name = (role_in(path), meta.signed.version)
        if name not in work.drafts or work.drafts[name].signed != meta.signed:
            raise SystemSetup(f"cannot publish {path}: it is not what is prepared here; sign the file in "
                              f"{work.where.prepared}")
        for keyid, signature in meta.signatures.items():
            work.drafts[name].signatures.setdefault(keyid, signature)


def cancel(where: Places) -> list[Path]:
    """Throw away what is prepared."""
    doomed = sorted(where.prepared.glob("*.json"))
    for path in doomed:
        path.unlink()
    return doomed


def describe(path: Path, published: Published | None) -> Iterator[str]:
    """Yield what a prepared file changes, in lines for who is to sign it.

    That is told by what is published here, or else by the version before it that lies beside it.
    """
    role, meta = role_in(path), metadata.read(path)
    yield f"{role} version {meta.signed.version}, valid until {meta.signed.expires:%Y-%m-%d}"
    beside = path.with_name(f"{meta.signed.version - 1}.{role}.json")
    before = published.role(role) if published else metadata.read(beside) if beside.exists() else None
    if before is None and meta.signed.version > 1:
        yield f"  all is shown as new: put {beside.name} of the channel's metadata beside it to see what changes"
    signed, old = meta.signed, before.signed if before else None
    if isinstance(signed, Root | Targets):
        yield from key_changes(signed, old if isinstance(old, Root | Targets) else None)
    if isinstance(signed, Targets):
        yield from offer_changes(signed, old if isinstance(old, Targets) else None)


def key_changes(new: Root | Targets, old: Root | Targets | None) -> Iterator[str]:
    """Yield which keys and thresholds of roles change."""
    for role in delegated(new):
        keys, before = set(metadata.keys_of(new, role)), set(metadata.keys_of(old, role)) if old else set()
        threshold = metadata.role_of(new, role).threshold
        was = metadata.role_of(old, role).threshold if old and before else 0
        yield from (f"  {role}: + key {keyid}" for keyid in sorted(keys - before))
        yield from (f"  {role}: - key {keyid}" for keyid in sorted(before - keys))
        if threshold != was:
            yield f"  {role}: {threshold} of {len(keys)} must sign"
    for role in set(delegated(old)) - set(delegated(new)) if old else ():
        yield f"  {role}: given up"


def delegated(signed: Root | Targets) -> list[str]:
    if isinstance(signed, Root):
        return list(TOP)
    return list(signed.delegations.roles or {}) if signed.delegations else []


def offer_changes(new: Targets, old: Targets | None) -> Iterator[str]:
    """Yield which releases come, go or change."""
    now = {one.full.digest: one for one in offers.releases(new)}
    then = {one.full.digest: one for one in offers.releases(old)} if old else {}
    for digest, one in now.items():
        offer = one.full
        said = f"{offer.release} (version {offer.version or '-'}, {offer.percent:g} %, {len(one.targets)} files)"
        if digest not in then:
            yield f"  + {said} {digest}"
        elif one.targets != then[digest].targets:
            yield f"  ~ {said} {digest}"
    yield from (f"  - {one.full.release} {digest}" for digest, one in then.items() if digest not in now)


