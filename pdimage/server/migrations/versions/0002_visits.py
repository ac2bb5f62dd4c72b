"""Routers that are led from a page."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "visits",
        sa.Column("token", sa.String(64), primary_key=True),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("request_hash", sa.String(64), nullable=False, server_default=""),
        sa.Column("go", sa.Integer, nullable=False, server_default="0"),
        sa.Column("stage", sa.String(16), nullable=False, server_default="waiting"),
        sa.Column("text", sa.Text, nullable=False, server_default=""),
        sa.Column("percent", sa.Integer, nullable=False, server_default="0"),
        sa.Column("seen", sa.Float, nullable=False),
        sa.Column("until", sa.Float, nullable=False))
    op.create_index("ix_visits_until", "visits", ["until"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("visits")
