"""One request for a page, checked: who asks, from where, and what was sent."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from paradrop.backend.pdfcd.accounts import Identity
from paradrop.backend.pdfcd.operations import Call
from paradrop.backend.pdfcd.problems import Problem

if TYPE_CHECKING:
    from paradrop.backend.pdfcd.server import ParadropAPIServer

FIELDS = 50
Fields = Mapping[str, str]


@dataclass(frozen=True)
class Visit:
    """A request. ``session`` is the secret of the visitor's cookie, "" if he has not logged in."""

    rest: "ParadropAPIServer"
    identity: Identity | None
    client: str
    session: str
    path: Mapping[str, str]
    query: Fields
    fields: Fields
    secure: bool = False

    def may(self, role: str) -> bool:
        """Return True if the visitor's role includes another."""
        return self.identity is not None and self.identity.may(role)

    def call(self, query: Any = None, body: Any = None, **path: str) -> Call:
        """Return the call of an operation of ``/api/v1`` that this visitor makes."""
        return Call(self.rest, self.identity, self.client, path or self.path, query, body)


def form_key(session: str) -> str:
    """Return what each form of a session carries: whoever has not seen its pages cannot make one."""
    return hashlib.sha256(b"form of a page\n" + session.encode()).hexdigest()[:32] if session else ""


def check_form(visit: Visit) -> None:
    """Raise Problem 403 unless a form came from a page of the visitor's own session."""
    if not hmac.compare_digest(visit.fields.get("key", "").encode(), form_key(visit.session).encode()):
        raise Problem(403, "this form is not of your session, or too old: go back, reload the page and try again")


def parse_fields(text: str) -> Fields:
    """Return the fields of an address or a form, the last of each name. Problem 400 if they cannot be read."""
    try:
        found = parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=FIELDS)
    except ValueError as error:
        raise Problem(400, f"cannot read the form: {error}") from error
    return {name: values[-1] for name, values in found.items()}
