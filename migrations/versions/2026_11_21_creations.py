"""What requests made, so that a repeated one makes nothing twice.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "creations",
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=True),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("answer", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_creations_project_id_projects")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_creations")),
    )
    op.create_index("uq_creations_project_id_key", "creations", ["project_id", "key"], unique=True)
    op.create_index(
        op.f("ix_creations_project_id_fingerprint_number"), "creations", ["project_id", "fingerprint", "number"]
    )
    op.create_index(op.f("ix_creations_created_at"), "creations", ["created_at"])


def downgrade() -> None:
    """Take back."""
    op.drop_table("creations")
