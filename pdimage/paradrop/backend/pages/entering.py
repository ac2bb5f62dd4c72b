"""The pages for those who have not logged in: the first password, and the login."""

from starlette.responses import Response

from paradrop.backend.pages import sessions
from paradrop.backend.pages.showing import go, show
from paradrop.backend.pages.visit import Visit
from paradrop.backend.pdfcd.access import on_local_network
from paradrop.backend.pdfcd.problems import Problem
from paradrop.lib.errors import ParadropError


def ask_password(visit: Visit) -> Response:
    """Show the login, or where there is no account yet, lead to the making of one."""
    if not visit.rest.accounts.users():
        return go("/first")
    return go("/") if visit.identity else show(visit, "login.html", name="", mistake="")


def log_in(visit: Visit) -> Response:
    """Begin a session for a name and its password."""
    name = visit.fields.get("name", "").strip()
    try:
        identity = visit.rest.access.login(name, visit.fields.get("password", ""), visit.client)
    except Problem as problem:
        mistake = "That is not the name and password of an account here." if problem.status == 401 else \
            "Too many wrong passwords came from your address. Wait five minutes, then try again."
        return show(visit, "login.html", problem.status, name=name, mistake=mistake)
    return sessions.begin(visit, identity, go("/"))


def log_out(visit: Visit) -> Response:
    """End the session."""
    return sessions.end(visit, go("/login"))


def ask_first(visit: Visit) -> Response:
    """Ask for the first password, from the local network, while nobody has an account."""
    if visit.rest.accounts.users():
        return go("/login")
    return show(visit, "first.html", local=on_local_network(visit.client), name="admin", mistake="")


def set_first(visit: Visit) -> Response:
    """Make the first account, which is an administrator's, and begin its session."""
    if not on_local_network(visit.client):
        raise Problem(403, "the first password can only be set from the router's own network")
    name, password = visit.fields.get("name", "").strip(), visit.fields.get("password", "")
    mistake = "" if password == visit.fields.get("again") else "The two passwords are not the same."
    if not mistake:
        try:
            visit.rest.accounts.set_first_user(name, password)
        except ParadropError as error:
            if visit.rest.accounts.users():
                raise Problem(409, "somebody has set the first password meanwhile: log in with it, or, if that was "
                                   "not you, reset the router") from error
            mistake = f"{error.message[:1].upper()}{error.message[1:]}."
    if mistake:
        return show(visit, "first.html", 422, local=True, name=name, mistake=mistake)
    return sessions.begin(visit, visit.rest.access.login(name, password, visit.client), go("/"))
