"""The tables of the first version."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "requests",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("defaults", sa.Text, nullable=False),
        sa.Column("client", sa.String(80), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("stage", sa.String(32), nullable=False, server_default=""),
        sa.Column("accepted", sa.Float, nullable=False),
        sa.Column("started", sa.Float),
        sa.Column("finished", sa.Float),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("worker", sa.String(128), nullable=False, server_default=""),
        sa.Column("lease", sa.String(64), nullable=False, server_default=""),
        sa.Column("lease_until", sa.Float),
        sa.Column("failure", sa.String(16), nullable=False, server_default=""),
        sa.Column("error", sa.Text, nullable=False, server_default=""),
        sa.Column("hits", sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_requests_state", "requests", ["state"])
    op.create_index("ix_requests_finished", "requests", ["finished"])
    op.create_index("requests_client_accepted", "requests", ["client", "accepted"])
    op.create_table(
        "logs",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("text", sa.Text, nullable=False))
    op.create_table(
        "images",
        sa.Column("request_hash", sa.String(64), primary_key=True),
        sa.Column("image_hash", sa.String(64), nullable=False),
        sa.Column("manifest_hash", sa.String(64), nullable=False),
        sa.Column("distro", sa.String(32), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("target", sa.String(65), nullable=False),
        sa.Column("profile", sa.String(100), nullable=False),
        sa.Column("defaults_hash", sa.String(64), nullable=False),
        sa.Column("snapshot", sa.Integer, nullable=False),
        sa.Column("worker", sa.String(128), nullable=False),
        sa.Column("built", sa.Float, nullable=False),
        sa.Column("build_seconds", sa.Float, nullable=False),
        sa.Column("sysupgrade", sa.String(200), nullable=False),
        sa.Column("files", sa.Text, nullable=False),
        sa.Column("details", sa.Text, nullable=False))
    op.create_index("ix_images_image_hash", "images", ["image_hash"])
    op.create_index("ix_images_manifest_hash", "images", ["manifest_hash"])
    op.create_index("ix_images_built", "images", ["built"])
    op.create_table(
        "manifests",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("packages", sa.Text, nullable=False))
    op.create_table(
        "targets",
        sa.Column("distro", sa.String(32), primary_key=True),
        sa.Column("version", sa.String(64), primary_key=True),
        sa.Column("target", sa.String(65), primary_key=True),
        sa.Column("synced", sa.Float, nullable=False),
        sa.Column("found", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "counts",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop the tables."""
    for table in ("counts", "targets", "manifests", "images", "logs", "requests"):
        op.drop_table(table)
