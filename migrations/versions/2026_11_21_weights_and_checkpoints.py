"""Several models a job, whole models beside adapters, checkpoints that stay.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("start_model", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("start_sha256", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("trained_tokens", sa.BigInteger(), nullable=True))
    op.alter_column("jobs", "adapter_sha256", new_column_name="weights_sha256")
    op.add_column(
        "jobs",
        sa.Column("models", postgresql.JSONB(astext_type=sa.Text()), nullable=False, server_default="{}"),
    )
    op.alter_column("jobs", "models", server_default=None)

    op.alter_column("models", "adapter_sha256", new_column_name="weights_sha256")
    op.add_column("models", sa.Column("task", sa.String(), nullable=True))
    op.add_column("models", sa.Column("step", sa.Integer(), nullable=True))
    op.add_column("models", sa.Column("adaptation", sa.String(), nullable=False, server_default="lora"))
    op.alter_column("models", "adaptation", server_default=None)
    op.create_check_constraint(op.f("ck_models_adaptation"), "models", "adaptation IN ('lora', 'full')")
    op.drop_constraint(op.f("uq_models_job_id"), "models", type_="unique")
    op.create_index(op.f("ix_models_job_id"), "models", ["job_id"])
    op.create_index(op.f("ix_models_weights_sha256"), "models", ["weights_sha256"])

    # A checkpoint of before has no hash of its weights: its job starts anew.
    op.execute("DELETE FROM checkpoints")
    op.add_column("checkpoints", sa.Column("id", sa.String(), nullable=False))
    op.add_column("checkpoints", sa.Column("task", sa.String(), nullable=True))
    op.add_column("checkpoints", sa.Column("weights_sha256", sa.String(), nullable=False))
    op.add_column("checkpoints", sa.Column("best", sa.Boolean(), nullable=False))
    op.add_column("checkpoints", sa.Column("final", sa.Boolean(), nullable=False))
    op.alter_column("checkpoints", "key", nullable=True)
    op.create_unique_constraint(op.f("uq_checkpoints_id"), "checkpoints", ["id"])
    op.create_index(op.f("ix_checkpoints_weights_sha256"), "checkpoints", ["weights_sha256"])


def downgrade() -> None:
    """Take back; what only the newer tables can hold is forgotten."""
    op.execute("DELETE FROM checkpoints")
    op.drop_index(op.f("ix_checkpoints_weights_sha256"), table_name="checkpoints")
    op.drop_constraint(op.f("uq_checkpoints_id"), "checkpoints", type_="unique")
    for column in ("id", "task", "weights_sha256", "best", "final"):
        op.drop_column("checkpoints", column)
    op.alter_column("checkpoints", "key", nullable=False)

    op.execute("DELETE FROM models WHERE task IS NOT NULL OR step IS NOT NULL OR adaptation = 'full'")
    op.drop_index(op.f("ix_models_weights_sha256"), table_name="models")
    op.drop_index(op.f("ix_models_job_id"), table_name="models")
    op.create_unique_constraint(op.f("uq_models_job_id"), "models", ["job_id"])
    op.drop_constraint(op.f("ck_models_adaptation"), "models", type_="check")
    for column in ("task", "step", "adaptation"):
        op.drop_column("models", column)
    op.alter_column("models", "weights_sha256", new_column_name="adapter_sha256")

    op.alter_column("jobs", "weights_sha256", new_column_name="adapter_sha256")
    for column in ("start_model", "start_sha256", "trained_tokens", "models"):
        op.drop_column("jobs", column)
