"""Reads the JSON of a request into a structure that says which fields there are, and numbers of the query."""

from typing import TypeVar

import msgspec
from starlette.requests import Request

from pdimage.server.http import body
from pdimage.server.refusals import bad
from pdimage.server.settings import Settings

T = TypeVar("T")


async def read(request: Request, settings: Settings, kind: type[T]) -> T:
    """Return the body as a KIND.

    :raises Refused: it is none (400), or too long or too slow (413, 408)
    """
    content = await body(request, settings)
    try:
        found = msgspec.json.decode(content or b"{}", type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise bad(f"the body is not what is wanted: {error}") from error
    return found


def number(request: Request, name: str, default: int, most: int) -> int:
    """Return a number of the query, from 1 to MOST.

    :raises Refused: it is none (400)
    """
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:20]) <= most):
        raise bad(f"{name} must be a number from 1 to {most}")
    return int(text)
