"""Uploads in parts, and files that expire.

Revision ID: uploads
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "uploads"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("files", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(op.f("ix_files_expires_at"), "files", ["expires_at"])
    op.add_column("batches", sa.Column("output_seconds", sa.Integer(), nullable=True))
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("mime_type", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("file_seconds", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("file", sa.String(), nullable=True),
        sa.Column("part_ids", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("keeps_parts", sa.Boolean(), nullable=False),
        sa.CheckConstraint("state IN ('pending', 'completed', 'cancelled')", name=op.f("ck_uploads_state")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_uploads_project_id_projects")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(op.f("ix_uploads_project_id_created_at"), "uploads", ["project_id", "created_at"])
    op.create_index(op.f("ix_uploads_expires_at"), "uploads", ["expires_at"], postgresql_where=sa.text("keeps_parts"))
    op.create_table(
        "upload_parts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("upload_id", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("md5", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["upload_id"], ["uploads.id"], name=op.f("fk_upload_parts_upload_id_uploads")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload_parts")),
    )
    op.create_index(op.f("ix_upload_parts_upload_id_created_at_id"), "upload_parts", ["upload_id", "created_at", "id"])


def downgrade() -> None:
    """Take back."""
    op.drop_table("upload_parts")
    op.drop_table("uploads")
    op.drop_column("batches", "output_seconds")
    op.drop_index(op.f("ix_files_expires_at"), table_name="files")
    op.drop_column("files", "expires_at")
