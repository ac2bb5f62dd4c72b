"""The operations of ``/api/v1`` on the router: its status, its configuration and its log."""

import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

import fussy
from paradrop.backend.pdfcd.apichute import submit_config
from paradrop.backend.pdfcd.journal import Journal
from paradrop.backend.pdfcd.opchanges import ChangeView, view_of_change
from paradrop.backend.pdfcd.operations import Accepted, Body, Call, Operation, Text, View
from paradrop.backend.pdfcd.problems import Problem
from paradrop.lib import settings
from paradrop.lib.config import osconfig
from paradrop.lib.utils import uci, ucitext
from paradrop.lib.utils.ucitext import Section

CONFIG_SECONDS = 60.0
Word = Annotated[str, Meta(pattern="^[A-Za-z0-9_.:@+-]+$", max_length=64)]


class StatusView(View, frozen=True):
    """How the router is. Times are Unix seconds; ``chutes`` counts them by state, ``changes`` those not done yet."""

    version: str
    started: float
    uptime: float
    chutes: dict[str, int]
    changes: int


class SectionView(View, frozen=True):
    """A section of a configuration file. ``owner``: the chute it belongs to, or the router itself, __PARADROP__."""

    type: str
    name: str | None
    owner: str | None
    options: dict[str, str]
    lists: dict[str, list[str]]


class AppliedView(View, frozen=True):
    """Whether a section of the configuration is in effect, and if not, why."""

    type: str
    name: str
    owner: str | None
    success: bool
    error: str | None


class NewSection(Body, frozen=True):
    """A section for a configuration file."""

    type: Word
    name: Word | None = None
    options: dict[str, str] = {}
    lists: dict[str, list[str]] = {}


class NewConfig(Body, frozen=True):
    """The sections that a file shall have, besides those of chutes."""

    sections: list[NewSection]


class JournalQuery(Body, frozen=True):
    """Which part of the log: records since a time (Unix seconds), the last ``tail`` of these."""

    follow: bool = False
    since: Annotated[float, Meta(ge=0)] = 0
    tail: Annotated[int, Meta(ge=0, le=10000)] = 200


def get_status(call: Call) -> StatusView:
    """Show how the router is."""
    counts: dict[str, int] = {}
    for chute in call.rest.storage.getChuteList():
        counts[chute.state] = counts.get(chute.state, 0) + 1
    return StatusView(
        version=fussy.__version__, started=call.rest.started, uptime=time.time() - call.rest.started, chutes=counts,
        changes=sum(change.state != "done" for change in call.rest.changes.all()))


def get_config(call: Call) -> dict[str, list[SectionView]]:
    """Show the configuration: the sections of each UCI file, passwords included."""
    return {path.name: _sections(path) for path in _config_files()}


def get_config_file(call: Call) -> list[SectionView]:
    """Show the sections of one UCI file, passwords included."""
    for path in _config_files():
        if path.name == call.path["file"]:
            return _sections(path)
    raise Problem(404, f"there is no configuration file {call.path['file']}")


def put_config_file(call: Call) -> Accepted:
    """Replace the router's own sections of one UCI file; if any then fails, the old ones come back."""
    if call.path["file"] not in osconfig.FILES:
        raise Problem(404, f"there is no configuration file {call.path['file']}; there are {', '.join(osconfig.FILES)}")
    sections: list[Section] = []
    for section in call.body.sections:
        if "list" in section.options:
            raise Problem(422, "cannot keep an option called list: the name stands for the lists of a section")
        title = {"type": section.type} | ({"name": section.name} if section.name else {})
        sections.append((title, {**section.options, **({"list": section.lists} if section.lists else {})}))
    ucitext.render(ucitext.Document(sections))
    change = submit_config(call.rest, call.path["file"], sections, call.user)
    return Accepted(view_of_change(change), f"/api/v1/changes/{change.id}")


def get_applied(call: Call) -> list[AppliedView]:
    """Show which sections of the configuration are in effect."""
    from paradrop.backend.pdconfd import client

    return _applied(_within(client.waitSystemUp))


def reload_config(call: Call) -> list[AppliedView]:
    """Bring what runs in line with the configuration files."""
    from paradrop.backend.pdconfd import client

    return _applied(_within(client.reloadAll))


def get_log(call: Call) -> Text:
    """Read the daemon's log, one JSON object a line."""
    assert call.rest.journal is not None
    return Text(_log(call.rest.journal, call.query))


async def _log(journal: Journal, query: JournalQuery) -> AsyncIterator[str]:
    records = journal.getLogsSince(query.since)
    wanted = min(query.tail, len(records))
    if query.follow:
        async for text in journal.feed.follow(wanted, journal.left_out):
            yield text
    else:
        yield "".join(json.dumps(record) + "\n" for record in records[len(records) - wanted:])


def _within(ask: Callable[[], str | None]) -> str | None:
    """Return what the configuration daemon answers; Problem 503 if it takes longer than a client would wait."""
    answers: list[str | None] = []
    thread = threading.Thread(target=lambda: answers.append(ask()), daemon=True)
    thread.start()
    thread.join(CONFIG_SECONDS)
    if thread.is_alive():
        raise Problem(503, "the configuration daemon is still at work; ask again later")
    return answers[0] if answers else None


def _applied(status: str | None) -> list[AppliedView]:
    if status is None:
        raise Problem(503, "cannot ask the configuration daemon: it does not answer; see its log")
    sections: Any = json.loads(status)
    return [AppliedView(type=str(section["type"]), name=str(section["name"]), owner=section.get("comment"),
                        success=bool(section["success"]), error=section.get("error")) for section in sections]


def _config_files() -> Iterator[Path]:
    directory = Path(settings.UCI_CONFIG_DIR)
    return iter(sorted(path for path in directory.glob("[!.]*") if path.is_file()))


def _sections(path: Path) -> list[SectionView]:
    return [SectionView(type=title["type"], name=title.get("name"), owner=title.get("comment"),
                        options={key: value for key, value in options.items() if key != "list"},
                        lists=options.get("list", {}))
            for title, options in uci.UCIConfig(path).config]


OPERATIONS = [
    Operation("GET", "/api/v1/status", get_status, "viewer", StatusView),
    Operation("GET", "/api/v1/config", get_config, "admin", dict[str, list[SectionView]], errors=(409,)),
    Operation("GET", "/api/v1/config/{file}", get_config_file, "admin", list[SectionView], errors=(404, 409)),
    Operation("PUT", "/api/v1/config/{file}", put_config_file, "admin", ChangeView, NewConfig, status=202,
              errors=(404, 409)),
    Operation("GET", "/api/v1/config-status", get_applied, "viewer", list[AppliedView], errors=(409,)),
    Operation("POST", "/api/v1/config-status", reload_config, "admin", list[AppliedView], errors=(409,)),
    Operation("GET", "/api/v1/logs", get_log, "operator", "application/x-ndjson", query=JournalQuery),
]
