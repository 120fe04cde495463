"""Ledger, traffic plans, replicas and triggers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the four tables."""
    op.create_table(
        "decision",
        sa.Column("decision_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("model", sa.String(128), nullable=False, index=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("row_hash", sa.String(64), nullable=False),
    )
    op.create_table(
        "traffic_plan",
        sa.Column("model", sa.String(128), primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "replica",
        sa.Column("replica", sa.String(128), primary_key=True),
        sa.Column("model", sa.String(128), primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("address", sa.String(256), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "trigger",
        sa.Column("run_key", sa.String(256), primary_key=True),
        sa.Column("model", sa.String(128), nullable=False, index=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """A ledger is never dropped by a migration."""
    raise RuntimeError("The ledger is append-only: there is no way back before its first revision.")
