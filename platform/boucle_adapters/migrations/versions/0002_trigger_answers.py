"""What became of retraining triggers, and alerts that ask for one."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the two tables."""
    op.create_table(
        "trigger_answer",
        sa.Column("run_key", sa.String(256), primary_key=True),
        sa.Column("model", sa.String(128), nullable=False, index=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "alert",
        sa.Column("model", sa.String(128), primary_key=True),
        sa.Column("incident", sa.String(256), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Drop the two tables."""
    op.drop_table("alert")
    op.drop_table("trigger_answer")
