"""What is left of deleted rows, so that a page may start behind one.

Revision ID: deleted_rows
Revises: quotas
"""

import sqlalchemy as sa
from alembic import op

revision = "deleted_rows"
down_revision = "quotas"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "deleted_rows",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("table", sa.String(), nullable=False),
        sa.Column("owner_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deleted_rows")),
    )
    op.create_index(op.f("ix_deleted_rows_deleted_at"), "deleted_rows", ["deleted_at"])


def downgrade() -> None:
    """Take back."""
    op.drop_table("deleted_rows")
