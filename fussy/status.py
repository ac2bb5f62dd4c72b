"""Tells the state of a target: as values, which ``fussy status --json`` prints, and as lines for people.

``status.schema.json`` beside this module is the JSON schema of the values (:func:`schema` makes it).
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from fussy import check, enable, recycle, state, uptime
from fussy import trial as trials
from fussy.errors import SystemSetup
from fussy.moments import utc
from fussy.target import Target

SETTINGS = Path("/etc/fussy/update.toml")

Time = Annotated[int, msgspec.Meta(description="Unix time, by a clock that may be wrong")]


class Release(msgspec.Struct, frozen=True):
    """An installed release."""

    name: str
    version: str
    path: str


class OnTrial(Release, frozen=True):
    """A release that is not good yet. What it waits for: "installation": hooks or checks of its installation are still
    to come; "going back": it failed, and an earlier one is being brought back; "boot" or "hand": see "trial" in
    .fussy/release.json. The rest is about these two: seconds_left, of the time that the device is up, and boots_left
    decide when it is taken back."""

    waits_for: str
    since: Time | None = None
    until: Time | None = None
    seconds_left: int | None = None
    boots_left: int | None = None


class Update(msgspec.Struct, frozen=True):
    """What the updater did last. checked: when the channel was last found valid; outcome, line and at: how the last
    run ended, by what it heard from source; waiting: the version that is offered and not installed; next_window: when
    it, or what comes, may be (null: at any time). held and postponed: what the owner said by command, the hold with its
    end (null: none) and reason."""

    at: Time
    outcome: str
    line: str
    checked: Time | None
    source: str | None
    waiting: str | None
    next_window: Time | None
    held: bool
    postponed: Time | None
    held_until: Time | None
    hold_reason: str


class Status(msgspec.Struct, frozen=True):
    """The state of a target; what is absent is null. check: how the last self-check ended (fussy check); update:
    how the last run of the updater ended (fussy update); spare: bytes on the disk that are held for what the next
    release can be made of (fussy-clean --no-spare frees them)."""

    format: int
    target: str
    current: Release | None
    previous: Release | None
    failsafe: Release | None
    trial: OnTrial | None
    releases: list[Release]
    bad: list[state.Bad]
    last: state.Last | None
    check: check.Report | None
    update: Update | None
    floor: str
    boards: list[str]
    spare: int | None


def status(target: Target, settings: Path = SETTINGS) -> Status:
    """Return the state of TARGET; reads only, so it may be asked while another command works.

    SETTINGS are the updater's: they say when its window opens.
    """
    now = state.load(target)

    def of(name: str) -> Release | None:
        path = target.release(name)
        return Release(name, enable.description(path).version, str(path)) if name and path.is_dir() else None

    current = target.current_release()
    return Status(
        format=1, target=str(target.root), current=of(current.name) if current else None, previous=of(now.previous),
        failsafe=of("failsafe"), trial=_on_trial(now, of),
        releases=[release for path in target.releases() if (release := of(path.name))],
        bad=now.bad, last=now.last, check=check.load(target), update=_update(target, settings), floor=now.floor,
        boards=target.boards(), spare=recycle.room(target))


def schema() -> dict[str, Any]:
    """Return the JSON schema of what :func:`status` returns."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "fussy status --json",
            **msgspec.json.schema(Status)}


def _on_trial(now: state.State, of: Callable[[str], Release | None]) -> OnTrial | None:
    going = now.transaction or now.trial
    release = of(going.release) if going else None
    if going is None or release is None:
        return None
    facts = (release.name, release.version, release.path)
    if isinstance(going, state.Transaction):
        return OnTrial(*facts, "going back" if going.reason else "installation")
    seen = trials.seen(going, uptime.now())
    return OnTrial(*facts, going.confirm, going.since, going.until, max(0, round(going.seconds - seen.spent)),
                   max(0, going.most_boots - going.boots))


def _update(target: Target, settings: Path) -> Update | None:
    from fussy.updating import record

    last, owner = record.load(target), record.current(record.load_owner(target), state.now())
    opens = last.next_window or _opens(settings)
    if not last.at and not opens and owner == record.Owner():
        return None
    waiting = (last.waiting.version or last.waiting.release) if last.waiting else None
    return Update(last.at, last.outcome, last.line, last.checked or None, last.source or None, waiting, opens or None,
                  owner.held, owner.postponed or None, owner.held_until or None, owner.reason)


def _opens(settings: Path) -> int:
    """Return when the owner's window opens next, as a Unix time; 0 when there is none, when nothing is installed by
    itself, or when that can't be read."""
    from fussy import windows
    from fussy.updating import settings as owners

    try:
        own = owners.load(settings)
    except SystemSetup:
        return 0
    found = windows.parse(own.window) if own.mode == "automatic" else []
    return int(windows.opens(found, datetime.now()).timestamp()) if found else 0


def lines(found: Status) -> Iterator[str]:
    """Yield a status as lines for people."""
    yield f"target    {found.target}"
    for word, release in (("current", found.current), ("previous", found.previous), ("failsafe", found.failsafe)):
        if release or word == "current":
            version = f" (version {release.version})" if release and release.version else ""
            yield f"{word:9} {release.name if release else 'none'}{version}"
    if found.trial:
        yield f"trial     {found.trial.name}: {_waits(found.trial)}"
    if found.boards:
        yield f"board     {', '.join(found.boards)}"
    if found.floor:
        yield f"floor     {found.floor}"
    if found.last:
        reason = f": {found.last.reason}" if found.last.reason else ""
        yield f"last      {utc(found.last.at)} {found.last.release} {found.last.outcome}{reason}"
    if found.update:
        yield from _update_lines(found.update)
    if found.check:
        yield f"check     {utc(found.check.at)} {check.line(found.check)}"
    if found.spare is not None:
        yield f"spare     {found.spare / 1e6:.1f} MB of an old release, to make the next one of"
    for bad in found.bad:
        yield f"bad       {utc(bad.at)} {bad.release}: {bad.reason}"


def _waits(trial: OnTrial) -> str:
    if trial.seconds_left is None or trial.boots_left is None:
        return "going back" if trial.waits_for == "going back" else "hooks and checks of its installation"
    wanted = "say fussy confirm or fussy reject" if trial.waits_for == "hand" else "boot and pass its checks"
    return f"{-(-trial.seconds_left // 60)} minutes and {trial.boots_left} boots are left to {wanted}"


def _update_lines(update: Update) -> Iterator[str]:
    if update.at:
        yield f"update    {utc(update.at)} {update.line}"
    if update.checked:
        yield f"checked   {utc(update.checked)}"
    if update.source:
        yield f"source    {update.source}"
    if update.held:
        until = f" until {utc(update.held_until)}" if update.held_until else ""
        reason = f" ({update.hold_reason})" if update.hold_reason else ""
        yield f"hold      updates are held{until}{reason}; fussy hold --release ends that"
    if update.postponed:
        yield f"postponed until {utc(update.postponed)}"
    if update.next_window:
        yield f"window    {update.waiting or 'what comes'} may be installed from {utc(update.next_window)}"
