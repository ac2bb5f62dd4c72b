"""Who may use ``/api/v1``: users with passwords, and tokens, each with a role.

::

    CONFIG_HOME_DIR/api/               mode 0700
        accounts.json                  users, tokens
            users    name -> role, salt, hash (scrypt, RFC 7914)
            tokens   id -> user, role, label, hash (SHA-256), expires
    RUNTIME_HOME_DIR/api/              mode 0700
        token                          an administrator's token for the router's own root, until the daemon ends

A token is 256 random bits, so a plain digest of it is safe to store; a password is not, so it gets scrypt and a salt.
Roles: a *viewer* reads, an *operator* also changes chutes, an *admin* also the router and the accounts.
"""

import ctypes
import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paradrop.lib import settings
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import pdosq
from paradrop.lib.utils.storage import PDStorage

log = logging.getLogger(__name__)

ROLES = ("viewer", "operator", "admin")
TOKENS_PER_USER = 20
SCRYPT_COST = 1 << 14
_M_MMAP_THRESHOLD = -3  # malloc.h
USER_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,31}")
PASSWORD_LENGTH = (8, 200)
SESSION = "page of "
"""Begins the label of a session's token (paradrop.backend.pages.sessions); the rest is the browser's address."""


@dataclass(frozen=True)
class Identity:
    """Somebody who proved who he is."""

    user: str
    role: str
    token: str | None = None
    """The id of the token that proved it, None after a password."""

    def may(self, role: str) -> bool:
        """Return True if this one's role includes another."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True)
class User:
    """A user as stored; salt and hash in hexadecimal."""

    role: str
    salt: str
    hash: str


@dataclass(frozen=True)
class Token:
    """A token as stored: the digest of its secret, and until when it is good (Unix seconds, None: for ever)."""

    user: str
    role: str
    label: str
    hash: str
    expires: float | None


class Accounts(PDStorage):
    """The users and tokens of the router. Thread-safe; every change is on disk before the call returns."""

    def __init__(self) -> None:
        super().__init__(str(_private(settings.CONFIG_HOME_DIR) / "accounts.json"), None, 0)
        self._lock = threading.Lock()
        self._scrypt = threading.Lock()  # one at a time: each takes 16 MiB
        _give_big_blocks_back()
        self._users: dict[str, User] = {}
        self._tokens: dict[str, Token] = {}
        self.version = 0
        """Goes up whenever a user changes."""
        self._local = secrets.token_urlsafe(32)
        self.loadFromDisk()

    def getAttr(self) -> tuple[dict[str, User], dict[str, Token]]:
        """Return the users and tokens."""
        return self._users, self._tokens

    def setAttr(self, attr: tuple[dict[str, User], dict[str, Token]]) -> None:
        """Take the users and tokens."""
        self._users, self._tokens = attr

    def attrSaveable(self) -> bool:
        """Return True: they can always be saved."""
        return True

    def exportAttr(self, data: tuple[dict[str, User], dict[str, Token]]) -> dict[str, Any]:
        """Return the users and tokens as JSON has them."""
        users, tokens = data
        return {"users": {name: asdict(user) for name, user in users.items()},
                "tokens": {number: asdict(token) for number, token in tokens.items()}}

    def importAttr(self, pyld: dict[str, Any]) -> tuple[dict[str, User], dict[str, Token]]:
        """Return the users and tokens of a file's content."""
        return ({name: User(**user) for name, user in pyld["users"].items()},
                {number: Token(**token) for number, token in pyld["tokens"].items()})

    def users(self) -> dict[str, str]:
        """Return the role of each user."""
        return {name: user.role for name, user in sorted(self._users.items())}

    def tokens(self) -> dict[str, Token]:
        """Return the tokens by their id."""
        return dict(self._tokens)

    def set_user(self, name: str, password: str, role: str) -> None:
        """Make a user, or give one a new password and role; his tokens end.

        Raises:
            ParadropError: the name or the password is no good, or nobody would be left to administer.
        """
        user = self._user(name, password, role)
        with self._lock:
            self._put({**self._users, name: user}, self._tokens_without(name))
        log.info("the user %s has a new password and the role %s", name, role)

    def set_first_user(self, name: str, password: str) -> None:
        """Make the first user, an administrator. Of several that come at once, one does.

        Raises:
            ParadropError: the name or the password is no good, or there is a user.
        """
        user = self._user(name, password, "admin")
        with self._lock:
            if self._users:
                raise ParadropError("cannot make the first user: there is one")
            self._put({name: user}, {})
        log.info("the first user is %s", name)

    def _user(self, name: str, password: str, role: str) -> User:
        shortest, longest = PASSWORD_LENGTH
        if not USER_NAME.fullmatch(name):
            raise ParadropError(f"cannot make the user {name!r}: a name is 1 to 32 of a-z, 0-9, _ . -, a letter first")
        if not shortest <= len(password) <= longest:
            raise ParadropError(f"cannot set the password: it must have {shortest} to {longest} characters")
        if role not in ROLES:
            raise ParadropError(f"cannot give the role {role!r}: there are {', '.join(ROLES)}")
        salt = secrets.token_bytes(16)
        return User(role, salt.hex(), self._digest(password, salt).hex())

    def delete_user(self, name: str) -> None:
        """Forget a user and his tokens.

        Raises:
            ParadropError: there is no such user, or nobody would be left to administer.
        """
        with self._lock:
            if name not in self._users:
                raise ParadropError(f"cannot delete the user {name}: there is none of that name")
            self._put({key: user for key, user in self._users.items() if key != name}, self._tokens_without(name))
        log.info("the user %s is deleted", name)

    def check_password(self, name: str, password: str) -> Identity | None:
        """Return who this is, None if the password is wrong. Takes as long for an unknown user as for a known one."""
        user = self._users.get(name)
        salt = bytes.fromhex(user.salt) if user else b"nobody has this salt"
        digest = self._digest(password[:PASSWORD_LENGTH[1]], salt)
        if user and hmac.compare_digest(digest, bytes.fromhex(user.hash)) and len(password) <= PASSWORD_LENGTH[1]:
            return Identity(name, user.role)
        return None

    def make_token(self, user: str, role: str, label: str, days: float | None) -> tuple[str, str, Token]:
        """Return (the text to hand out, its id, what is stored). A user's oldest tokens give way to new ones.

        Raises:
            ParadropError: the user is gone.
        """
        secret, number = secrets.token_urlsafe(32), secrets.token_hex(4)
        expires = None if days is None else time.time() + days * 86400
        token = Token(user, role, label, hashlib.sha256(secret.encode()).hexdigest(), expires)
        with self._lock:
            if user not in self._users:
                raise ParadropError(f"cannot make a token: there is no user {user}; make one first")
            own = [key for key, known in self._tokens.items() if known.user == user]
            oldest = set(own[:max(0, len(own) + 1 - TOKENS_PER_USER)])
            kept = {key: known for key, known in self._tokens.items() if key not in oldest}
            self._put(self._users, {**kept, number: token})
        return f"{number}.{secret}", number, token

    def delete_token(self, number: str) -> bool:
        """Forget a token. Returns False if there is none of that id."""
        with self._lock:
            if number not in self._tokens:
                return False
            self._put(self._users, {key: token for key, token in self._tokens.items() if key != number})
        return True

    def check_token(self, text: str, browser: str | None = None) -> Identity | None:
        """Return whose token this is, None if it is nobody's or has expired.

        A session of a page is good at pages only, from the address ``browser`` where it was begun; others are not.
        """
        if browser is None and hmac.compare_digest(text.encode(errors="replace"), self._local.encode()):
            return Identity("root", "admin")
        number, _, secret = text.partition(".")
        token = self._tokens.get(number)
        digest = hashlib.sha256(secret.encode(errors="replace")).hexdigest()
        if token is None or not hmac.compare_digest(digest, token.hash):
            return None
        if token.expires is not None and token.expires < time.time():
            return None
        if token.label != SESSION + browser if browser is not None else token.label.startswith(SESSION):
            return None
        return Identity(token.user, token.role, number)

    def write_local_token(self) -> Path:
        """Write the token of the router's own root where only he can read it; return the place."""
        path = _private(settings.RUNTIME_HOME_DIR) / "token"
        pdosq.replaceFile(path, f"{self._local}\n".encode())
        return path

    def _digest(self, password: str, salt: bytes) -> bytes:
        with self._scrypt:
            return hashlib.scrypt(password.encode(errors="replace"), salt=salt, n=SCRYPT_COST, r=8, p=1)

    def _tokens_without(self, user: str) -> dict[str, Token]:
        return {number: token for number, token in self._tokens.items() if token.user != user}

    def _put(self, users: dict[str, User], tokens: dict[str, Token]) -> None:
        """Take these users and tokens, on disk and then here: if they cannot be written, all is as before."""
        before = self.getAttr()
        if any(user.role == "admin" for user in before[0].values()) and \
                not any(user.role == "admin" for user in users.values()):
            raise ParadropError("cannot take away the last administrator: make another one first")
        self.setAttr((users, tokens))
        try:
            self.saveToDisk()
        except BaseException:
            self.setAttr(before)
            raise
        self.version += users != before[0]


def _give_big_blocks_back() -> None:
    """Have glibc return what scrypt has used to the system: after the first time it would keep it for good."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def _private(home: str) -> Path:
    """Return the directory ``api`` below a directory, which only its owner can enter."""
    place = Path(home) / "api"
    pdosq.makedirs(place)
    place.chmod(0o700)
    return place
