"""Users of the console, and its sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "users",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("advertiser_ids", sa.Text, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("disabled_at_ms", sa.BigInteger),
    )
    op.create_index("uq_users_name", "users", ["retailer_id", "name"], unique=True)
    op.create_table(
        "console_sessions",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("session_hash", sa.LargeBinary, primary_key=True),
        sa.Column("subject_id", sa.Text, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop them again."""
    op.drop_table("console_sessions")
    op.drop_index("uq_users_name", table_name="users")
    op.drop_table("users")
