"""The tables of groups, roll-outs and actions, beside those of :mod:`pdimage.server.registry.tables`.

Times are Unix seconds. Counters are kept nowhere: they are counted, so they can't disagree with what is counted.
"""

import sqlalchemy as sa
from sqlalchemy import Column, Float, ForeignKey, Integer, String, Table, Text

from pdimage.server.registry.tables import accounts
from pdimage.server.tables import metadata

# A router is in one group of its account (``routers.group_name``) or in none.
groups = Table(
    "groups", metadata,
    Column("account", String(32), ForeignKey(accounts.c.name), primary_key=True),
    Column("name", String(32), primary_key=True),
    Column("note", String(200), nullable=False, server_default=""),
    Column("made", Float, nullable=False),
)
sa.Index("groups_lower_name", groups.c.account, sa.func.lower(groups.c.name), unique=True)

# group_name: empty for all routers of the account. release, title, version, digest and files (JSON): what is rolled
# out (releases.py). plan (JSON): states.Plan. step began ``since``. window is in the time of zone, empty: the server's.
rollouts = Table(
    "rollouts", metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("account", String(32), ForeignKey(accounts.c.name), nullable=False, index=True),
    Column("group_name", String(32), nullable=False),
    Column("release", String(200), nullable=False),
    Column("title", String(200), nullable=False),
    Column("version", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("files", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("window", String(200), nullable=False),
    Column("zone", String(64), nullable=False),
    Column("forced", Integer, nullable=False),
    Column("confirm", Integer, nullable=False, server_default="0"),
    Column("state", String(16), nullable=False, index=True),
    Column("step", Integer, nullable=False, server_default="0"),
    Column("since", Float, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("made", Float, nullable=False),
    Column("made_by", String(32), nullable=False),
    Column("approved_by", String(32), nullable=False, server_default=""),
    Column("ended", Float),
)

# What a roll-out does with one router. The number is hawkBit's id of the action. messages (JSON): what the device said,
# the newest last. The database itself sees to it that no router has two open actions.
actions = Table(
    "actions", metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("rollout", Integer, ForeignKey("rollouts.id"), nullable=False),
    Column("pdid", String(80), nullable=False, index=True),
    Column("step", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("messages", Text, nullable=False, server_default="[]"),
    Column("made", Float, nullable=False),
    Column("changed", Float, nullable=False),
    Column("ended", Float),
)
sa.Index("actions_of_rollout", actions.c.rollout, actions.c.pdid, unique=True)
sa.Index("actions_counted", actions.c.rollout, actions.c.step, actions.c.state)
sa.Index("actions_open", actions.c.pdid, unique=True, sqlite_where=actions.c.ended.is_(None),
         postgresql_where=actions.c.ended.is_(None))

# What a device told by hawkBit's API: attributes (JSON; empty: none yet) and when; when and from where it asked last.
# agreed (JSON; empty: no): confirmation.Agreed, by which whatever wants to be confirmed is.
devices = Table(
    "devices", metadata,
    Column("pdid", String(80), primary_key=True),
    Column("attributes", Text, nullable=False, server_default=""),
    Column("told", Float, nullable=False, server_default="0"),
    Column("seen", Float, nullable=False),
    Column("address", String(64), nullable=False, server_default=""),
    Column("agreed", Text, nullable=False, server_default=""),
)
