"""The id of what a request made.

Revision ID: creations_made
Revises: deleted_rows
"""

import sqlalchemy as sa
from alembic import op

revision = "creations_made"
down_revision = "deleted_rows"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("creations", sa.Column("made", sa.String(), nullable=True))
    op.create_index(op.f("ix_creations_made"), "creations", ["made"])


def downgrade() -> None:
    """Take back."""
    op.drop_index(op.f("ix_creations_made"), "creations")
    op.drop_column("creations", "made")
