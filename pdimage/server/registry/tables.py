"""The tables of accounts, tokens, routers and of the audit log, beside those of :mod:`pdimage.server.tables`.

Times are Unix seconds. Of secrets, tokens and codes only the SHA-256 is kept, of passwords argon2's text. Names keep
the case they were given in and are compared without it; that two differ only in case is refused by an index.
"""

import sqlalchemy as sa
from sqlalchemy import Column, Float, ForeignKey, Integer, String, Table, Text

from pdimage.server.refusals import Refused
from pdimage.server.tables import metadata

# ``password`` is empty, and a ``code`` there, while somebody is invited; the code resets a password as well.
accounts = Table(
    "accounts", metadata,
    Column("name", String(32), primary_key=True),
    Column("password", String(200), nullable=False),
    Column("role", String(16), nullable=False),
    Column("locked", Integer, nullable=False, server_default="0"),
    Column("made", Float, nullable=False),
    Column("code", String(64), nullable=False, server_default=""),
    Column("code_until", Float, nullable=False, server_default="0"),
)
sa.Index("accounts_lower_name", sa.func.lower(accounts.c.name), unique=True)

# kind: login (paradrop), page (a browser's cookie), made (by hand, has a label). changes: 0 for one that only reads.
tokens = Table(
    "tokens", metadata,
    Column("id", String(16), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("account", String(32), ForeignKey("accounts.name"), nullable=False, index=True),
    Column("kind", String(8), nullable=False),
    Column("changes", Integer, nullable=False),
    Column("label", String(64), nullable=False, server_default=""),
    Column("made", Float, nullable=False),
    Column("expires", Float, nullable=False),
)

# Wrong passwords and codes lately, by ``name NAME`` and ``address ADDRESS`` (:mod:`.lockout`).
failures = Table(
    "failures", metadata,
    Column("key", String(100), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("last", Float, nullable=False, index=True),
)

# public_key and certificate are PEM, empty until it is provisioned; seen is empty until its first link after that.
# connected, hub (which server process has the link), version, facts and outcome (JSON) are written by the link;
# incident is what an operator must know of it.
routers = Table(
    "routers", metadata,
    Column("pdid", String(80), primary_key=True),
    Column("account", String(32), ForeignKey("accounts.name"), nullable=False, index=True),
    Column("name", String(32), nullable=False),
    Column("made", Float, nullable=False),
    Column("group_name", String(32), nullable=False, server_default="", index=True),
    Column("public_key", Text, nullable=False, server_default=""),
    Column("certificate", Text, nullable=False, server_default=""),
    Column("machine", String(64), nullable=False, server_default="", index=True),
    Column("provisioned", Float),
    Column("secret", String(64), nullable=False, server_default="", index=True),
    Column("secret_until", Float, nullable=False, server_default="0"),
    Column("update_token", String(64), nullable=False, server_default="", index=True),
    Column("seen", Float),
    Column("address", String(64), nullable=False, server_default=""),
    Column("connected", Integer, nullable=False, server_default="0"),
    Column("hub", String(64), nullable=False, server_default=""),
    Column("version", String(64), nullable=False, server_default=""),
    Column("facts", Text, nullable=False, server_default=""),
    Column("outcome", Text, nullable=False, server_default=""),
    Column("incident", Text, nullable=False, server_default=""),
)
sa.Index("routers_lower_pdid", sa.func.lower(routers.c.pdid), unique=True)

# Who changed what: ``who`` is an account, a pdid, or ``server`` for the command line beside the database. ``account``
# is the one that it concerns, who may read it.
audit = Table(
    "audit", metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False, index=True),
    Column("who", String(80), nullable=False),
    Column("address", String(64), nullable=False),
    Column("action", String(32), nullable=False),
    Column("account", String(32), nullable=False, index=True),
    Column("subject", String(80), nullable=False),
    Column("text", Text, nullable=False, server_default=""),
)


def hold_account(connection: sa.Connection, name: str) -> None:
    """Keep an account from being deleted until the transaction ends, for what is made in it; those who make something
    in it come one after the other.

    :raises Refused: it was deleted (409)
    """
    if connection.execute(sa.select(accounts.c.name).where(accounts.c.name == name).with_for_update()).first() is None:
        raise Refused(409, f"the account {name} was deleted")
