"""The operations of ``/api/v1`` on changes: what was asked for, how it goes, how it ended."""

from collections.abc import AsyncIterator

from paradrop.backend.pdfcd.changes import Change
from paradrop.backend.pdfcd.operations import Body, Call, Operation, Text, View
from paradrop.backend.pdfcd.problems import Problem


class ChangeView(View, frozen=True):
    """A change. Times are Unix seconds; ``success`` and ``message`` are null until it is done.

    ``chute`` is __PARADROP__ for a change of the router itself.
    """

    id: str
    kind: str
    chute: str
    user: str | None
    state: str
    created: float
    ended: float | None
    success: bool | None
    message: str | None


class MessagesQuery(Body, frozen=True):
    """Whether to wait for the end of the change."""

    follow: bool = False


def view_of_change(change: Change) -> ChangeView:
    """Return what is told of a change."""
    result = change.result
    return ChangeView(
        id=change.id, kind=change.kind, chute=change.name, user=change.user, state=change.state,
        created=change.created, ended=change.ended, success=None if result is None else bool(result.get("success")),
        message=None if result is None else str(result.get("message") or ""))


def list_changes(call: Call) -> list[ChangeView]:
    """List the changes since the daemon started, the latest ones of those that are done."""
    return [view_of_change(change) for change in call.rest.changes.all()]


def get_change(call: Call) -> ChangeView:
    """Show a change."""
    return view_of_change(_change(call))


def get_messages(call: Call) -> Text:
    """Read the progress of a change."""
    return Text(_messages(_change(call), call.query.follow))


async def _messages(change: Change, follow: bool) -> AsyncIterator[str]:
    if follow:
        async for text in change.feed.follow():
            yield text
    else:
        yield "".join(change.feed.pieces())


def _change(call: Call) -> Change:
    change = call.rest.changes.get(call.path["id"])
    if change is None:
        raise Problem(404, f"there is no change {call.path['id']}; the daemon forgets old ones, and all when it stops")
    return change


OPERATIONS = [
    Operation("GET", "/api/v1/changes", list_changes, "viewer", list[ChangeView]),
    Operation("GET", "/api/v1/changes/{id}", get_change, "viewer", ChangeView, errors=(404,)),
    Operation("GET", "/api/v1/changes/{id}/messages", get_messages, "viewer", "text/plain", query=MessagesQuery,
              errors=(404,)),
]
