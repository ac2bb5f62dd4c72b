"""The page about the firmware: what is in use and why, what comes next, and what its owner wants."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from starlette.responses import Response

from fussy.errors import FussyError
from fussy.status import Release, Status
from fussy.updating import history, hold, record
from fussy.updating import settings as owners
from paradrop.backend.pages.overview import firmware_facts
from paradrop.backend.pages.showing import go, show
from paradrop.backend.pages.visit import Visit
from paradrop.backend.pdfcd.problems import Problem
from paradrop.lib import firmware, settings

EVENTS = 15


@dataclass(frozen=True)
class Row:
    """A release, what it is here, and why it is no longer trusted, if so."""

    release: Release
    roles: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class Action:
    """A command about the firmware. ``warning``: what it means; without one nobody is asked again."""

    command: Callable[[], list[str]]
    label: str
    warning: str = ""


ACTIONS = {
    "check": Action(lambda: [*firmware.update_command(), "--check"], "Look for updates"),
    "upgrade": Action(lambda: firmware.update_command(insist=True), "Upgrade now",
                      "The newest release that is there for this router is fetched, verified and installed at once, "
                      "whatever hold and window say. The router's services stop for a moment. If the new release does "
                      "not work, the one in use now comes back by itself."),
    "confirm": Action(lambda: ["confirm"], "Keep this release",
                      "The trial ends, and the release stays in use. It is not taken back by itself any more."),
    "reject": Action(lambda: ["reject", "--reason", "rejected on the router's page"], "Take it back",
                     "The release before comes back with the settings and chutes it had, and this one is not installed "
                     "again by itself."),
    "previous": Action(lambda: ["rollback"], "Go back to the release before",
                       "The release before comes back with the settings and chutes it had when it was left. The "
                       "router's services stop for a moment."),
}


def show_firmware(visit: Visit) -> Response:
    """Show the releases, the updates and what can be done."""
    facts = firmware_facts()
    found: Status | None = facts["status"]
    return show(visit, "firmware.html", part="part" in visit.query, **facts, rows=list(rows(found)) if found else [],
                target=settings.FIRMWARE_TARGET, work=firmware.last(), said=firmware.said(),
                program=firmware.program(), busy=_busy(), **_owner())


def rows(found: Status) -> Iterator[Row]:
    """Yield the releases, those that matter most first, with the reasons of those that failed."""
    bad = {one.release: one.reason for one in found.bad}
    marks = (("in use", found.current), ("on trial", found.trial), ("before", found.previous),
             ("last resort", found.failsafe))
    order = [release.name for _, release in marks if release]
    for release in sorted(found.releases, key=lambda one: order.index(one.name) if one.name in order else len(order)):
        roles = tuple(word for word, one in marks if one and one.name == release.name)
        yield Row(release, roles, bad.get(release.name, ""))


def ask(visit: Visit) -> Response:
    """Ask whether something shall really be done."""
    return show(visit, "firmware_ask.html", action=_action(visit), name=visit.path["action"], **firmware_facts())


def do(visit: Visit) -> Response:
    """Start a command, or note what the owner wants."""
    name = visit.path["action"]
    if name == "hold":
        _hold(visit)
    elif name == "release":
        hold.release(_target())
    elif name == "window":
        owners.set_window(firmware.owner_file(), visit.fields.get("window", "").strip())
    else:
        firmware.start(_action(visit).command())
    return go("/firmware")


def _hold(visit: Visit) -> None:
    hold.hold(_target(), visit.fields.get("until", "").strip(), visit.fields.get("reason", "").strip()[:200])


def _action(visit: Visit) -> Action:
    action = ACTIONS.get(visit.path["action"])
    if action is None:
        raise Problem(404, "the firmware has no such button")
    return action


def _target() -> Path:
    found = firmware.target()
    if found is None:
        raise Problem(409, f"this router has no releases in {settings.FIRMWARE_TARGET}")
    return found.root


def _busy() -> bool:
    last = firmware.last()
    return last is not None and last.exit_code is None


def _owner() -> dict[str, Any]:
    """Return what the owner has set, what the updater found last, and what it did before."""
    facts: dict[str, Any] = {"owner": None, "updates": None, "events": [], "update_settings": None,
                             "settings_trouble": ""}
    found = firmware.target()
    if found is not None:
        asked = record.current(record.load_owner(found), int(datetime.now().timestamp()))
        facts |= {"owner": asked if asked.held else None, "updates": record.load(found),
                  "events": history.read(record.place(found), EVENTS)[::-1]}
    try:
        facts["update_settings"] = firmware.owner_settings()
    except FussyError as error:
        facts["settings_trouble"] = str(error)
    return facts
