"""Since when products can be bought, and the signals of merchandising that rules ask for."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "availability_changes",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("product_id", sa.Text, primary_key=True),
        sa.Column("from_ms", sa.BigInteger, primary_key=True),
        sa.Column("is_available", sa.Boolean, nullable=False),
    )
    op.create_table(
        "merchandising_signals",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop them again."""
    op.drop_table("merchandising_signals")
    op.drop_table("availability_changes")
