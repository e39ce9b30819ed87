"""The ledger's tables and every statement run on them.

Events, entries and chain batches are only ever added to (triggers refuse anything else, see migration 0003); limits,
spend, funds and balances are running figures that can be rebuilt from them. No decision is taken here.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, PrimaryKeyConstraint, Table, Text
from sqlalchemy.engine import Connection

metadata = MetaData()


def _text(name: str, nullable: bool = False) -> Column[Any]:
    return Column(name, Text, nullable=nullable)


def _whole(name: str, nullable: bool = False) -> Column[Any]:
    return Column(name, BigInteger, nullable=nullable)


campaign_limits = Table(
    "campaign_limits",
    metadata,
    _text("retailer_id"),
    _text("campaign_id"),
    _text("advertiser_id"),
    _whole("daily_micros", nullable=True),
    _whole("total_micros", nullable=True),
    PrimaryKeyConstraint("retailer_id", "campaign_id"),
)
campaign_spend = Table(
    "campaign_spend",
    metadata,
    _text("retailer_id"),
    _text("campaign_id"),
    _text("day"),  # YYYY-MM-DD in the retailer's time zone; empty for the campaign's total
    _whole("limit_micros", nullable=True),  # in force when it was last charged
    _whole("spent_micros"),
    PrimaryKeyConstraint("retailer_id", "campaign_id", "day"),
)
funds = Table(
    "funds",
    metadata,
    _text("retailer_id"),
    _text("advertiser_id"),
    _whole("promo_micros"),
    _whole("wallet_micros"),
    _whole("credit_line_micros"),
    _whole("owed_micros"),  # charged on the credit line and not yet paid
    PrimaryKeyConstraint("retailer_id", "advertiser_id"),
)
events = Table(
    "events",
    metadata,
    _text("retailer_id"),
    _whole("seq"),
    _text("token_id"),
    _text("type"),
    _text("event_id"),
    _text("auction_id"),
    _text("placement_id"),
    Column("slot_position", Integer, nullable=False),
    _text("product_id"),
    _text("advertiser_id", nullable=True),
    _text("campaign_id", nullable=True),
    _text("bid_id", nullable=True),
    _text("variant", nullable=True),
    _text("status"),
    _text("code", nullable=True),
    _whole("price_micros"),  # promised by the token for its own charge basis
    _whole("amount_micros"),  # charged
    _whole("given_back_micros"),  # would have been charged, had there been budget left
    _text("currency"),
    _text("day"),  # whose daily budget it counts against
    _whole("reported_at_ms", nullable=True),  # the reporter's word
    _whole("occurred_at_ms"),  # the same, between the fill and the arrival
    _whole("recorded_at_ms"),
    _text("transaction_id", nullable=True),
    _whole("leaf_check"),  # first 8 bytes of its leaf in the chain, to name a row that was touched
    PrimaryKeyConstraint("retailer_id", "seq"),
    sa.UniqueConstraint("retailer_id", "token_id", "type", name="uq_events_token"),
    sa.UniqueConstraint("retailer_id", "event_id", name="uq_events_event_id"),
)
entries = Table(
    "entries",
    metadata,
    _text("retailer_id"),
    _whole("seq"),
    _text("transaction_id"),
    Column("line", Integer, nullable=False),
    _text("account"),
    _whole("amount_micros"),  # debit +, credit -
    _text("currency"),
    _text("period"),  # YYYY-MM in the retailer's time zone
    _text("reason"),
    _text("reverses", nullable=True),
    _whole("occurred_at_ms"),
    _whole("recorded_at_ms"),
    _whole("leaf_check"),
    PrimaryKeyConstraint("retailer_id", "seq"),
    sa.UniqueConstraint("retailer_id", "transaction_id", "line", name="uq_entries_transaction"),
    sa.Index("ix_entries_account", "retailer_id", "account", "seq"),
)
balances = Table(
    "balances",
    metadata,
    _text("retailer_id"),
    _text("account"),
    _text("currency"),
    _whole("posted_micros"),
    PrimaryKeyConstraint("retailer_id", "account", "currency"),
)
reversals = Table(
    "reversals",
    metadata,
    _text("retailer_id"),
    _text("reverses"),
    _text("transaction_id"),
    _text("reason"),
    _whole("recorded_at_ms"),
    PrimaryKeyConstraint("retailer_id", "reverses"),
)
fundings = Table(
    "fundings",
    metadata,
    _text("retailer_id"),
    _text("kind"),  # top-up or promotional-credit
    _text("reference"),
    _text("advertiser_id"),
    _whole("amount_micros"),
    _text("transaction_id"),
    _whole("recorded_at_ms"),
    PrimaryKeyConstraint("retailer_id", "kind", "reference"),
)
chain = Table(
    "chain",
    metadata,
    _text("retailer_id"),
    _whole("batch"),
    _text("kind"),
    _whole("leaf_count"),
    _whole("first_seq"),
    _whole("last_seq"),
    _text("root_hex"),
    _text("prev_hex"),
    _text("hash_hex"),
    _whole("recorded_at_ms"),
    PrimaryKeyConstraint("retailer_id", "batch"),
    sa.UniqueConstraint("retailer_id", "kind", "first_seq", name="uq_chain_first_seq"),
)
chain_heads = Table(
    "chain_heads",
    metadata,
    _text("retailer_id"),
    _whole("batch"),
    _text("hash_hex"),
    _text("last_seqs"),  # JSON object: last sequence number by kind
    _whole("recorded_at_ms"),
    PrimaryKeyConstraint("retailer_id"),
)
touches = Table(  # who saw what, for attribution: erasable, and no part of the books
    "touches",
    metadata,
    _text("retailer_id"),
    _text("token_id"),
    _text("type"),
    Column("visitor", LargeBinary, nullable=False),  # keyed hash
    _whole("occurred_at_ms"),
    PrimaryKeyConstraint("retailer_id", "token_id", "type"),
    sa.Index("ix_touches_visitor", "retailer_id", "visitor", "occurred_at_ms"),
)
orders = Table(
    "orders",
    metadata,
    _text("retailer_id"),
    _text("order_id"),
    Column("part", Integer, nullable=False),  # 0 the order, then its returns
    Column("visitor", LargeBinary, nullable=True),  # keyed hash; None once erased
    _text("channel"),
    _text("store_id", nullable=True),
    _text("traffic_source", nullable=True),
    _text("digest"),  # of what was sent, without the visitor
    _whole("occurred_at_ms"),
    _whole("recorded_at_ms"),
    PrimaryKeyConstraint("retailer_id", "order_id", "part"),
    sa.Index("ix_orders_visitor", "retailer_id", "visitor", "occurred_at_ms"),
)
order_lines = Table(
    "order_lines",
    metadata,
    _text("retailer_id"),
    _text("order_id"),
    Column("part", Integer, nullable=False),
    Column("line", Integer, nullable=False),
    _text("product_id"),
    _whole("quantity"),  # negative in a return
    _whole("unit_price_micros"),
    PrimaryKeyConstraint("retailer_id", "order_id", "part", "line"),
)


def set_campaign_limits(
    connection: Connection,
    retailer_id: str,
    campaign_id: str,
    advertiser_id: str,
    daily_micros: int | None,
    total_micros: int | None,
) -> None:
    """Set what a campaign may be charged per day and in all; None is no limit. What is spent stays spent."""
    _upsert(
        connection,
        campaign_limits,
        {"retailer_id": retailer_id, "campaign_id": campaign_id},
        {"advertiser_id": advertiser_id, "daily_micros": daily_micros, "total_micros": total_micros},
    )


def _upsert(connection: Connection, table: Table, key: dict[str, Any], values: dict[str, Any]) -> None:
    insert = _insert(connection, table).values(**key, **values)
    connection.execute(insert.on_conflict_do_update(index_elements=list(key), set_=values))


def _insert(connection: Connection, table: Table) -> Any:
    """Return the dialect's own INSERT, which knows ON CONFLICT."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)
