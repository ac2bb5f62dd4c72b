"""The router's own web page: how it is, its chutes, its firmware, its network; for a browser beside it.

Pages are made here and can be read and used without scripts, and without the Internet. ``static/page.js`` only reloads
what changes by itself. All of it is imported when somebody first asks for a page: most routers' daemons never need it.
"""

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from paradrop.backend.pdfcd.server import ParadropAPIServer


def routes(rest: "ParadropAPIServer") -> list[BaseRoute]:
    """Return what answers every path that no API has, for :func:`paradrop.backend.pdfcd.app.make_app`."""
    site: ASGIApp | None = None

    async def pages(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal site
        if site is None:
            from paradrop.backend.pages.site import make_site

            site = make_site(rest)
        await site(scope, receive, send)

    return [Mount("/", pages)]
