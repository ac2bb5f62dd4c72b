"""Groups, roll-outs, actions, devices."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "groups",
        sa.Column("account", sa.String(32), sa.ForeignKey("accounts.name"), primary_key=True),
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("note", sa.String(200), nullable=False, server_default=""),
        sa.Column("made", sa.Float, nullable=False))
    op.create_index("groups_lower_name", "groups", ["account", sa.text("lower(name)")], unique=True)
    op.create_table(
        "rollouts",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("account", sa.String(32), sa.ForeignKey("accounts.name"), nullable=False),
        sa.Column("group_name", sa.String(32), nullable=False),
        sa.Column("release", sa.String(200), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("files", sa.Text, nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("window", sa.String(200), nullable=False),
        sa.Column("zone", sa.String(64), nullable=False),
        sa.Column("forced", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("step", sa.Integer, nullable=False, server_default="0"),
        sa.Column("since", sa.Float, nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("made", sa.Float, nullable=False),
        sa.Column("made_by", sa.String(32), nullable=False),
        sa.Column("approved_by", sa.String(32), nullable=False, server_default=""),
        sa.Column("ended", sa.Float))
    op.create_index("ix_rollouts_account", "rollouts", ["account"])
    op.create_index("ix_rollouts_state", "rollouts", ["state"])
    op.create_table(
        "actions",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("rollout", sa.Integer, sa.ForeignKey("rollouts.id"), nullable=False),
        sa.Column("pdid", sa.String(80), nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("messages", sa.Text, nullable=False, server_default="[]"),
        sa.Column("made", sa.Float, nullable=False),
        sa.Column("changed", sa.Float, nullable=False),
        sa.Column("ended", sa.Float))
    op.create_index("ix_actions_pdid", "actions", ["pdid"])
    op.create_index("actions_of_rollout", "actions", ["rollout", "pdid"], unique=True)
    op.create_index("actions_counted", "actions", ["rollout", "step", "state"])
    still_open = sa.text("ended IS NULL")
    op.create_index("actions_open", "actions", ["pdid"], unique=True, sqlite_where=still_open,
                    postgresql_where=still_open)
    op.create_table(
        "devices",
        sa.Column("pdid", sa.String(80), primary_key=True),
        sa.Column("attributes", sa.Text, nullable=False, server_default=""),
        sa.Column("told", sa.Float, nullable=False, server_default="0"),
        sa.Column("seen", sa.Float, nullable=False),
        sa.Column("address", sa.String(64), nullable=False, server_default=""))


def downgrade() -> None:
    """Drop the tables."""
    for table in ("devices", "actions", "rollouts", "groups"):
        op.drop_table(table)
