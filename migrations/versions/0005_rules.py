"""Bookings, and what retailer rules ask: virtual attributes, and the weather."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "weather_hours",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("region", sa.Text, primary_key=True),
        sa.Column("from_ms", sa.BigInteger, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "bookings",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("booking_id", sa.Text, primary_key=True),
        sa.Column("placement_id", sa.Text, nullable=False),
        sa.Column("starts_ms", sa.BigInteger, nullable=False),
        sa.Column("ends_ms", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )
    op.create_index("bookings_by_placement", "bookings", ["retailer_id", "placement_id", "ends_ms"])
    op.create_table(
        "virtual_attributes",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("virtual_attribute_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop them again."""
    op.drop_table("virtual_attributes")
    op.drop_table("bookings")
    op.drop_table("weather_hours")
