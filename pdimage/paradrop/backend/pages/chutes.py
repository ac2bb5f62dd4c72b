"""The pages about chutes: how they are, what they write, and what can be done with them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from msgspec import UNSET
from starlette.responses import Response

from paradrop.backend.pages.showing import go, show
from paradrop.backend.pages.visit import Visit
from paradrop.backend.pdfcd import opchanges, opchutes
from paradrop.backend.pdfcd.containerlog import container_log
from paradrop.backend.pdfcd.operations import Accepted, Call
from paradrop.backend.pdfcd.problems import Problem
from paradrop.lib import settings
from paradrop.lib.utils.dockerclient import DockerError

LINES = 200
LOG_SHOWN = 64 << 10


@dataclass(frozen=True)
class Action:
    """What can be done with a chute. ``warning`` says what that means; without one nobody is asked again."""

    run: Callable[[Call], Accepted]
    label: str
    warning: str = ""


ACTIONS = {
    "start": Action(opchutes.start_chute, "Start"),
    "stop": Action(opchutes.stop_chute, "Stop", "Its services and its networks go away until it is started again. "
                                                "Its data stays."),
    "restart": Action(opchutes.restart_chute, "Restart", "Its services stop for a moment and begin anew. "
                                                         "Its data stays."),
    "rollback": Action(opchutes.rollback_chute, "Bring back the version before",
                       "The version that it had before its last update takes its place. Its data stays."),
    "delete": Action(opchutes.delete_chute, "Delete", "The chute is removed with all of its data. This cannot be "
                                                      "taken back."),
}


def show_all(visit: Visit) -> Response:
    """Show all chutes, and what was done lately."""
    changes = [opchanges.view_of_change(change) for change in reversed(visit.rest.changes.all())][:10]
    return show(visit, "chutes.html", part="part" in visit.query, chutes=opchutes.list_chutes(visit.call()),
                changes=changes, own=settings.RESERVED_CHUTE)


def show_one(visit: Visit) -> Response:
    """Show a chute and the end of its log."""
    chute = opchutes.get_chute(visit.call())
    text, trouble = "", ""
    try:
        text = asyncio.run(_collect(container_log(chute.name, LINES, follow=False)))
    except DockerError as error:
        trouble = error.message
    return show(visit, "chute.html", part="part" in visit.query, chute=chute, text=text[-LOG_SHOWN:], trouble=trouble,
                lines=LINES)


def ask(visit: Visit) -> Response:
    """Ask whether something shall really be done."""
    return show(visit, "chute_ask.html", chute=opchutes.get_chute(visit.call()), action=_action(visit),
                name=visit.path["action"])


def do(visit: Visit) -> Response:
    """Do something with a chute, and lead to the page of the change."""
    action = _action(visit)
    accepted = action.run(visit.call(body=opchutes.Restart(environment=UNSET)))
    assert isinstance(accepted.view, opchanges.ChangeView)
    return go(f"/changes/{accepted.view.id}")


def show_change(visit: Visit) -> Response:
    """Show how a change goes, or how it ended."""
    change = opchanges.get_change(visit.call())
    pieces = visit.rest.changes.get(change.id)
    text = "".join(pieces.feed.pieces()) if pieces else ""
    return show(visit, "change.html", part="part" in visit.query, change=change, text=text[-LOG_SHOWN:],
                there=visit.rest.storage.getChute(change.chute) is not None, own=settings.RESERVED_CHUTE)


def _action(visit: Visit) -> Action:
    action = ACTIONS.get(visit.path["action"])
    if action is None:
        raise Problem(404, "a chute has no such button")
    return action


async def _collect(pieces: AsyncIterator[str]) -> str:
    text = ""
    async for piece in pieces:
        text = (text + piece)[-LOG_SHOWN:]
    return text
