"""Months that are closed, invoices and credit notes, and to whom they go."""

# triggers are put together from our own names

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

APPEND_ONLY = ("closings", "documents")
BOOKS = (*APPEND_ONLY, "events", "entries", "chain", "reversals", "fundings")


def upgrade() -> None:
    """Make the tables, and keep them append-only."""
    op.create_table(
        "closings",
        sa.Column("retailer_id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("digest", sa.Text),
        sa.Column("closed_at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("retailer_id", "period", "stage"),
    )
    op.create_table(
        "documents",
        sa.Column("retailer_id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("number", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("advertiser_id", sa.Text, nullable=False),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("invoice_number", sa.Text),
        sa.Column("net_micros", sa.BigInteger, nullable=False),
        sa.Column("vat_micros", sa.BigInteger, nullable=False),
        sa.Column("due_micros", sa.BigInteger, nullable=False),
        sa.Column("transaction_id", sa.Text),
        sa.Column("issued_at_ms", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("retailer_id", "number"),
    )
    op.create_index("documents_by_advertiser", "documents", ["retailer_id", "advertiser_id", "period"])
    op.create_table(
        "billing_profiles",
        sa.Column("retailer_id", sa.Text, nullable=False),
        sa.Column("advertiser_id", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("retailer_id", "advertiser_id"),
    )
    is_postgres = op.get_bind().dialect.name == "postgresql"
    for statement in postgres_guards() if is_postgres else sqlite_guards():
        op.execute(statement)


def downgrade() -> None:
    """Drop them again; triggers go with their tables."""
    for table in ("billing_profiles", "documents", "closings"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        for table in BOOKS[len(APPEND_ONLY) :]:
            op.execute(f"GRANT UPDATE, DELETE, TRUNCATE ON {table} TO CURRENT_USER")


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
    # The owner too: it could give itself the right back, but not by mistake.
    revoked = [f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM PUBLIC, CURRENT_USER" for table in BOOKS]
    return [*triggers, *revoked]
