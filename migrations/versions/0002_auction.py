"""Campaigns, bids, placements, caps of pages and retailer rules."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "campaigns",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("campaign_id", sa.Text, primary_key=True),
        sa.Column("advertiser_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )
    op.create_index("campaigns_by_advertiser", "campaigns", ["retailer_id", "advertiser_id", "campaign_id"])
    op.create_index("campaigns_by_change", "campaigns", ["retailer_id", "change_seq"])
    op.create_table(
        "bids",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("bid_id", sa.Text, primary_key=True),
        sa.Column("campaign_id", sa.Text, nullable=False),
        sa.Column("advertiser_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )
    op.create_index("bids_by_advertiser", "bids", ["retailer_id", "advertiser_id", "bid_id"])
    op.create_index("bids_by_campaign", "bids", ["retailer_id", "campaign_id", "bid_id"])
    op.create_index("bids_by_change", "bids", ["retailer_id", "change_seq"])
    op.create_table(
        "placements",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("placement_id", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "page_caps",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("page_type", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "rules",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("rule_id", sa.Text, primary_key=True),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )
    op.create_index("rules_by_change", "rules", ["retailer_id", "change_seq"])


def downgrade() -> None:
    """Drop them again."""
    for table in ("rules", "page_caps", "placements", "bids", "campaigns"):
        op.drop_table(table)
