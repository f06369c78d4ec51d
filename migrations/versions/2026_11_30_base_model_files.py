"""Which files stand behind the id of a base model.

Revision ID: base_model_files
Revises: workers
"""

import sqlalchemy as sa
from alembic import op

revision = "base_model_files"
down_revision = "workers"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "base_model_files",
        sa.Column("base_model", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("base_model", name=op.f("pk_base_model_files")),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("base_model_files")
