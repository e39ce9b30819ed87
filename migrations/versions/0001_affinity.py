"""The catalogue, profiles, links between visitors, saved audiences and patterns, and the change sequence."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "change_sequence",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "advertisers",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("advertiser_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "products",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("product_id", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )
    op.create_index("products_by_change", "products", ["retailer_id", "change_seq"])
    op.create_table(
        "product_advertisers",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("product_id", sa.Text, primary_key=True),
        sa.Column("advertiser_id", sa.Text, primary_key=True),
    )
    op.create_index(
        "product_advertisers_by_advertiser", "product_advertisers", ["retailer_id", "advertiser_id", "product_id"]
    )
    op.create_table(
        "categories",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("category_id", sa.Text, primary_key=True),
    )
    op.create_table(
        "attribute_types",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("type", sa.Text, nullable=False),
    )
    op.create_table(
        "segments",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("segment_id", sa.Text, primary_key=True),
    )
    op.create_table(
        "profiles",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("pseudonym", sa.LargeBinary, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )
    op.create_index("profiles_by_change", "profiles", ["retailer_id", "change_seq"])
    op.create_table(
        "visitor_links",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("pseudonym", sa.LargeBinary, primary_key=True),
        sa.Column("customer_pseudonym", sa.LargeBinary, nullable=False),
        sa.Column("linked_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("visitor_links_by_customer", "visitor_links", ["retailer_id", "customer_pseudonym"])
    op.create_table(
        "audiences",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("audience_id", sa.Text, primary_key=True),
        sa.Column("advertiser_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )
    op.create_index("audiences_by_advertiser", "audiences", ["retailer_id", "advertiser_id", "audience_id"])
    op.create_table(
        "patterns",
        sa.Column("retailer_id", sa.Text, primary_key=True),
        sa.Column("pattern_id", sa.Text, primary_key=True),
        sa.Column("advertiser_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )
    op.create_index("patterns_by_advertiser", "patterns", ["retailer_id", "advertiser_id", "pattern_id"])


def downgrade() -> None:
    """Drop them again."""
    for table in (
        "patterns",
        "audiences",
        "visitor_links",
        "profiles",
        "segments",
        "attribute_types",
        "categories",
        "product_advertisers",
        "products",
        "advertisers",
        "change_sequence",
    ):
        op.drop_table(table)
