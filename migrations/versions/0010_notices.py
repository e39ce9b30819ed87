"""Notices, how far each advertiser's funds had sunk when it was last told, and the webhooks that tell."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables; whoever has money now is told of the next crossing."""
    op.create_table(
        "notices",
        sa.Column("retailer_id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("notice_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("advertiser_id", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("recorded_at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("retailer_id", "seq"),
    )
    op.create_table(
        "funds_levels",
        sa.Column("retailer_id", sa.Text, nullable=False),
        sa.Column("advertiser_id", sa.Text, nullable=False),
        sa.Column("low_micros", sa.BigInteger),
        sa.Column("level", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("retailer_id", "advertiser_id"),
    )
    op.execute(
        "INSERT INTO funds_levels (retailer_id, advertiser_id, level) "
        "SELECT retailer_id, advertiser_id, "
        "CASE WHEN promo_micros + wallet_micros > 0 OR credit_line_micros > owed_micros THEN 2 ELSE 0 END FROM funds"
    )
    op.create_table(
        "webhooks",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("webhook_id", sa.Text, primary_key=True),
        sa.Column("advertiser_id", sa.Text),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("event_types", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("secret_generation", sa.Integer, nullable=False),
        sa.Column("previous_until_ms", sa.BigInteger),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("delivery_id", sa.Text, primary_key=True),
        sa.Column("webhook_id", sa.Text, nullable=False),
        sa.Column("notice_seq", sa.BigInteger, nullable=False),
        sa.Column("notice_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempt_count", sa.Integer, nullable=False),
        sa.Column("next_attempt_at_ms", sa.BigInteger, nullable=False),
        sa.Column("last_attempt_at_ms", sa.BigInteger),
        sa.Column("last_status", sa.Integer),
        sa.Column("last_error", sa.Text),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index(
        "webhook_deliveries_by_notice",
        "webhook_deliveries",
        ["retailer_id", "webhook_id", "notice_id"],
        unique=True,
    )
    op.create_index(
        "webhook_deliveries_by_status",
        "webhook_deliveries",
        ["retailer_id", "status", "webhook_id", "next_attempt_at_ms"],
    )
    op.create_table(
        "webhook_leases",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("held_until_ms", sa.BigInteger, nullable=False),
        sa.Column("handed_out_seq", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop them again."""
    for table in ("webhook_leases", "webhook_deliveries", "webhooks", "funds_levels", "notices"):
        op.drop_table(table)
