"""Permissions for other projects to call a model.

Revision ID: model_permissions
Revises: webhooks
"""

import sqlalchemy as sa
from alembic import op

revision = "model_permissions"
down_revision = "webhooks"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "model_permissions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_model_permissions_model_id_models"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_model_permissions_project_id_projects")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_permissions")),
        sa.UniqueConstraint("project_id", "model_id", name=op.f("uq_model_permissions_project_id_model_id")),
    )
    op.create_index(op.f("ix_model_permissions_model_id"), "model_permissions", ["model_id"])


def downgrade() -> None:
    """Take back."""
    op.drop_table("model_permissions")
