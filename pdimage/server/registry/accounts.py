"""The accounts and their tokens in a database. Every change is in the audit log, by the same transaction.

Passwords come in as argon2's text (:mod:`.passwords`). A change of password, a reset and a lock end all tokens.
Who is invited has an account without a password, and a code with which he sets it; a reset is the same for one who has.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy import select

from pdimage.server import names
from pdimage.server.refusals import Refused, bad
from pdimage.server.registry.access import Caller
from pdimage.server.registry.audit import Audit, Who
from pdimage.server.registry.fleet.tables import actions, groups, rollouts
from pdimage.server.registry.passwords import LONGEST
from pdimage.server.registry.permissions import Role
from pdimage.server.registry.tables import accounts, routers, tokens
from pdimage.server.settings import Settings
from pdimage.server.tables import reading

DAY = 86400.0
CODE_SECONDS = DAY
PASSWORD_LENGTH = 8
# The longest life of a token that is made by hand, in days.
MOST_DAYS = 3650

Kind = Literal["login", "page", "made"]


class Account(msgspec.Struct, frozen=True):
    """An account, without its password. ``invited``: it has none yet."""

    name: str
    role: Role
    locked: bool
    invited: bool
    made: float


class Token(msgspec.Struct, frozen=True):
    """A token, without its text."""

    id: str
    kind: Kind
    read: bool
    label: str
    made: float
    expires: float


def digest(text: str) -> str:
    """Return what is kept of a token, a secret or a code: they are too random to be guessed from it."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def check_name(name: str, settings: Settings) -> str:
    """Return a name for a new account.

    :raises Refused: it can't be one (400)
    """
    if not names.is_good("account", name) or len(name) < settings.name_length:
        raise bad(f"the name must have {settings.name_length} to 32 letters and digits (a-z, A-Z, 0-9)")
    return name


def check_password(password: str) -> str:
    """Return a new password.

    :raises Refused: it is too short or too long (400)
    """
    if not PASSWORD_LENGTH <= len(password) <= LONGEST:
        raise bad(f"the password must have {PASSWORD_LENGTH} to {LONGEST} characters")
    return password


