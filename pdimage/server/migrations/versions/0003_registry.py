"""Accounts, tokens, routers, the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "accounts",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("password", sa.String(200), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("locked", sa.Integer, nullable=False, server_default="0"),
        sa.Column("made", sa.Float, nullable=False),
        sa.Column("code", sa.String(64), nullable=False, server_default=""),
        sa.Column("code_until", sa.Float, nullable=False, server_default="0"))
    op.create_index("accounts_lower_name", "accounts", [sa.text("lower(name)")], unique=True)
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("account", sa.String(32), sa.ForeignKey("accounts.name"), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("changes", sa.Integer, nullable=False),
        sa.Column("label", sa.String(64), nullable=False, server_default=""),
        sa.Column("made", sa.Float, nullable=False),
        sa.Column("expires", sa.Float, nullable=False))
    op.create_index("ix_tokens_account", "tokens", ["account"])
    op.create_table(
        "failures",
        sa.Column("key", sa.String(100), primary_key=True),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("last", sa.Float, nullable=False))
    op.create_index("ix_failures_last", "failures", ["last"])
    _routers()
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("time", sa.Float, nullable=False),
        sa.Column("who", sa.String(80), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("account", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(80), nullable=False),
        sa.Column("text", sa.Text, nullable=False, server_default=""))
    op.create_index("ix_audit_time", "audit", ["time"])
    op.create_index("ix_audit_account", "audit", ["account"])


def _routers() -> None:
    op.create_table(
        "routers",
        sa.Column("pdid", sa.String(80), primary_key=True),
        sa.Column("account", sa.String(32), sa.ForeignKey("accounts.name"), nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("made", sa.Float, nullable=False),
        sa.Column("group_name", sa.String(32), nullable=False, server_default=""),
        sa.Column("public_key", sa.Text, nullable=False, server_default=""),
        sa.Column("certificate", sa.Text, nullable=False, server_default=""),
        sa.Column("machine", sa.String(64), nullable=False, server_default=""),
        sa.Column("provisioned", sa.Float),
        sa.Column("secret", sa.String(64), nullable=False, server_default=""),
        sa.Column("secret_until", sa.Float, nullable=False, server_default="0"),
        sa.Column("update_token", sa.String(64), nullable=False, server_default=""),
        sa.Column("seen", sa.Float),
        sa.Column("address", sa.String(64), nullable=False, server_default=""),
        sa.Column("connected", sa.Integer, nullable=False, server_default="0"),
        sa.Column("hub", sa.String(64), nullable=False, server_default=""),
        sa.Column("version", sa.String(64), nullable=False, server_default=""),
        sa.Column("facts", sa.Text, nullable=False, server_default=""),
        sa.Column("outcome", sa.Text, nullable=False, server_default=""),
        sa.Column("incident", sa.Text, nullable=False, server_default=""))
    op.create_index("routers_lower_pdid", "routers", [sa.text("lower(pdid)")], unique=True)
    for column in ("account", "group_name", "machine", "secret", "update_token"):
        op.create_index(f"ix_routers_{column}", "routers", [column])


def downgrade() -> None:
    """Drop the tables."""
    for table in ("audit", "routers", "failures", "tokens", "accounts"):
        op.drop_table(table)
