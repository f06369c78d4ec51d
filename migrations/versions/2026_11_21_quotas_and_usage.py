"""Quotas of projects, and what they used.

Revision ID: quotas
Revises: audit_logs
"""

import sqlalchemy as sa
from alembic import op

revision = "quotas"
down_revision = "audit_logs"
branch_labels = None
depends_on = None

_LEASED = ("jobs", "evaluations", "contexts", "batches")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "quotas",
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("limit", sa.BigInteger(), nullable=False),
        sa.CheckConstraint('"limit" >= 0', name=op.f("ck_quotas_limit")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_quotas_project_id_projects")),
        sa.PrimaryKeyConstraint("project_id", "name", name=op.f("pk_quotas")),
    )
    op.create_table(
        "usage",
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("meter", sa.String(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_usage_project_id_projects")),
        sa.PrimaryKeyConstraint("project_id", "day", "meter", name=op.f("pk_usage")),
    )
    op.create_index(op.f("ix_files_project_id_bytes"), "files", ["project_id", "bytes"])
    for table in _LEASED:
        op.add_column(table, sa.Column("metered_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Take back."""
    for table in _LEASED:
        op.drop_column(table, "metered_at")
    op.drop_index(op.f("ix_files_project_id_bytes"), table_name="files")
    op.drop_table("usage")
    op.drop_table("quotas")
