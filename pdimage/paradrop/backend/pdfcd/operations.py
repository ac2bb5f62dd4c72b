"""What an operation of ``/api/v1`` is: its route, its document and its code in one value, so that they agree."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from paradrop.backend.pdfcd.accounts import Identity
from paradrop.backend.pdfcd.problems import Problem

if TYPE_CHECKING:
    from paradrop.backend.pdfcd.server import ParadropAPIServer


class Body(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What a request carries. A field that is not listed is a mistake."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer carries."""


class NoQuery(Body, frozen=True):
    """No parameters."""


@dataclass(frozen=True)
class Call:
    """One request, checked: ``path``, ``query`` and ``body`` are what the operation declares."""

    rest: "ParadropAPIServer"
    identity: Identity | None
    client: str
    path: Mapping[str, str]
    query: Any
    body: Any

    @property
    def user(self) -> str | None:
        """The name of the one who asks."""
        return self.identity.user if self.identity else None


@dataclass(frozen=True)
class Text:
    """An answer that comes piece by piece."""

    pieces: AsyncIterator[str]


@dataclass(frozen=True)
class Accepted:
    """An answer that names the place where the outcome will be."""

    view: View
    location: str


@dataclass(frozen=True)
class Operation:
    """One method of one path.

    ``role`` is the least role that may call it, None for everybody. ``run`` may block: it runs in a thread. It returns
    a View or list of them, Text, Accepted, or None where ``answer`` is None.
    """

    method: str
    path: str
    run: Callable[[Call], Any]
    role: str | None
    answer: Any = None
    """The type of the answer: a View, list[View], "text/plain", "application/x-ndjson", or None."""
    body: type[Body] | str | None = None
    """The type of the body: a Body, or the media type of an upload, which ``run`` gets as a file."""
    query: type[Body] = NoQuery
    status: int = 200
    errors: tuple[int, ...] = field(default=())
    """Statuses of problems, besides those every operation may answer with."""
    optional: bool = False
    """Whether who sends no password or token is served too; ``run`` decides then. Only where ``role`` is None."""
    remote: bool = True
    """Whether it can be done through the server that the router belongs to."""

    @property
    def summary(self) -> str:
        """One line that says what it does: the first of its code's docstring."""
        return (self.run.__doc__ or "").strip().splitlines()[0]

    @property
    def id(self) -> str:
        """Its name in the OpenAPI document."""
        return self.run.__name__

    @property
    def all_errors(self) -> list[int]:
        """Every status of a problem it may answer with."""
        always = [400, 500, 503, 507] + ([401, 403, 429] if self.role else [])
        return sorted({*always, *self.errors, *([408, 413, 415, 422] if self.body else [])})


def parse_query(operation: Operation, items: Mapping[str, str]) -> Any:
    """Return the query as the operation declares it; Problem 400 if it is something else."""
    try:
        return msgspec.convert(dict(items), operation.query, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(400, f"cannot read the query: {error}") from error


def check_media(operation: Operation, media: str) -> None:
    """Raise Problem 415 unless the body is of the media type that the operation declares."""
    wanted = operation.body if isinstance(operation.body, str) else "application/json"
    if media.partition(";")[0].strip().lower() != wanted:
        raise Problem(415, f"cannot read the body: it must be {wanted}")


def parse_body(operation: Operation, content: bytes) -> Any:
    """Return the body as the operation declares it; Problem 400 or 422 if it is something else."""
    assert operation.body is not None and not isinstance(operation.body, str)
    try:
        return msgspec.json.decode(content, type=operation.body)
    except msgspec.ValidationError as error:
        raise Problem(422, f"cannot read the body: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, f"cannot read the body: {error}") from error