class Accounts:
    """The accounts in one database. CLOCK gives Unix seconds."""

    def __init__(self, engine: sa.Engine, settings: Settings, audit: Audit, clock: Callable[[], float] = time.time,
                 ) -> None:
        self._engine = engine
        self.settings = settings
        self._audit = audit
        self.clock = clock

    def all(self) -> list[Account]:
        """Return all accounts, by name."""
        with reading(self._engine) as connection:
            return [_account(row) for row in connection.execute(
                select(accounts).order_by(sa.func.lower(accounts.c.name)))]

    def find(self, name: str) -> tuple[Account, str] | None:
        """Return an account and its password's text."""
        with reading(self._engine) as connection:
            row = connection.execute(select(accounts).where(_is(name))).one_or_none()
        return (_account(row), row.password) if row else None

    def add(self, name: str, password: str, role: Role, who: Who) -> Account:
        """Make an account.

        :raises Refused: the name is taken (409)
        """
        with self._engine.begin() as connection:
            row = self._insert(connection, name, password, role)
            self._audit.note(connection, who, "account.add", name, name, f"role {role}")
        return row

    def invite(self, name: str, who: Who) -> tuple[str, float]:
        """Make an account for somebody who is to set its password; return the code for that, and until when it is good.

        :raises Refused: the name is taken (409)
        """
        with self._engine.begin() as connection:
            self._insert(connection, name, "", "user")
            self._audit.note(connection, who, "account.invite", name, name)
            return self._new_code(connection, name)

    def new_code(self, name: str, who: Who) -> tuple[str, float]:
        """Return a code with which a password can be set once, and until when; one issued before ends.

        :raises Refused: there is no such account (404)
        """
        with self._engine.begin() as connection:
            account = self._there(connection, name)
            self._audit.note(connection, who, "account.reset", account.name, account.name, "a code was issued")
            return self._new_code(connection, account.name)

    def spend_code(self, name: str, code: str, password: str, address: str) -> str:
        """Set a password with a code, once; all tokens end. Return the account's name.

        :raises Refused: the code is not good (any more), or was never for this name (403)
        """
        with self._engine.begin() as connection:
            row = connection.execute(sa.update(accounts).where(
                _is(name), accounts.c.code == digest(code), accounts.c.code_until >= self.clock()).values(
                    password=password, code="", code_until=0).returning(accounts.c.name)).one_or_none()
            if row is None:
                raise Refused(403, "this code is not good for this name, or not any more; ask an administrator for one")
            self._end_tokens(connection, row.name)
            self._audit.note(connection, Who(row.name, address), "account.password", row.name, row.name, "with a code")
        return str(row.name)

    def has_code(self, name: str, code: str) -> bool:
        """Tell whether a code is good now. It is asked before a password is hashed, which takes a while."""
        with reading(self._engine) as connection:
            return connection.scalar(select(accounts.c.name).where(
                _is(name), accounts.c.code == digest(code), accounts.c.code_until >= self.clock())) is not None

    def set_password(self, name: str, password: str, who: Who) -> None:
        """Change a password; all tokens end."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(accounts).where(_is(name)).values(password=password, code="", code_until=0))
            self._end_tokens(connection, name)
            self._audit.note(connection, who, "account.password", name, name)

    def change(self, name: str, role: Role | None, locked: bool | None, who: Who) -> Account:
        """Give an account another role, lock or unlock it. Its tokens have the new one at once, and end with
        a lock.

        :raises Refused: there is no such account (404), or nobody would be left to administer (409)
        """
        with self._engine.begin() as connection:
            account, is_last = self._with_admins(connection, name)
            role = role or account.role
            locked = account.locked if locked is None else locked
            if is_last and (locked or role != "admin"):
                raise _last(account)
            connection.execute(sa.update(accounts).where(accounts.c.name == account.name).values(
                role=role, locked=int(locked)))
            if locked:
                self._end_tokens(connection, account.name)
            said = [f"role {role}"] * (role != account.role) + ["locked" if locked else "unlocked"] * (
                locked != account.locked)
            if said:
                self._audit.note(connection, who, "account.change", account.name, account.name, ", ".join(said))
        return msgspec.structs.replace(account, role=role, locked=locked)

    def delete(self, name: str, who: Who) -> None:
        """Forget an account, with its tokens, its groups, its roll-outs and what they did. What is in the audit log
        stays there.

        :raises Refused: there is no such account (404), it has routers, or nobody would be left to administer (409)
        """
        with self._engine.begin() as connection:
            account, is_last = self._with_admins(connection, name)
            if is_last:
                raise _last(account)
            number = connection.scalar(select(sa.func.count()).where(routers.c.account == account.name))
            if number:
                raise Refused(409, f"the account {account.name} has {number} router{'s' * (number > 1)}; delete them "
                                   "first, or lock the account")
            own = connection.scalars(select(rollouts.c.id).where(
                rollouts.c.account == account.name).with_for_update()).all()
            connection.execute(sa.delete(actions).where(actions.c.rollout.in_(own)))
            for table in (rollouts, groups, tokens):
                connection.execute(sa.delete(table).where(table.c.account == account.name))
            connection.execute(sa.delete(accounts).where(accounts.c.name == account.name))
            self._audit.note(connection, who, "account.delete", account.name, account.name, f"role {account.role}")

    def new_token(self, name: str, kind: Kind, who: Who, *, read: bool = False, label: str = "",
                  days: float | None = None) -> tuple[str, Token]:
        """Return the text of a new token, which is not kept, and the token. The oldest login gives way to a new one.

        :raises Refused: the account is locked or gone (403), or has too many tokens (409)
        """
        text, now = secrets.token_urlsafe(32), self.clock()
        with self._engine.begin() as connection:
            row = connection.execute(select(accounts).where(_is(name)).with_for_update()).one_or_none()
            if row is None or row.locked:
                raise Refused(403, "this account is locked; ask an administrator")
            token = Token(secrets.token_hex(8), kind, read, label, now,
                          now + DAY * (days or self.settings.login_days))
            self._make_room(connection, row.name, kind, now)
            connection.execute(sa.insert(tokens).values(
                id=token.id, digest=digest(text), account=row.name, kind=kind, changes=int(not read), label=label,
                made=now, expires=token.expires))
            self._audit.note(connection, who, "token.make", row.name, token.id, label or kind)
        return text, token

    def tokens(self, name: str) -> list[Token]:
        """Return the tokens of an account that are still good, the oldest first."""
        with reading(self._engine) as connection:
            return [_token(row) for row in connection.execute(select(tokens).where(
                tokens.c.account == name, tokens.c.expires >= self.clock()).order_by(tokens.c.made, tokens.c.id))]

    def end_token(self, name: str, number: str, who: Who) -> bool:
        """End a token of an account; False: it has none of this id."""
        with self._engine.begin() as connection:
            gone = connection.execute(sa.delete(tokens).where(tokens.c.account == name, tokens.c.id == number)).rowcount
            if gone:
                self._audit.note(connection, who, "token.end", name, number)
        return gone == 1

    def caller(self, token: str, address: str) -> Caller | None:
        """Return whose token this is, None if it is nobody's (any more)."""
        with reading(self._engine) as connection:
            row = connection.execute(_CALLER, {"digest": digest(token), "now": self.clock()}).one_or_none()
        if row is None:
            return None
        return Caller(row.account, row.role, row.id, not row.changes, address)

    def _insert(self, connection: sa.Connection, name: str, password: str, role: Role) -> Account:
        taken = Refused(409, f"the name {name} is taken; choose another one")
        if connection.scalar(select(accounts.c.name).where(_is(name))) is not None:
            raise taken
        made = self.clock()
        try:
            connection.execute(sa.insert(accounts).values(name=name, password=password, role=role, made=made))
        except sa.exc.IntegrityError:
            raise taken from None
        return Account(name, role, False, password == "", made)

    def _there(self, connection: sa.Connection, name: str) -> Account:
        row = connection.execute(select(accounts).where(_is(name)).with_for_update()).one_or_none()
        if row is None:
            raise Refused(404, f"there is no account {names.shown(name)}")
        return _account(row)

    def _with_admins(self, connection: sa.Connection, name: str) -> tuple[Account, bool]:
        """Return an account that is to change, and whether it is the last administrator, until the transaction ends."""
        admins = set(connection.scalars(select(accounts.c.name).where(
            accounts.c.role == "admin", accounts.c.locked == 0).with_for_update()))
        account = self._there(connection, name)
        return account, admins == {account.name}

    def _new_code(self, connection: sa.Connection, name: str) -> tuple[str, float]:
        code = "-".join(secrets.token_hex(2) for _ in range(5))
        until = self.clock() + CODE_SECONDS
        connection.execute(sa.update(accounts).where(_is(name)).values(code=digest(code), code_until=until))
        return code, until

    def _make_room(self, connection: sa.Connection, name: str, kind: Kind, now: float) -> None:
        connection.execute(sa.delete(tokens).where(tokens.c.account == name, tokens.c.expires < now))
        rows = connection.execute(select(tokens.c.id, tokens.c.kind).where(tokens.c.account == name).order_by(
            tokens.c.made)).all()
        if len(rows) < self.settings.account_tokens:
            return
        oldest = next((row.id for row in rows if row.kind != "made"), None)
        if kind == "made" or oldest is None:
            raise Refused(409, f"this account has {len(rows)} tokens already; end one first: paradrop tokens end ID")
        connection.execute(sa.delete(tokens).where(tokens.c.id == oldest))

    @staticmethod
    def _end_tokens(connection: sa.Connection, name: str) -> None:
        connection.execute(sa.delete(tokens).where(tokens.c.account == name))


# Asked with every request, so it is put together once: that takes longer than asking.
_CALLER = select(tokens.c.id, tokens.c.account, tokens.c.changes, accounts.c.role).join(
    accounts, accounts.c.name == tokens.c.account).where(
        tokens.c.digest == sa.bindparam("digest"), tokens.c.expires >= sa.bindparam("now"), accounts.c.locked == 0)


def _is(name: str) -> Any:
    return sa.func.lower(accounts.c.name) == (name.lower() if names.is_good("account", name) else "")


def _last(account: Account) -> Refused:
    return Refused(409, f"{account.name} is the last administrator; make another one first")


def _account(row: Any) -> Account:
    return Account(row.name, row.role, bool(row.locked), row.password == "", row.made)


def _token(row: Any) -> Token:
    return Token(row.id, row.kind, not row.changes, row.label, row.made, row.expires)
