"""The operations of ``/api/v1`` on accounts: log in and out, users, tokens."""

from typing import Annotated, Literal

from msgspec import Meta

from paradrop.backend.pdfcd.accounts import ROLES, Token
from paradrop.backend.pdfcd.operations import Body, Call, Operation, View
from paradrop.backend.pdfcd.problems import Problem

LOGIN_DAYS = 30.0
Role = Literal["viewer", "operator", "admin"]
Password = Annotated[str, Meta(min_length=8, max_length=200)]


class Login(Body, frozen=True):
    """A user and his password."""

    username: Annotated[str, Meta(max_length=32)]
    password: Annotated[str, Meta(max_length=200)]


class NewUser(Body, frozen=True):
    """What a user gets. Without a role he keeps the one he has."""

    password: Password
    role: Role | None = None


class NewToken(Body, frozen=True):
    """What a token is for, what it may do (at most what its maker may), for how long it is good (null: for ever)."""

    label: Annotated[str, Meta(max_length=64)]
    role: Role = "viewer"
    days: Annotated[float, Meta(gt=0, le=3650)] | None = None


class SecretView(View, frozen=True):
    """A new token. Its text is told this once only. ``expires`` is in Unix seconds."""

    id: str
    token: str
    role: str
    expires: float | None


class UserView(View, frozen=True):
    """A user."""

    name: str
    role: str


class TokenView(View, frozen=True):
    """A token, without its text."""

    id: str
    user: str
    role: str
    label: str
    expires: float | None


def log_in(call: Call) -> SecretView:
    """Log in: get a token for a user's password."""
    identity = call.rest.access.login(call.body.username, call.body.password, call.client)
    return _made(call, identity.user, identity.role, "login", LOGIN_DAYS)


def log_out(call: Call) -> None:
    """Log out: end the token that this request came with."""
    if call.identity and call.identity.token:
        call.rest.accounts.delete_token(call.identity.token)


def who_am_i(call: Call) -> UserView:
    """Show who the request came from."""
    assert call.identity is not None
    return UserView(name=call.identity.user, role=call.identity.role)


def list_users(call: Call) -> list[UserView]:
    """List the users."""
    return [UserView(name=name, role=role) for name, role in call.rest.accounts.users().items()]


def put_user(call: Call) -> UserView:
    """Make a user, or give one another password and role; his tokens end. Everybody may change his own password."""
    assert call.identity is not None
    name, accounts = call.path["name"], call.rest.accounts
    known = accounts.users().get(name)
    if not call.identity.may("admin") and (name != call.identity.user or call.body.role not in (None, known)):
        raise Problem(403, "only an administrator may do this to another user, or change a role")
    accounts.set_user(name, call.body.password, call.body.role or known or "viewer")
    return UserView(name=name, role=accounts.users()[name])


def delete_user(call: Call) -> None:
    """Delete a user and his tokens."""
    if call.path["name"] not in call.rest.accounts.users():
        raise Problem(404, f"there is no user {call.path['name']}")
    call.rest.accounts.delete_user(call.path["name"])


def list_tokens(call: Call) -> list[TokenView]:
    """List one's own tokens; an administrator sees everybody's."""
    return [TokenView(id=number, user=token.user, role=token.role, label=token.label, expires=token.expires)
            for number, token in _visible(call).items()]


def make_token(call: Call) -> SecretView:
    """Make a token."""
    assert call.identity is not None
    if not call.identity.may(call.body.role):
        raise Problem(403, f"cannot make a token with the role {call.body.role}: yours is {call.identity.role}")
    return _made(call, call.identity.user, call.body.role, call.body.label, call.body.days)


def delete_token(call: Call) -> None:
    """End a token."""
    if call.path["id"] not in _visible(call):
        raise Problem(404, f"there is no token {call.path['id']}")
    call.rest.accounts.delete_token(call.path["id"])


def _visible(call: Call) -> dict[str, Token]:
    assert call.identity is not None
    every = call.identity.may("admin")
    return {number: token for number, token in call.rest.accounts.tokens().items()
            if every or token.user == call.identity.user}


def _made(call: Call, user: str, role: str, label: str, days: float | None) -> SecretView:
    assert role in ROLES
    text, number, token = call.rest.accounts.make_token(user, role, label, days)
    return SecretView(id=number, token=text, role=token.role, expires=token.expires)


OPERATIONS = [
    Operation("POST", "/api/v1/login", log_in, None, SecretView, Login, errors=(401, 429), remote=False),
    Operation("POST", "/api/v1/logout", log_out, "viewer", status=204, remote=False),
    Operation("GET", "/api/v1/whoami", who_am_i, "viewer", UserView),
    Operation("GET", "/api/v1/users", list_users, "admin", list[UserView], remote=False),
    Operation("PUT", "/api/v1/users/{name}", put_user, "viewer", UserView, NewUser, errors=(409,), remote=False),
    Operation("DELETE", "/api/v1/users/{name}", delete_user, "admin", status=204, errors=(404, 409), remote=False),
    Operation("GET", "/api/v1/tokens", list_tokens, "viewer", list[TokenView], remote=False),
    Operation("POST", "/api/v1/tokens", make_token, "viewer", SecretView, NewToken, errors=(409,), remote=False),
    Operation("DELETE", "/api/v1/tokens/{id}", delete_token, "viewer", status=204, errors=(404,), remote=False),
]
