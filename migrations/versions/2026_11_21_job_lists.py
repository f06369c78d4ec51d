"""Indexes for lists of jobs: in the order of the pages, and by metadata.

Revision ID: job_lists
Revises: uploads
"""

from alembic import op

revision = "job_lists"
down_revision = "uploads"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.drop_index(op.f("ix_jobs_project_id_created_at"), table_name="jobs")
    op.create_index(op.f("ix_jobs_project_id_created_at_id"), "jobs", ["project_id", "created_at", "id"])
    op.create_index(
        op.f("ix_jobs_metadata"),
        "jobs",
        ["metadata"],
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index(op.f("ix_jobs_metadata"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_project_id_created_at_id"), table_name="jobs")
    op.create_index(op.f("ix_jobs_project_id_created_at"), "jobs", ["project_id", "created_at"])
