"""The page about the router itself: its name, the visitor's password, restart, factory reset, the daemon's log."""

from typing import Any

from starlette.responses import Response

from fussy.moments import local
from paradrop.backend.fc import factory
from paradrop.backend.link import linkstate
from paradrop.backend.pages import sessions
from paradrop.backend.pages.overview import pdid
from paradrop.backend.pages.showing import go, show
from paradrop.backend.pages.visit import Visit
from paradrop.backend.pdfcd.problems import Problem
from paradrop.lib import settings
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import power

LINES = 100


def show_router(visit: Visit, status: int = 200, mistake: str = "") -> Response:
    """Show the router."""
    journal = visit.rest.journal.getLogsSince(0)[-LINES:] if visit.may("operator") else []
    text = "\n".join(f"{local(one['time'])}  {one['level']:7} {one['message']}" for one in journal)
    return show(visit, "router.html", status, part="part" in visit.query, pdid=pdid(), link=linkstate.read(), log=text,
                reset=factory.decided(), mistake=mistake, done="password" in visit.query)


def set_password(visit: Visit) -> Response:
    """Give the visitor another password. All of his sessions end, and a new one begins here."""
    assert visit.identity
    user, new = visit.identity.user, visit.fields.get("new", "")
    if new != visit.fields.get("again"):
        return show_router(visit, 422, "The two new passwords are not the same.")
    try:
        identity = visit.rest.access.login(user, visit.fields.get("old", ""), visit.client)
        visit.rest.accounts.set_user(user, new, identity.role)
    except Problem as problem:
        if problem.status != 401:
            raise
        return show_router(visit, 401, "That is not your password now.")
    except ParadropError as error:
        return show_router(visit, 422, f"{error.message[:1].upper()}{error.message[1:]}.")
    return sessions.begin(visit, identity, go("/router?password=changed"))


def ask_reboot(visit: Visit) -> Response:
    """Ask whether the router shall restart."""
    return show(visit, "reboot.html", going=False)


def reboot(visit: Visit) -> Response:
    """Restart the router."""
    power.reboot()
    return show(visit, "reboot.html", going=True)


def ask_reset(visit: Visit) -> Response:
    """Tell what a factory reset deletes, and ask a first time."""
    return show(visit, "reset.html", step=1, mistake="", **_doomed(visit))


def reset(visit: Visit) -> Response:
    """Ask a second time, with the password; then decide on the reset and restart, which carries it out."""
    assert visit.identity
    if visit.fields.get("step") != "2":
        return show(visit, "reset.html", step=2, mistake="", **_doomed(visit))
    try:
        visit.rest.access.login(visit.identity.user, visit.fields.get("password", ""), visit.client)
    except Problem as problem:
        if problem.status != 401:
            raise
        return show(visit, "reset.html", 401, step=2, mistake="That is not your password.", **_doomed(visit))
    factory.decide([str(chute.name) for chute in visit.rest.storage.getChuteList()])
    try:
        power.reboot()
    except ParadropError as error:
        return show(visit, "reset.html", step=3, mistake=error.message, **_doomed(visit))
    return show(visit, "reset.html", step=3, mistake="", **_doomed(visit))


def _doomed(visit: Visit) -> dict[str, Any]:
    return {"chutes": sorted(str(chute.name) for chute in visit.rest.storage.getChuteList()),
            "users": list(visit.rest.accounts.users()), "pdid": pdid(), "target": settings.FIRMWARE_TARGET}
