"""Commission on attributed sales: what was agreed with whom, and what was posted for which line of which order."""

# ruff: noqa: S608  # the view and triggers are put together from our own names

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

APPEND_ONLY = ("commission_agreements", "commissions")


def upgrade() -> None:
    """Make the tables, and keep them append-only."""
    op.create_table(
        "commission_agreements",
        sa.Column("retailer_id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("agreement_id", sa.Text, nullable=False),
        sa.Column("advertiser_id", sa.Text, nullable=False),
        sa.Column("rate_bps", sa.Integer, nullable=False),
        sa.Column("min_micros", sa.BigInteger),
        sa.Column("max_micros", sa.BigInteger),
        sa.Column("starts_at_ms", sa.BigInteger, nullable=False),
        sa.Column("ends_at_ms", sa.BigInteger),
        sa.Column("recorded_at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("retailer_id", "seq"),
    )
    op.create_table(
        "commissions",
        sa.Column("retailer_id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("order_id", sa.Text, nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("agreement_id", sa.Text, nullable=False),
        sa.Column("advertiser_id", sa.Text, nullable=False),
        sa.Column("campaign_id", sa.Text, nullable=False),
        sa.Column("token_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("basis", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("part", sa.Integer, nullable=False),
        sa.Column("quantity", sa.BigInteger, nullable=False),
        sa.Column("sales_micros", sa.BigInteger, nullable=False),
        sa.Column("amount_micros", sa.BigInteger, nullable=False),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("occurred_at_ms", sa.BigInteger, nullable=False),
        sa.Column("recorded_at_ms", sa.BigInteger, nullable=False),
        sa.Column("transaction_id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("retailer_id", "order_id", "line", "step"),
    )
    op.create_index("uq_commissions_seq", "commissions", ["retailer_id", "seq"], unique=True)
    op.create_index("commissions_by_advertiser", "commissions", ["retailer_id", "advertiser_id", "period"])
    is_postgres = op.get_bind().dialect.name == "postgresql"
    for statement in postgres_guards() if is_postgres else sqlite_guards():
        op.execute(statement)
    op.execute(view(is_postgres))


def downgrade() -> None:
    """Drop them again; triggers go with their tables."""
    op.execute("DROP VIEW audit_commission")
    for table in reversed(APPEND_ONLY):
        op.drop_table(table)


def view(is_postgres: bool) -> str:
    """Return the view that is a public contract: the same columns and values on both databases."""

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

    return (
        "CREATE VIEW audit_commission AS SELECT order_id, line, step, agreement_id, advertiser_id, campaign_id, "
        "token_id, type, basis, quantity, sales_micros, amount_micros, period, "
        f"{moment('occurred_at_ms')} AS occurred_at, {moment('recorded_at_ms')} AS recorded_at, transaction_id "
        "FROM commissions"
    )


def sqlite_guards() -> list[str]:
    """Return triggers that let rows only be added."""
    return [
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        for table in APPEND_ONLY
        for verb in ("UPDATE", "DELETE")
    ]


def postgres_guards() -> list[str]:
    """Return the same for PostgreSQL, with the function the journal's triggers call."""
    call = "EXECUTE FUNCTION endcap_refuse_change()"
    rows = "BEFORE UPDATE OR DELETE ON {0} FOR EACH ROW"
    whole = "BEFORE TRUNCATE ON {0} FOR EACH STATEMENT"
    triggers = [
        f"CREATE TRIGGER {table}_no_{what} {when.format(table)} {call}"
        for table in APPEND_ONLY
        for what, when in (("change", rows), ("truncate", whole))
    ]
    revoked = [f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM PUBLIC, CURRENT_USER" for table in APPEND_ONLY]
    return [*triggers, *revoked]
