"""Keys have names, scopes and a redacted form; projects are archived.

Revision ID: scopes
Revises: model_permissions
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "scopes"
down_revision = "model_permissions"
branch_labels = None
depends_on = None

# What keys could do before there were scopes.
_FORMER = "{read,write,inference}"


def upgrade() -> None:
    """Apply."""
    op.add_column("projects", sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True))
    for name, type_, former in (
        ("name", sa.String(), "unnamed"),
        ("redacted", sa.String(), "sk-manyicl-…"),
        ("scopes", postgresql.ARRAY(sa.String()), _FORMER),
    ):
        op.add_column("api_keys", sa.Column(name, type_, nullable=False, server_default=former))
        op.alter_column("api_keys", name, server_default=None)


def downgrade() -> None:
    """Take back."""
    for column in ("scopes", "redacted", "name"):
        op.drop_column("api_keys", column)
    op.drop_column("projects", "archived_at")
