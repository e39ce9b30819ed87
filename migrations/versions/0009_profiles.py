"""What is computed of customers: how they compare, each one's profile, and the segments they entered."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "customer_scales",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("computed_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "computed_profiles",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("pseudonym", sa.LargeBinary, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("computed_at_ms", sa.BigInteger, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )
    op.create_index("computed_profiles_by_change", "computed_profiles", ["retailer_id", "change_seq"])
    op.create_table(
        "segment_entries",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("pseudonym", sa.LargeBinary, primary_key=True),
        sa.Column("segment_id", sa.Text, primary_key=True),
        sa.Column("from_segment_id", sa.Text, primary_key=True),
        sa.Column("entered_at_ms", sa.BigInteger, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )
    op.create_index("segment_entries_by_change", "segment_entries", ["retailer_id", "change_seq"])


def downgrade() -> None:
    """Drop them again."""
    for table in ("segment_entries", "computed_profiles", "customer_scales"):
        op.drop_table(table)
