"""Makes HTML of templates, and answers with it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from starlette.responses import HTMLResponse, RedirectResponse, Response

import fussy
from fussy import moments
from paradrop.backend.pages.visit import Visit, form_key

HERE = Path(__file__).parent
# Nothing is loaded from elsewhere, nothing in a page runs that this router did not send as a file, nobody keeps a copy.
# A page tells its own router where one comes from, so that it can tell its own forms from those of others.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
                               "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store"}


def show(visit: Visit, template: str, code: int = 200, headers: Mapping[str, str] | None = None,
         **facts: Any) -> Response:
    """Return a page, made of the template with these facts."""
    facts = {"visit": visit, "user": visit.identity, "key": form_key(visit.session), "part": False, **facts}
    return HTMLResponse(_TEMPLATES.get_template(template).render(facts), code, {**HEADERS, **(headers or {})})


def go(address: str) -> Response:
    """Return what leads the browser on after a form."""
    return RedirectResponse(address, 303, HEADERS)


def ago(seconds: float) -> str:
    """Return a stretch of time for people, in its two largest units.

    >>> ago(5), ago(65), ago(7500), ago(3 * 86400 + 7200)
    ('5 seconds', '1 minute', '2 hours 5 minutes', '3 days 2 hours')
    """
    parts, left = [], max(0, int(seconds))
    for name, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if number := left // size:
            parts.append(f"{number} {name}{'s' * (number > 1)}")
        left %= size
    return " ".join(parts[:2]) or f"{left} second{'s' * (left != 1)}"


def since(seconds: float) -> str:
    """Return how long ago a time (Unix seconds) was."""
    return ago(time.time() - seconds)


def amount(number: float) -> str:
    """Return bytes for people.

    >>> amount(900), amount(130_800_000), amount(2.5e9)
    ('900 bytes', '130.8 MB', '2.5 GB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f} bytes"


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"), undefined=jinja2.StrictUndefined, autoescape=True,
    trim_blocks=True, lstrip_blocks=True)
_TEMPLATES.filters |= {"ago": ago, "moment": moments.local, "since": since, "amount": amount}
_TEMPLATES.globals["version"] = fussy.__version__
