"""Who looks at the pages: a session is a token of the account, in a cookie, good for one browser's address.

A router's page has no TLS of its own, and browsers send a cookie to every port of a host: a chute's page on another
port gets it. So a session counts only from the address that it was begun from, and only here, not as a token of the
API.
"""

from starlette.requests import Request
from starlette.responses import Response

from paradrop.backend.pages.visit import Visit
from paradrop.backend.pdfcd.accounts import SESSION, Identity
from paradrop.backend.pdfcd.server import ParadropAPIServer

COOKIE = "paradrop"
DAYS = 0.5
PER_USER = 5


def of_request(rest: ParadropAPIServer, request: Request, client: str) -> tuple[Identity | None, str]:
    """Return who has the session of a request, and its secret; (None, "") if there is none, or it is over."""
    secret = request.cookies.get(COOKIE, "")
    identity = rest.accounts.check_token(secret, client) if secret else None
    return (identity, secret) if identity else (None, "")


def begin(visit: Visit, identity: Identity, answer: Response) -> Response:
    """Begin a session, with its cookie in the answer. The oldest sessions of the user give way."""
    accounts = visit.rest.accounts
    own = [number for number, token in accounts.tokens().items()
           if token.user == identity.user and token.label.startswith(SESSION)]
    for number in own[:max(0, len(own) + 1 - PER_USER)]:
        accounts.delete_token(number)
    secret, _, _ = accounts.make_token(identity.user, identity.role, SESSION + visit.client, DAYS)
    answer.set_cookie(COOKIE, secret, int(DAYS * 86400), httponly=True, samesite="strict", secure=visit.secure)
    return answer


def end(visit: Visit, answer: Response) -> Response:
    """End the visitor's session, and take its cookie back."""
    if visit.identity and visit.identity.token:
        visit.rest.accounts.delete_token(visit.identity.token)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer
