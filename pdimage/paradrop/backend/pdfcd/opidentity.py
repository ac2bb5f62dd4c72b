"""The operations of ``/api/v1`` on who this router is: provisioning by a server, and forgetting it.

What provisioning needs is imported when it is asked for, so that the daemon stays small until then.
"""

from typing import Annotated, Any

from msgspec import Meta

from paradrop.backend.link import linkstate
from paradrop.backend.pdfcd.access import CHALLENGE, on_local_network
from paradrop.backend.pdfcd.identity import IdentityFile
from paradrop.backend.pdfcd.operations import Body, Call, Operation, View
from paradrop.backend.pdfcd.problems import Problem


class NewIdentity(Body, frozen=True):
    """The server's address, its one-time secret for this router, and, where no authority vouches for it, its
    certificate (PEM). ``again``: also if the router is provisioned."""

    server: Annotated[str, Meta(max_length=300)]
    secret: Annotated[str, Meta(min_length=1, max_length=200)]
    server_certificate: Annotated[str, Meta(max_length=20000)] | None = None
    again: bool = False


class IdentityView(View, frozen=True):
    """Who the router is, null before provisioning; its server and how the link to it is (``line``: in words) since a
    time (Unix seconds)."""

    pdid: str | None
    server: str | None
    state: str
    since: float
    line: str


class ProvisionedView(IdentityView, frozen=True):
    """Who the router is now. ``notes``: what stays as its owner or its firmware has it."""

    notes: list[str]


def get_identity(call: Call) -> IdentityView:
    """Show who the router is, and how the link to its server is."""
    return IdentityView(**_identity())


def provision_router(call: Call) -> ProvisionedView:
    """Make the router belong to a server.

    That is for an administrator, and for anybody beside the router while it has neither accounts nor a server.
    """
    if call.identity is None and not _may_be_anybody(call):
        raise Problem(401, "cannot provision: send the password or token of an administrator", CHALLENGE)
    if call.identity is not None and not call.identity.may("admin"):
        raise Problem(403, f"cannot do this with the role {call.identity.role}: it needs admin")
    if call.identity is None and call.body.again:
        raise Problem(401, "cannot provision again: send the password or token of an administrator", CHALLENGE)
    from paradrop.backend.link.provisioning import Order, provision

    body = call.body
    before = IdentityFile().identity
    identity, notes = provision(Order(body.server, body.secret, body.server_certificate or "", body.again))
    if identity != before:
        call.rest.link.start()
    return ProvisionedView(**_identity(), notes=notes)


def delete_identity(call: Call) -> None:
    """Forget who the router is: it belongs to no server then."""
    from paradrop.backend.link.provisioning import forget

    call.rest.link.stop()
    try:
        if forget() is None:
            raise Problem(404, "this router is not provisioned")
    finally:
        call.rest.link.start()


def _may_be_anybody(call: Call) -> bool:
    return not call.rest.accounts.users() and on_local_network(call.client)


def _identity() -> dict[str, Any]:
    identity, state = IdentityFile().identity, linkstate.read()
    return {"pdid": identity and identity.pdid, "server": (identity and identity.server) or None, "state": state.state,
            "since": state.since, "line": state.line}


OPERATIONS = [
    Operation("POST", "/api/v1/provision", provision_router, None, ProvisionedView, NewIdentity,
              errors=(401, 403, 409, 429), optional=True, remote=False),
    Operation("GET", "/api/v1/identity", get_identity, "viewer", IdentityView, remote=False),
    Operation("DELETE", "/api/v1/identity", delete_identity, "admin", status=204, errors=(404, 409), remote=False),
]
