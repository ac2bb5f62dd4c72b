"""Makes HTML of templates, and answers with it; errors become pages too."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jinja2
import sqlalchemy as sa
from obstore.exceptions import BaseError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response

import fussy
from fussy.moments import utc
from pdimage.server.http import body
from pdimage.server.refusals import Refused, bad, unavailable
from pdimage.server.settings import Settings

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
Handler = Callable[[Request], Awaitable[Response]]
# Nothing is loaded from elsewhere, nothing in a page runs that this server did not send as a file.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
                               "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_FIELDS = 2000


def show(template: str, status: int = 200, headers: Mapping[str, str] | None = None, **facts: Any) -> Response:
    """Return a page, made of the template with these facts."""
    return HTMLResponse(_TEMPLATES.get_template(template).render(facts), status, {**_HEADERS, **(headers or {})})


def showing(handle: Handler) -> Handler:
    """Make a handler answer with a page, whatever it raises."""
    async def endpoint(request: Request) -> Response:
        try:
            return await handle(request)
        except Refused as error:
            return show("error.html", error.status, error.headers, title="This did not work", text=error.error)
        except ClientDisconnect:
            return Response(status_code=400)
        except (sa.exc.OperationalError, sa.exc.TimeoutError, sa.exc.InterfaceError, BaseError) as error:
            log.warning("cannot show %s: %s", request.url.path, error)
            gone = unavailable()
            return show("error.html", gone.status, gone.headers, title="Not now", text=gone.error)
        except Exception:
            log.exception("cannot show %s", request.url.path)
            return show("error.html", 500, title="A bug of this server", text="Its log has the traceback.")
    return endpoint


Form = Mapping[str, list[str]]


def query(request: Request) -> Form:
    """Return the fields of an address.

    :raises Refused: they can't be read
    """
    return _parsed(request.url.query)


async def form(request: Request, settings: Settings) -> Form:
    """Return the fields of a form that was sent.

    :raises Refused: they can't be read, or are too many
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refused(403, "this form was sent from another site")
    content = await body(request, settings)
    try:
        return _parsed(content.decode("ascii"))
    except UnicodeDecodeError as error:
        raise bad("the form can't be read") from error


def _parsed(text: str) -> Form:
    try:
        return parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=_FIELDS)
    except ValueError as error:
        raise bad(f"the form can't be read: {error}") from error


def first(fields: Form, name: str) -> str:
    """Return the value of a field, empty if it is not there."""
    return fields.get(name, [""])[0]


def size(number: float) -> str:
    """Return bytes for people.

    >>> size(900), size(1500), size(130_800_000)
    ('900 bytes', '1.5 kB', '130.8 MB')
    """
    if number < 1000:
        return f"{number:.0f} bytes"
    for unit in ("kB", "MB"):
        number /= 1000
        if number < 1000:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:.1f} GB"


def ago(seconds: float) -> str:
    """Return how long ago a time (Unix seconds) was, in its largest unit."""
    left = max(0, int(time.time() - seconds))
    for name, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if number := left // size:
            return f"{number} {name}{'s' * (number > 1)} ago"
    return "just now"


def outcome(told: Any) -> str:
    """Return how an update ended, as a router told it."""
    return str(told.get("line") or told.get("outcome") or "") if isinstance(told, dict) else ""


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"), undefined=jinja2.StrictUndefined, autoescape=True,
    trim_blocks=True, lstrip_blocks=True)
_TEMPLATES.filters |= {"size": size, "moment": utc, "ago": ago, "outcome": outcome}
_TEMPLATES.globals["server_version"] = fussy.__version__
