"""Limits, events, journal entries, the hash chain, orders, touches, and the audit views."""

# ruff: noqa: S608  # view definitions are put together from our own column names

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

APPEND_ONLY = ("events", "entries", "chain", "reversals", "fundings")
VIEWS = ("audit_event", "audit_entry", "audit_balance", "audit_budget", "audit_chain")


def text(name: str, nullable: bool = False) -> sa.Column[str]:
    """Return a column of text."""
    return sa.Column(name, sa.Text(), nullable=nullable)


def whole(name: str, nullable: bool = False) -> sa.Column[int]:
    """Return a column of whole numbers up to 2^63."""
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def small(name: str) -> sa.Column[int]:
    """Return a column of small whole numbers."""
    return sa.Column(name, sa.Integer(), nullable=False)


def upgrade() -> None:
    """Make the tables, what keeps the books append-only, and the views auditors read."""
    op.create_table(
        "campaign_limits",
        text("retailer_id"),
        text("campaign_id"),
        text("advertiser_id"),
        whole("daily_micros", nullable=True),
        whole("total_micros", nullable=True),
        sa.PrimaryKeyConstraint("retailer_id", "campaign_id"),
    )
    op.create_table(
        "campaign_spend",
        text("retailer_id"),
        text("campaign_id"),
        text("day"),
        whole("limit_micros", nullable=True),
        whole("spent_micros"),
        sa.PrimaryKeyConstraint("retailer_id", "campaign_id", "day"),
        sa.CheckConstraint("spent_micros <= limit_micros", name="ck_campaign_spend_within_limit"),
    )
    op.create_table(
        "funds",
        text("retailer_id"),
        text("advertiser_id"),
        whole("promo_micros"),
        whole("wallet_micros"),
        whole("credit_line_micros"),
        whole("owed_micros"),
        sa.PrimaryKeyConstraint("retailer_id", "advertiser_id"),
        sa.CheckConstraint(
            "promo_micros >= 0 AND wallet_micros >= 0 AND owed_micros >= 0", name="ck_funds_not_negative"
        ),
    )
    op.create_table(
        "events",
        text("retailer_id"),
        whole("seq"),
        text("token_id"),
        text("type"),
        text("event_id"),
        text("auction_id"),
        text("placement_id"),
        small("slot_position"),
        text("product_id"),
        text("advertiser_id", nullable=True),
        text("campaign_id", nullable=True),
        text("bid_id", nullable=True),
        text("variant", nullable=True),
        text("status"),
        text("code", nullable=True),
        whole("price_micros"),
        whole("amount_micros"),
        whole("given_back_micros"),
        text("currency"),
        text("day"),
        whole("reported_at_ms", nullable=True),
        whole("occurred_at_ms"),
        whole("recorded_at_ms"),
        text("transaction_id", nullable=True),
        whole("leaf_check"),
        sa.PrimaryKeyConstraint("retailer_id", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_index("uq_events_token", "events", ["retailer_id", "token_id", "type"], unique=True)
    op.create_index("uq_events_event_id", "events", ["retailer_id", "event_id"], unique=True)
    op.create_table(
        "entries",
        text("retailer_id"),
        whole("seq"),
        text("transaction_id"),
        small("line"),
        text("account"),
        whole("amount_micros"),
        text("currency"),
        text("period"),
        text("reason"),
        text("reverses", nullable=True),
        whole("occurred_at_ms"),
        whole("recorded_at_ms"),
        whole("leaf_check"),
        sa.PrimaryKeyConstraint("retailer_id", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "balances",
        text("retailer_id"),
        text("account"),
        text("period"),
        text("currency"),
        whole("debit_micros"),
        whole("credit_micros"),
        sa.PrimaryKeyConstraint("retailer_id", "account", "period", "currency"),
    )
    op.create_table(
        "reversals",
        text("retailer_id"),
        text("reverses"),
        text("transaction_id"),
        text("reason"),
        whole("recorded_at_ms"),
        sa.PrimaryKeyConstraint("retailer_id", "reverses"),
    )
    op.create_table(
        "fundings",
        text("retailer_id"),
        text("kind"),
        text("reference"),
        text("advertiser_id"),
        whole("amount_micros"),
        text("transaction_id"),
        whole("recorded_at_ms"),
        sa.PrimaryKeyConstraint("retailer_id", "kind", "reference"),
    )
    op.create_table(
        "chain",
        text("retailer_id"),
        whole("batch"),
        text("kind"),
        whole("leaf_count"),
        whole("first_seq"),
        whole("last_seq"),
        text("root_hex"),
        text("prev_hex"),
        text("hash_hex"),
        sa.PrimaryKeyConstraint("retailer_id", "batch"),
        sa.UniqueConstraint("retailer_id", "kind", "first_seq", name="uq_chain_first_seq"),
    )
    op.create_table(
        "chain_heads",
        text("retailer_id"),
        whole("batch"),
        text("hash_hex"),
        text("last_seqs"),
        sa.PrimaryKeyConstraint("retailer_id"),
    )
    op.create_table(
        "touches",
        text("retailer_id"),
        text("token_id"),
        text("type"),
        sa.Column("visitor", sa.LargeBinary(), nullable=False),
        whole("occurred_at_ms"),
        sa.PrimaryKeyConstraint("retailer_id", "token_id", "type"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "orders",
        text("retailer_id"),
        text("order_id"),
        small("part"),
        sa.Column("visitor", sa.LargeBinary(), nullable=True),
        sa.Column("customer", sa.LargeBinary(), nullable=True),
        text("channel"),
        text("store_id", nullable=True),
        text("traffic_source", nullable=True),
        text("digest"),
        whole("occurred_at_ms"),
        whole("recorded_at_ms"),
        sa.PrimaryKeyConstraint("retailer_id", "order_id", "part"),
    )
    op.create_index("ix_orders_visitor", "orders", ["retailer_id", "visitor", "occurred_at_ms"])
    op.create_index("ix_orders_customer", "orders", ["retailer_id", "customer", "occurred_at_ms"])
    op.create_table(
        "order_lines",
        text("retailer_id"),
        text("order_id"),
        small("part"),
        small("line"),
        text("product_id"),
        whole("quantity"),
        whole("unit_price_micros"),
        sa.PrimaryKeyConstraint("retailer_id", "order_id", "part", "line"),
    )
    is_postgres = op.get_bind().dialect.name == "postgresql"
    for statement in postgres_guards() if is_postgres else sqlite_guards():
        op.execute(statement)
    for statement in views(is_postgres):
        op.execute(statement)


def downgrade() -> None:
    """Drop them again."""
    is_postgres = op.get_bind().dialect.name == "postgresql"
    for view in VIEWS:
        op.execute(f"DROP VIEW {view}")
    for table in (
        "order_lines",
        "orders",
        "touches",
        "chain_heads",
        "chain",
        "fundings",
        "reversals",
        "balances",
        "entries",
        "events",
        "funds",
        "campaign_spend",
        "campaign_limits",
    ):
        op.drop_table(table)  # its triggers go with it
    if is_postgres:
        op.execute("DROP FUNCTION endcap_refuse_change()")


def sqlite_guards() -> list[str]:
    """Return triggers that let rows of the books only be added."""
    return [
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        for table in APPEND_ONLY
        for verb in ("UPDATE", "DELETE")
    ]


def postgres_guards() -> list[str]:
    """Return the same for PostgreSQL, TRUNCATE included."""
    function = (
        "CREATE FUNCTION endcap_refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    rows = [
        f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION endcap_refuse_change()"
        for table in APPEND_ONLY
    ]
    tables = [
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION endcap_refuse_change()"
        for table in APPEND_ONLY
    ]
    return [function, *rows, *tables]


def views(is_postgres: bool) -> list[str]:
    """Return the views that are a public contract: the same columns and values on both databases."""

    def moment(column: str) -> str:
        if is_postgres:
            return (
                f"to_char(to_timestamp({column} / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS') "
                f"|| '.' || lpad(({column} % 1000)::text, 3, '0') || 'Z'"
            )
        return (
            f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000, 'unixepoch') "
            f"|| '.' || substr('000' || ({column} % 1000), -3) || 'Z'"
        )

    def total(expression: str) -> str:
        return f"CAST(SUM({expression}) AS BIGINT)"

    return [
        "CREATE VIEW audit_event AS SELECT event_id, token_id, type, advertiser_id, campaign_id, status, "
        f"amount_micros, currency, {moment('occurred_at_ms')} AS occurred_at, "
        f"{moment('recorded_at_ms')} AS recorded_at, transaction_id FROM events",
        "CREATE VIEW audit_entry AS SELECT seq, transaction_id, line, account, amount_micros, currency, period, "
        f"reason, reverses, {moment('recorded_at_ms')} AS recorded_at FROM entries",
        f"CREATE VIEW audit_balance AS SELECT account, currency, {total('debit_micros - credit_micros')} "
        "AS posted_micros FROM balances GROUP BY account, currency",
        # A total's limit is today's, unless it was lowered under what is spent: then the one it was spent under.
        "CREATE VIEW audit_budget AS SELECT campaign_id, 'daily' AS scope, day, limit_micros, spent_micros "
        "FROM campaign_spend WHERE day <> '' "
        "UNION ALL SELECT l.campaign_id, 'total', NULL, "
        "CASE WHEN l.total_micros < s.spent_micros THEN s.limit_micros ELSE l.total_micros END, "
        "COALESCE(s.spent_micros, 0) FROM campaign_limits l LEFT JOIN campaign_spend s "
        "ON s.retailer_id = l.retailer_id AND s.campaign_id = l.campaign_id AND s.day = '' "
        "UNION ALL SELECT s.campaign_id, 'total', NULL, s.limit_micros, s.spent_micros FROM campaign_spend s "
        "WHERE s.day = '' AND NOT EXISTS (SELECT 1 FROM campaign_limits l "
        "WHERE l.retailer_id = s.retailer_id AND l.campaign_id = s.campaign_id)",
        "CREATE VIEW audit_chain AS SELECT batch, kind, leaf_count AS count, first_seq, last_seq, root_hex, prev_hex "
        "FROM chain",
    ]
