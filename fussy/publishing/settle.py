"""Signs what changed, and publishes what has enough signatures.

Every change is a **draft**: the next version of a role, or the present one with more signatures. Drafts are saved in
the private directory first, so that a killed command is finished by the next. Then they go into the channel in steps,
each of which leaves a channel that any client can follow, whatever it fetched before:

1. More signatures for present metadata: when keys change, what is published is first signed by the new keys *too*.
2. New versions of product lines and targets, then a snapshot, and the timestamp last.
3. A new root, once all that it vouches for has the signatures that it asks for.

A draft for which no such step is possible yet waits for signatures.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tuf.api.metadata import Metadata, Root, Targets

from fussy import disk
from fussy.publishing import metadata
from fussy.publishing.errors import BadChannel, Waiting
from fussy.publishing.keyfiles import Ring
from fussy.publishing.metadata import Meta, Published
from fussy.publishing.places import ONLINE, TOP, Days, Places, locked

# A draft's role and version.
Name = tuple[str, int]


@dataclass
class Work:
    """A channel being changed: what is published, and the drafts of what shall be.

    ``touched``: the roles that this command changes; drafts of others may go on waiting. ``afterwards``: what is to be
    done when the drafts are published, or at least saved.
    """

    where: Places
    ring: Ring
    days: Days
    published: Published | None
    drafts: dict[Name, Meta] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    afterwards: list[Callable[[], object]] = field(default_factory=list)

    def now(self) -> Published:
        """Return what is published, which must be something."""
        return self.published or metadata.loaded(self.where)

    def edit(self, role: str) -> Meta:
        """Return the draft of the next version of a role, to be changed; the signatures it had are gone."""
        before = self.now().role(role)
        if before is None:
            self.now().product(role)
            raise BadChannel(f"cannot change {role}: it is not there")
        self.touched.add(role)
        name = (role, before.signed.version + 1)
        if name in self.drafts:
            self.drafts[name].signatures.clear()
            self.drafts[name].signed.expires = metadata.expiry(role, self.days)
        else:
            self.drafts[name] = metadata.next_version(before, role, self.days)
        return self.drafts[name]

    def edit_root(self) -> Root:
        root: Root = self.edit("root").signed
        return root

    def edit_targets(self, role: str = "targets") -> Targets:
        targets: Targets = self.edit(role).signed
        return targets


@contextmanager
def working(where: Places, ring: Ring) -> Iterator[Work]:
    """Lock the channel, give its drafts to be changed, and settle them when the block ends well.

    :raises Waiting: something was prepared and lacks signatures
    """
    with locked(where):
        work = Work(where, ring, where.settings().days, metadata.load(where))
        work.drafts = load_drafts(where, work.published)
        yield work
        settle(work)


def load_drafts(where: Places, published: Published | None) -> dict[Name, Meta]:
    """Return the drafts that were saved; those that what is published has overtaken are deleted."""
    found = {}
    for path in sorted(where.prepared.glob("*.json")):
        meta = metadata.read(path)
        role = path.name.split(".")[1]
        present = published.role(role) if published else None
        if present is not None and meta.signed.version <= present.signed.version and not (
                meta.signed.version == present.signed.version and set(meta.signatures) - set(present.signatures)):
            path.unlink()
        else:
            found[role, meta.signed.version] = meta
    return found


def settle(work: Work) -> None:
    """Sign the drafts with the keys that are here, save them, publish what can be.

    :raises Waiting: some that this command changed lack signatures
    """
    advance(work)
    for act in work.afterwards:
        act()
    if any(role in work.touched for role, _ in work.drafts):
        raise Waiting(explain(work))


def advance(work: Work) -> None:
    """Publish what can be; the other drafts stay."""
    sign_drafts(work)
    work.drafts |= cosigned(work)
    save_drafts(work)
    while step := next_step(work):
        publish(work, step)
        for name in step:
            del work.drafts[name]
            draft_path(work.where, name).unlink()


def save_drafts(work: Work) -> None:
    """Put all drafts in the place of those that were saved, in one step."""
    there, new = work.where.prepared, work.where.unsaved
    if not work.drafts and not any(there.iterdir()):
        return
    disk.empty(new)
    new.mkdir(mode=0o700, exist_ok=True)
    for name, meta in work.drafts.items():
        disk.replace_file(new / draft_path(work.where, name).name, meta.to_bytes())
    disk.exchange(new, there)
    disk.empty(new)


def draft_path(where: Places, name: Name) -> Path:
    return where.prepared / f"{name[1]}.{name[0]}.json"


def signers_of(work: Work, role: str) -> set[str]:
    """Return the ids of the keys whose signatures on ROLE can count: now, or once the drafts are published.

    For a client that has just looked for a new root and found none, the keys of the root before count too.
    """
    delegator = "root" if role in TOP else "targets"
    says = [meta.signed for (name, _), meta in work.drafts.items() if name == delegator]
    if work.published:
        says.append(work.published.delegator(role))
        says += [root.signed for root in work.published.roots[-2:-1]] if role in TOP else []
    return {keyid for one in says for keyid in metadata.keys_of(one, role)}


def sign(meta: Meta, keyids: set[str], ring: Ring) -> None:
    """Add the signatures of those keys that are here and have not signed yet."""
    for keyid in sorted(keyids - set(meta.signatures)):
        if signer := ring.signer(keyid):
            meta.sign(signer, append=True)


def sign_drafts(work: Work) -> None:
    for (role, _), meta in work.drafts.items():
        sign(meta, signers_of(work, role), work.ring)


def cosigned(work: Work) -> dict[Name, Meta]:
    """Return present metadata with more signatures, wherever a draft changes who must sign it."""
    found: dict[Name, Meta] = {}
    if work.published is None:
        return found
    for (delegator, _), draft in work.drafts.items():
        for role in changed_roles(work.published, delegator):
            present = work.published.role(role)
            if present is None or not metadata.keys_of(draft.signed, role):
                continue
            if metadata.missing(present, role, draft.signed):
                name = (role, present.signed.version)
                more = work.drafts.get(name) or copy.deepcopy(present)
                sign(more, signers_of(work, role), work.ring)
                found[name] = more
    return found


def changed_roles(published: Published, delegator: str) -> Sequence[str]:
    """Return the roles that a delegator says the keys of, itself left out."""
    return {"root": ("targets", *ONLINE), "targets": tuple(published.products)}.get(delegator, ())


def next_step(work: Work) -> dict[Name, Meta]:
    """Return drafts that can be published now, together; none when nothing can."""
    for step in candidates(work):
        after = result(work, step)
        if step and after is not None and not after.faults():
            return step
    return {}


def candidates(work: Work) -> Iterator[dict[Name, Meta]]:
    if work.published is None:
        yield dict(work.drafts)
        return
    present = {role: meta.signed.version for role in metadata.roles(work.published)
               if (meta := work.published.role(role))}
    more = {name: meta for name, meta in work.drafts.items() if present.get(name[0]) == name[1]}
    for name, meta in more.items():
        # worth publishing only once it serves who will ask for more signatures
        if any(not metadata.missing(meta, name[0], draft.signed) for (role, _), draft in work.drafts.items()
               if name[0] in changed_roles(work.published, role)):
            yield {name: meta}
    later = {name: meta for name, meta in work.drafts.items() if name not in more}
    lines = {name: meta for name, meta in later.items() if name[0] not in TOP}
    yield {name: meta for name, meta in later.items() if name[0] != "root"}
    for name, meta in lines.items():
        yield {name: meta}
    yield {name: meta for name, meta in later.items() if name[0] == "targets"}
    yield {name: meta for name, meta in later.items() if name[0] == "root"}


def result(work: Work, step: Mapping[Name, Meta]) -> Published | None:
    """Return what would be published after a step, with snapshot and timestamp signed by the keys that are here."""
    after = work.published
    if after is None:
        by_role = {role: meta for (role, _), meta in step.items()}
        if not {"root", "targets"} <= set(by_role):
            return None
        unsigned = Metadata(metadata.snapshot_of(None, {}, work.days).signed)
        after = Published((by_role["root"],), by_role["targets"], unsigned,
                          metadata.timestamp_of(None, unsigned, work.days))
        work_roles = {role: meta for role, meta in by_role.items() if role != "root"}
    else:
        work_roles = {role: meta for (role, _), meta in step.items()}
    versions = {}
    for role, meta in work_roles.items():
        before = work.published.role(role) if work.published else None
        new = before is None or before.signed.version != meta.signed.version
        if new and (role not in TOP or role == "targets"):
            versions[role] = meta.signed.version
        after = after.with_role(role, meta)
    return led_to(work, after, versions) if versions else after


def led_to(work: Work, after: Published, versions: Mapping[str, int]) -> Published:
    """Return AFTER with a new snapshot of VERSIONS, and a new timestamp."""
    before = work.published
    snapshot = metadata.snapshot_of(before.snapshot if before else None, versions, work.days)
    sign(snapshot, signers_of(work, "snapshot"), work.ring)
    return stamped(work, after.with_role("snapshot", snapshot))


def stamped(work: Work, after: Published) -> Published:
    """Return AFTER with a new timestamp for its snapshot."""
    timestamp = metadata.timestamp_of(work.published.timestamp if work.published else None, after.snapshot, work.days)
    sign(timestamp, signers_of(work, "timestamp"), work.ring)
    return after.with_role("timestamp", timestamp)


def publish(work: Work, step: Mapping[Name, Meta]) -> None:
    """Write a step: what is led to before what leads to it, the timestamp last."""
    after = result(work, step)
    if after is None or (wrong := after.faults()):
        raise BadChannel(f"cannot publish: {'; '.join(wrong) if after else 'there is no channel'}")
    write(work, after)


def write(work: Work, after: Published) -> None:
    """Write what AFTER has and the channel has not, and take it for what is published."""
    before = work.published
    for role in ("root", *sorted(after.products), "targets", *ONLINE):
        meta = after.role(role)
        if meta is not None and meta is not (before.role(role) if before else None):
            name = f"{role}.json" if role == "timestamp" else f"{meta.signed.version}.{role}.json"
            work.where.put(work.where.metadata / name, meta.to_bytes())
    work.published = after


def _demand(meta: Meta, role: str, delegator: Root | Targets) -> tuple[int, tuple[str, ...]] | None:
    """Return how many signatures META lacks by what DELEGATOR says, and the keys that can make them; None: it lacks
    none."""
    lacks = metadata.missing(meta, role, delegator)
    able = sorted(keyid[:16] for keyid in set(metadata.keys_of(delegator, role)) - set(meta.signatures))
    return (lacks, tuple(able)) if lacks else None


def explain(work: Work) -> str:
    """Say which drafts wait, and for whose signatures."""
    lines = []
    for name, meta in sorted(work.drafts.items()):
        role = name[0]
        delegator = "root" if role in TOP else "targets"
        says = [draft.signed for (other, _), draft in work.drafts.items() if other == delegator]
        if work.published and (role == "root" or not says):
            says.insert(0, work.published.delegator(role))
        # a new root is for those who trust the old one, too
        demands = list(dict.fromkeys(demand for one in says if (demand := _demand(meta, role, one))))
        which = ("old keys", "new keys") if len(demands) > 1 else ("keys",)
        if demands:
            needed = " and ".join(f"{lacks} more of the {keys} {', '.join(able)}"
                                  for keys, (lacks, able) in zip(which, demands, strict=True))
            lines.append(f"{draft_path(work.where, name)} needs {needed}")
    if not lines:
        return ("cannot publish yet: all is signed, but the online keys of snapshot and timestamp are not here; run "
                "fussy-publish CHANNEL publish where they are, or name them with --key")
    return (f"cannot publish yet: {'; '.join(lines)}; have that signed (fussy-publish CHANNEL sign), then run "
            "fussy-publish CHANNEL publish")
