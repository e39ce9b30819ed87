"""Events found invalid after they were recorded, each once, with the rule and what undid its charge."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, and keep it append-only."""
    op.create_table(
        "findings",
        sa.Column("retailer_id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("event_seq", sa.BigInteger, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("amount_micros", sa.BigInteger, nullable=False),
        sa.Column("transaction_id", sa.Text),
        sa.Column("found_at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("retailer_id", "event_seq"),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "postgresql":
        call = "EXECUTE FUNCTION endcap_refuse_change()"
        for statement in (
            f"CREATE TRIGGER findings_no_change BEFORE UPDATE OR DELETE ON findings FOR EACH ROW {call}",
            f"CREATE TRIGGER findings_no_truncate BEFORE TRUNCATE ON findings FOR EACH STATEMENT {call}",
            "REVOKE UPDATE, DELETE, TRUNCATE ON findings FROM PUBLIC, CURRENT_USER",
        ):
            op.execute(statement)
    else:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER findings_no_{verb.lower()} BEFORE {verb} ON findings "
                "BEGIN SELECT RAISE(ABORT, 'findings is append-only'); END"
            )


def downgrade() -> None:
    """Drop it again; triggers go with their table."""
    op.drop_table("findings")
