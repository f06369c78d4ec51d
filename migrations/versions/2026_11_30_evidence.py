"""What stands behind a result, and the recommended numbers of shots.

Revision ID: evidence
Revises: task_models
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "evidence"
down_revision = "task_models"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    objects = postgresql.JSONB()
    op.add_column("evaluation_results", sa.Column("evidence", objects, nullable=True))
    op.add_column("evaluations", sa.Column("recommendations", objects, nullable=False, server_default="[]"))
    op.alter_column("evaluations", "recommendations", server_default=None)


def downgrade() -> None:
    """Take back."""
    op.drop_column("evaluations", "recommendations")
    op.drop_column("evaluation_results", "evidence")
