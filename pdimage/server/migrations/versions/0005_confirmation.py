"""Roll-outs that wait for somebody at each device to confirm them, and devices that agreed beforehand."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("rollouts", sa.Column("confirm", sa.Integer, nullable=False, server_default="0"))
    op.add_column("devices", sa.Column("agreed", sa.Text, nullable=False, server_default=""))
