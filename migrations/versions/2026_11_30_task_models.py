"""The tasks of a model, each a model of its own.

Revision ID: task_models
Revises: creations_made
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "task_models"
down_revision = "creations_made"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("models", sa.Column("tasks", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column(
        "jobs",
        sa.Column("task_models", postgresql.JSONB(astext_type=sa.Text()), nullable=False, server_default="{}"),
    )
    op.alter_column("jobs", "task_models", server_default=None)


def downgrade() -> None:
    """Take back."""
    op.drop_column("jobs", "task_models")
    op.drop_column("models", "tasks")
