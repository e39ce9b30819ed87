"""The tables, and the structs their rows are read as."""

from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, PrimaryKeyConstraint, Table, Text

metadata = MetaData()


LEGS_MAX = 64  # more postings than any transaction has


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
    sa.CheckConstraint("spent_micros <= limit_micros", name="ck_campaign_spend_within_limit"),
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
    sa.CheckConstraint("promo_micros >= 0 AND wallet_micros >= 0 AND owed_micros >= 0", name="ck_funds_not_negative"),
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
    sa.Index("uq_events_token", "retailer_id", "token_id", "type", unique=True),
    sa.Index("uq_events_event_id", "retailer_id", "event_id", unique=True),
    sqlite_with_rowid=False,
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
    sqlite_with_rowid=False,
)


balances = Table(
    "balances",
    metadata,
    _text("retailer_id"),
    _text("account"),
    _text("period"),
    _text("currency"),
    _whole("debit_micros"),
    _whole("credit_micros"),
    PrimaryKeyConstraint("retailer_id", "account", "period", "currency"),
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


closings = Table(
    "closings",
    metadata,
    _text("retailer_id"),
    _whole("seq"),
    _text("period"),
    _text("stage"),
    _text("digest", nullable=True),  # of the sealed report
    _whole("closed_at_ms"),
    PrimaryKeyConstraint("retailer_id", "period", "stage"),
)


findings = Table(  # events found invalid after they were recorded
    "findings",
    metadata,
    _text("retailer_id"),
    _whole("seq"),
    _whole("event_seq"),
    _text("rule"),
    Column("version", Integer, nullable=False),
    _whole("amount_micros"),  # charged for it and undone
    _text("transaction_id", nullable=True),  # that undid it
    _whole("found_at_ms"),
    PrimaryKeyConstraint("retailer_id", "event_seq"),
    sqlite_with_rowid=False,
)


documents = Table(
    "documents",
    metadata,
    _text("retailer_id"),
    _whole("seq"),
    _text("number"),
    _text("kind"),  # invoice or credit-note
    _text("advertiser_id"),
    _text("period"),
    _text("invoice_number", nullable=True),  # that a credit note is on
    _whole("net_micros"),
    _whole("vat_micros"),
    _whole("due_micros"),
    _text("transaction_id", nullable=True),
    _whole("issued_at_ms"),
    _text("body"),
    PrimaryKeyConstraint("retailer_id", "number"),
    sa.Index("documents_by_advertiser", "retailer_id", "advertiser_id", "period"),
)


billing_profiles = Table(
    "billing_profiles",
    metadata,
    _text("retailer_id"),
    _text("advertiser_id"),  # empty for the seller
    _text("body"),
    _whole("updated_at_ms"),
    PrimaryKeyConstraint("retailer_id", "advertiser_id"),
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
    PrimaryKeyConstraint("retailer_id", "token_id", "type"),  # by time, as tokens are; an index by visitor would
    sqlite_with_rowid=False,  # cost every click two dirty pages, and attribution reads whole windows anyway
)


erasures = Table(  # who was erased while tokens that name them may still come back
    "erasures",
    metadata,
    _text("retailer_id"),
    _text("digest"),  # of the keyed hash, which is itself nowhere any more
    _whole("erased_at_ms"),
    PrimaryKeyConstraint("retailer_id", "digest"),
)


orders = Table(
    "orders",
    metadata,
    _text("retailer_id"),
    _text("order_id"),
    Column("part", Integer, nullable=False),  # 0 the order, then its returns
    Column("visitor", LargeBinary, nullable=True),  # keyed hash; None once erased
    Column("customer", LargeBinary, nullable=True),  # the same
    _text("channel"),
    _text("store_id", nullable=True),
    _text("traffic_source", nullable=True),
    _text("digest"),  # of what was sent, without the visitor
    _whole("occurred_at_ms"),
    _whole("recorded_at_ms"),
    PrimaryKeyConstraint("retailer_id", "order_id", "part"),
    sa.Index("ix_orders_visitor", "retailer_id", "visitor", "occurred_at_ms"),
    sa.Index("ix_orders_customer", "retailer_id", "customer", "occurred_at_ms"),
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


notices = Table(  # the outbox: what somebody is to be told, written with what made it true
    "notices",
    metadata,
    _text("retailer_id"),
    _whole("seq"),
    _text("notice_id"),
    _text("type"),
    _text("advertiser_id"),
    _text("body"),  # as it is sent
    _whole("recorded_at_ms"),
    PrimaryKeyConstraint("retailer_id", "seq"),
)


funds_levels = Table(  # how low each advertiser's funds had sunk when they were last looked at
    "funds_levels",
    metadata,
    _text("retailer_id"),
    _text("advertiser_id"),
    _whole("low_micros", nullable=True),  # below which they are low; None is the setting's
    Column("level", Integer, nullable=False),
    PrimaryKeyConstraint("retailer_id", "advertiser_id"),
)


commission_agreements = Table(
    "commission_agreements",
    metadata,
    _text("retailer_id"),
    _whole("seq"),
    _text("agreement_id"),  # its last row counts
    _text("advertiser_id"),
    Column("rate_bps", Integer, nullable=False),
    _whole("min_micros", nullable=True),
    _whole("max_micros", nullable=True),
    _whole("starts_at_ms"),
    _whole("ends_at_ms", nullable=True),
    _whole("recorded_at_ms"),
    PrimaryKeyConstraint("retailer_id", "seq"),
)


commissions = Table(
    "commissions",
    metadata,
    _text("retailer_id"),
    _whole("seq"),
    _text("order_id"),
    Column("line", Integer, nullable=False),
    Column("step", Integer, nullable=False),  # 0 the commission, then what went back of it
    _text("agreement_id"),
    _text("advertiser_id"),
    _text("campaign_id"),
    _text("token_id"),  # with the type, the event the line is credited to
    _text("type"),
    _text("basis"),
    _text("model"),
    Column("part", Integer, nullable=False),  # the last return to the order that was heeded
    _whole("quantity"),  # kept then
    _whole("sales_micros"),  # what these cost
    _whole("amount_micros"),  # negative where it went back
    _text("period"),
    _whole("occurred_at_ms"),  # when the order was made, or the goods came back
    _whole("recorded_at_ms"),
    _text("transaction_id"),
    PrimaryKeyConstraint("retailer_id", "order_id", "line", "step"),
    sa.Index("uq_commissions_seq", "retailer_id", "seq", unique=True),
    sa.Index("commissions_by_advertiser", "retailer_id", "advertiser_id", "period"),
)


ENTRY_COLUMNS = [
    "seq",
    "transaction_id",
    "line",
    "account",
    "amount_micros",
    "currency",
    "period",
    "reason",
    "reverses",
    "occurred_at_ms",
    "recorded_at_ms",
]


EVENT_COLUMNS = [
    "seq",
    "token_id",
    "type",
    "event_id",
    "auction_id",
    "placement_id",
    "slot_position",
    "product_id",
    "advertiser_id",
    "campaign_id",
    "bid_id",
    "variant",
    "status",
    "code",
    "price_micros",
    "amount_micros",
    "given_back_micros",
    "currency",
    "day",
    "reported_at_ms",
    "occurred_at_ms",
    "recorded_at_ms",
    "transaction_id",
]


CHAIN_COLUMNS = ["batch", "kind", "leaf_count", "first_seq", "last_seq", "root_hex", "prev_hex", "hash_hex"]


BATCH_ROW_COUNT = 2000  # rows fetched at once when a whole table is read


class Closing(Struct, frozen=True):
    """A row of `closings`."""

    seq: int
    period: str
    stage: str
    digest: str | None
    closed_at_ms: int


class FindingRow(Struct, frozen=True):
    """A row of `findings`."""

    seq: int
    event_seq: int
    rule: str
    version: int
    amount_micros: int
    transaction_id: str | None
    found_at_ms: int


class ClickRow(Struct, frozen=True, gc=False):
    """A click on a campaign's fill, as the traffic of a day is judged by it.

    Attributes:
        code: what became of it on arrival.
        visitor: keyed hash, None where nobody consented or since they were erased.
        is_viewed: whether a valid view of the same fill is recorded.
    """

    seq: int
    auction_id: str
    slot_position: int
    placement_id: str
    product_id: str
    campaign_id: str
    code: str | None
    amount_micros: int
    occurred_at_ms: int
    visitor: bytes | None
    is_viewed: bool


class DocumentRow(Struct, frozen=True):
    """A row of `documents`."""

    seq: int
    number: str
    kind: str
    advertiser_id: str
    period: str
    invoice_number: str | None
    net_micros: int
    vat_micros: int
    due_micros: int
    transaction_id: str | None
    issued_at_ms: int
    body: str


class CommissionRow(Struct, frozen=True):
    """A row of `commissions`."""

    seq: int
    order_id: str
    line: int
    step: int
    agreement_id: str
    advertiser_id: str
    campaign_id: str
    token_id: str
    type: str
    basis: str
    model: str
    part: int
    quantity: int
    sales_micros: int
    amount_micros: int
    period: str
    occurred_at_ms: int
    recorded_at_ms: int
    transaction_id: str


AGREEMENT_COLUMNS = [
    "seq",
    "agreement_id",
    "advertiser_id",
    "rate_bps",
    "min_micros",
    "max_micros",
    "starts_at_ms",
    "ends_at_ms",
    "recorded_at_ms",
]
