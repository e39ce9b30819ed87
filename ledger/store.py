"""The ledger's tables and every statement run on them.

Events, entries and chain batches are only ever added to (triggers refuse anything else, see migration 0003); limits,
spend, funds and balances are running figures that can be rebuilt from them. No decision is taken here.
"""

# ruff: noqa: S608  # statements are put together from our own names; every value is a parameter

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, PrimaryKeyConstraint, Table, Text
from sqlalchemy.engine import Connection

from ledger.errors import LedgerBroken

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


class BudgetMoved(LedgerBroken):
    """A limit was lowered or money left between reading and writing; the same work may be done again."""


# --- the chain's head: locked first by everybody who appends, so that there is one order of everything


def lock_chain_head(connection: Connection, retailer_id: str) -> tuple[int, str, str] | None:
    """Return batch, hash and last sequence numbers (JSON) and hold the row until the transaction ends."""
    row = connection.exec_driver_sql(_sql(connection).lock_head, (retailer_id,)).first()
    return None if row is None else (row[0], row[1], row[2])


def insert_chain_head(connection: Connection, retailer_id: str, hash_hex: str) -> None:
    """Begin a chain, unless somebody else just did."""
    values = {"retailer_id": retailer_id, "batch": 0, "hash_hex": hash_hex, "last_seqs": "{}"}
    connection.execute(_insert(connection, chain_heads).values(**values).on_conflict_do_nothing())


def update_chain_head(connection: Connection, retailer_id: str, batch: int, hash_hex: str, last_seqs: str) -> None:
    """Write where the chain ends."""
    connection.exec_driver_sql(_sql(connection).update_head, (batch, hash_hex, last_seqs, retailer_id))


def insert_chain_batch(connection: Connection, retailer_id: str, columns: tuple[Any, ...]) -> None:
    """Add one link, its columns in the order of CHAIN_COLUMNS."""
    connection.exec_driver_sql(_sql(connection).insert_chain, (retailer_id, *columns))


def read_chain_head(connection: Connection, retailer_id: str) -> tuple[int, str, str] | None:
    """Return batch, hash and last sequence numbers (JSON) as they are."""
    row = connection.execute(
        sa.select(chain_heads.c.batch, chain_heads.c.hash_hex, chain_heads.c.last_seqs).where(
            chain_heads.c.retailer_id == retailer_id
        )
    ).first()
    return None if row is None else (row[0], row[1], row[2])


# --- one group of events


def settle(connection: Connection) -> None:
    """Give SQLite room to keep the indexes' pages in memory, and let it copy the log back in larger pieces."""
    if connection.dialect.name == "sqlite":
        for pragma in ("cache_size = -65536", "wal_autocheckpoint = 4000"):
            connection.exec_driver_sql("PRAGMA " + pragma)


def find_recorded(
    connection: Connection, retailer_id: str, token_ids: Iterable[str], event_ids: Iterable[str]
) -> list[tuple[Any, ...]]:
    """Return (event_id, token_id, type, reported_at_ms, code, amount_micros) of whatever is recorded of these."""
    sql = _sql(connection)
    by_token = _fetch(connection, sql.find_tokens, (sql.pack(list(token_ids)), retailer_id))
    return by_token + _fetch(connection, sql.find_event_ids, (sql.pack(list(event_ids)), retailer_id))


def read_limits(
    connection: Connection, retailer_id: str, campaign_ids: Iterable[str]
) -> list[tuple[str, int | None, int | None]]:
    """Return (campaign_id, daily_micros, total_micros) of the campaigns that have any."""
    sql = _sql(connection)
    found = connection.exec_driver_sql(sql.find_limits, (sql.pack(list(campaign_ids)), retailer_id)).all()
    return [(row[0], row[1], row[2]) for row in found]


def read_spend(
    connection: Connection, retailer_id: str, campaign_ids: Iterable[str], days: Iterable[str]
) -> list[tuple[str, str, int]]:
    """Return (campaign_id, day, spent_micros); the empty day is the campaign's total."""
    sql = _sql(connection)
    packed = (sql.pack(list(campaign_ids)), sql.pack(list(days)), retailer_id)
    return [(row[0], row[1], row[2]) for row in connection.exec_driver_sql(sql.find_spend, packed).all()]


def read_funds(
    connection: Connection, retailer_id: str, advertiser_ids: Iterable[str]
) -> list[tuple[str, int, int, int, int]]:
    """Return (advertiser_id, promo, wallet, credit line, owed) of the advertisers that have any."""
    sql = _sql(connection)
    found = connection.exec_driver_sql(sql.find_funds, (sql.pack(list(advertiser_ids)), retailer_id)).all()
    return [(row[0], row[1], row[2], row[3], row[4]) for row in found]


def spend(connection: Connection, retailer_id: str, rows: Sequence[tuple[str, str, int | None, int]]) -> None:
    """Add (campaign_id, day, limit_micros, micros) to what was spent.

    Raises:
        BudgetMoved: one of them would pass its limit; the transaction must not be committed.
    """
    if not rows:
        return
    done = connection.exec_driver_sql(_sql(connection).spend, [(retailer_id, *row) for row in rows])
    _expect(done.rowcount, len(rows), "campaign_spend")


def take_funds(connection: Connection, retailer_id: str, rows: Sequence[tuple[str, int, int, int]]) -> None:
    """Take (advertiser_id, promo, wallet, credit) micros out of advertisers' funds; negative parts give back.

    Raises:
        BudgetMoved: somebody has not that much; the transaction must not be committed.
    """
    if not rows:
        return
    parameters = [
        (promo, wallet, credit, retailer_id, advertiser_id, promo, wallet, credit, credit)
        for advertiser_id, promo, wallet, credit in rows
    ]
    done = connection.exec_driver_sql(_sql(connection).take, parameters)
    _expect(done.rowcount, len(rows), "funds")


def insert_events(
    connection: Connection, retailer_id: str, rows: Sequence[tuple[Any, ...]], checks: Sequence[int]
) -> None:
    """Add events, their columns in the order of EVENT_COLUMNS."""
    if rows:
        parameters = [(retailer_id, *row, check) for row, check in zip(rows, checks, strict=True)]
        connection.exec_driver_sql(_sql(connection).insert_event, parameters)


def insert_entries(
    connection: Connection, retailer_id: str, rows: Sequence[tuple[Any, ...]], checks: Sequence[int]
) -> None:
    """Add journal entries, their columns in the order of ENTRY_COLUMNS."""
    if rows:
        parameters = [(retailer_id, *row, check) for row, check in zip(rows, checks, strict=True)]
        connection.exec_driver_sql(_sql(connection).insert_entry, parameters)


def move_balances(connection: Connection, retailer_id: str, rows: Sequence[tuple[str, str, str, int, int]]) -> None:
    """Add (account, period, currency, debit_micros, credit_micros) to the running balances."""
    if rows:
        connection.exec_driver_sql(_sql(connection).move_balance, [(retailer_id, *row) for row in rows])


def insert_touches(connection: Connection, retailer_id: str, rows: Sequence[tuple[str, str, bytes, int]]) -> None:
    """Keep (token_id, type, visitor, occurred_at_ms) for attribution."""
    if rows:
        connection.exec_driver_sql(_sql(connection).insert_touch, [(retailer_id, *row) for row in rows])


# --- commands


def read_transaction_entries(connection: Connection, retailer_id: str, transaction_id: str) -> list[Any]:
    """Return the entries of one transaction in their order; its id says where they begin."""
    number = transaction_id.removeprefix("txn_")
    if number == transaction_id or not number.isascii() or not number.isdecimal() or len(number) > 18:
        return []
    found = connection.execute(
        sa.select(entries)
        .where(
            entries.c.retailer_id == retailer_id,
            entries.c.seq >= int(number),
            entries.c.seq < int(number) + LEGS_MAX,
            entries.c.transaction_id == transaction_id,
        )
        .order_by(entries.c.seq)
    )
    return list(found)


def read_reversal(connection: Connection, retailer_id: str, transaction_id: str) -> str | None:
    """Return the id of the transaction that reversed this one."""
    found = connection.execute(
        sa.select(reversals.c.transaction_id).where(
            reversals.c.retailer_id == retailer_id, reversals.c.reverses == transaction_id
        )
    )
    return found.scalar()


def insert_reversal(
    connection: Connection, retailer_id: str, reverses: str, transaction_id: str, reason: str, recorded_at_ms: int
) -> None:
    """Note that a transaction is reversed; the key lets it happen once."""
    connection.execute(
        reversals.insert().values(
            retailer_id=retailer_id,
            reverses=reverses,
            transaction_id=transaction_id,
            reason=reason,
            recorded_at_ms=recorded_at_ms,
        )
    )


def read_funding(connection: Connection, retailer_id: str, kind: str, reference: str) -> Any | None:
    """Return the top-up or promotional credit booked under a reference."""
    return connection.execute(
        sa.select(fundings).where(
            fundings.c.retailer_id == retailer_id, fundings.c.kind == kind, fundings.c.reference == reference
        )
    ).first()


def list_fundings(
    connection: Connection, retailer_id: str, kind: str, advertiser_id: str | None, after: str | None, limit: int
) -> list[Any]:
    """Return top-ups or promotional credits by reference."""
    query = sa.select(fundings).where(fundings.c.retailer_id == retailer_id, fundings.c.kind == kind)
    if advertiser_id is not None:
        query = query.where(fundings.c.advertiser_id == advertiser_id)
    if after is not None:
        query = query.where(fundings.c.reference > after)
    return list(connection.execute(query.order_by(fundings.c.reference).limit(limit)))


def insert_funding(connection: Connection, values: Mapping[str, Any]) -> None:
    """Book a reference."""
    connection.execute(fundings.insert().values(**values))


def ensure_funds(connection: Connection, retailer_id: str, advertiser_id: str) -> None:
    """Give an advertiser a purse, empty unless there is one."""
    values = {"promo_micros": 0, "wallet_micros": 0, "credit_line_micros": 0, "owed_micros": 0}
    connection.execute(
        _insert(connection, funds)
        .values(retailer_id=retailer_id, advertiser_id=advertiser_id, **values)
        .on_conflict_do_nothing()
    )


def set_credit_line(connection: Connection, retailer_id: str, advertiser_id: str, amount_micros: int) -> None:
    """Set the most an advertiser may owe. It may already owe more: then nothing is charged on credit."""
    connection.execute(
        funds.update()
        .where(funds.c.retailer_id == retailer_id, funds.c.advertiser_id == advertiser_id)
        .values(credit_line_micros=amount_micros)
    )


# --- notices


def read_funds_levels(
    connection: Connection, retailer_id: str, advertiser_ids: Iterable[str]
) -> list[tuple[str, int | None, int]]:
    """Return (advertiser_id, low_micros, level) of the advertisers that have any."""
    sql = _sql(connection)
    found = _fetch(connection, sql.find_levels, (sql.pack(list(advertiser_ids)), retailer_id))
    return [(row[0], row[1], row[2]) for row in found]


def set_funds_level(connection: Connection, retailer_id: str, advertiser_id: str, level: int) -> None:
    """Keep how low an advertiser's funds are."""
    _upsert(connection, funds_levels, {"retailer_id": retailer_id, "advertiser_id": advertiser_id}, {"level": level})


def set_low_funds(
    connection: Connection, retailer_id: str, advertiser_id: str, low_micros: int | None, first_level: int
) -> None:
    """Set below what an advertiser's funds are low; `first_level` is theirs where none was kept."""
    key = {"retailer_id": retailer_id, "advertiser_id": advertiser_id}
    insert = _insert(connection, funds_levels).values(**key, low_micros=low_micros, level=first_level)
    connection.execute(insert.on_conflict_do_update(index_elements=list(key), set_={"low_micros": low_micros}))


def insert_notices(
    connection: Connection, retailer_id: str, rows: Sequence[tuple[str, str, str, str]], recorded_at_ms: int
) -> None:
    """Add (notice_id, type, advertiser_id, body) to the outbox; the chain's head is locked, so numbers are in order."""
    last = sa.select(sa.func.coalesce(sa.func.max(notices.c.seq), 0)).where(notices.c.retailer_id == retailer_id)
    names = ("notice_id", "type", "advertiser_id", "body")
    first_seq = int(connection.execute(last).scalar_one()) + 1
    values = [
        {"retailer_id": retailer_id, "seq": seq, "recorded_at_ms": recorded_at_ms, **dict(zip(names, row, strict=True))}
        for seq, row in enumerate(rows, first_seq)
    ]
    connection.execute(notices.insert(), values)


def read_last_notice(connection: Connection, retailer_id: str) -> int:
    """Return the newest notice's number, 0 for none."""
    query = sa.select(sa.func.max(notices.c.seq)).where(notices.c.retailer_id == retailer_id)
    return connection.execute(query).scalar() or 0


def read_notices_after(connection: Connection, retailer_id: str, seq: int, limit: int) -> list[Any]:
    """Return rows of the outbox behind a number, in their order."""
    query = sa.select(notices).where(notices.c.retailer_id == retailer_id, notices.c.seq > seq)
    return list(connection.execute(query.order_by(notices.c.seq).limit(limit)))


def forget_notices(connection: Connection, retailer_id: str, before_seq: int, before_ms: int) -> None:
    """Delete old notices. The one at `before_seq` stays: the next one is numbered after it."""
    connection.execute(
        notices.delete().where(
            notices.c.retailer_id == retailer_id, notices.c.seq < before_seq, notices.c.recorded_at_ms < before_ms
        )
    )


# --- months and documents


def read_posted(connection: Connection, retailer_id: str, account: str) -> int:
    """Return what was posted to an account, debit +."""
    query = sa.select(sa.func.coalesce(sa.func.sum(balances.c.debit_micros - balances.c.credit_micros), 0)).where(
        balances.c.retailer_id == retailer_id, balances.c.account == account
    )
    return int(connection.execute(query).scalar_one())


def move_owed(connection: Connection, retailer_id: str, advertiser_id: str, micros: int) -> None:
    """Add to what an advertiser owes, whatever its credit line is: an invoice or a bounced payment is owed anyhow."""
    done = connection.execute(
        funds.update()
        .where(funds.c.retailer_id == retailer_id, funds.c.advertiser_id == advertiser_id)
        .values(owed_micros=funds.c.owed_micros + micros)
    )
    _expect(done.rowcount, 1, "funds")


def list_closings(connection: Connection, retailer_id: str) -> list[Closing]:
    """Return every closing of a month, in the order they happened."""
    return [Closing(*row) for row in _read_columns(connection, closings, Closing, retailer_id)]


def insert_closing(connection: Connection, retailer_id: str, row: tuple[Any, ...]) -> None:
    """Keep a closing, its columns in the order of `Closing`."""
    values = dict(zip(Closing.__struct_fields__, row, strict=True))
    connection.execute(closings.insert().values(retailer_id=retailer_id, **values))


def closing_leaves(connection: Connection, retailer_id: str) -> Iterator[bytes]:
    """Yield the closings' rows as the chain has them."""
    for row in _read_columns(connection, closings, Closing, retailer_id):
        yield msgspec.json.encode(tuple(row))


def list_sealed(connection: Connection, retailer_id: str) -> list[tuple[str, str]]:
    """Return (period, digest) of every sealed month."""
    query = sa.select(closings.c.period, closings.c.digest).where(
        closings.c.retailer_id == retailer_id, closings.c.stage == "sealed"
    )
    return [(row[0], row[1]) for row in connection.execute(query.order_by(closings.c.period))]


def last_sealed(connection: Connection, retailer_id: str) -> str:
    """Return the last sealed month, empty for none."""
    query = sa.select(sa.func.max(closings.c.period)).where(
        closings.c.retailer_id == retailer_id, closings.c.stage == "sealed"
    )
    return connection.execute(query).scalar() or ""


def list_periods(connection: Connection, retailer_id: str) -> list[str]:
    """Return every month something was posted in."""
    query = sa.select(balances.c.period).where(balances.c.retailer_id == retailer_id).distinct()
    return sorted(connection.execute(query).scalars())


def list_agreed(connection: Connection, retailer_id: str, account: str, period: str) -> list[tuple[str, int]]:
    """Return (reason, micros) of what was agreed, booked in a month on an account, and not reversed."""
    query = sa.select(entries.c.reason, entries.c.amount_micros).where(
        entries.c.retailer_id == retailer_id,
        entries.c.period == period,
        entries.c.account == account,
        entries.c.reason.like("booking:%"),
        entries.c.reverses.is_(None),
        ~_is_reversed(entries.c.transaction_id, retailer_id),
    )
    return [(row[0], int(row[1])) for row in connection.execute(query.order_by(entries.c.seq))]


def list_consumed(
    connection: Connection, retailer_id: str, advertiser_id: str, period: str
) -> list[tuple[str, str, int, int]]:
    """Return (campaign_id, type, count, micros) of an advertiser's charges booked in a month and not reversed."""
    first_seq = sa.cast(sa.func.substr(events.c.transaction_id, 5), BigInteger)  # an id names its first entry
    query = (
        sa.select(events.c.campaign_id, events.c.type, sa.func.count(), sa.func.sum(events.c.amount_micros))
        .join(entries, (entries.c.retailer_id == events.c.retailer_id) & (entries.c.seq == first_seq))
        .where(
            events.c.retailer_id == retailer_id,
            events.c.advertiser_id == advertiser_id,
            events.c.transaction_id.is_not(None),
            entries.c.period == period,
            ~_is_reversed(events.c.transaction_id, retailer_id),
        )
        .group_by(events.c.campaign_id, events.c.type)
        .order_by(events.c.campaign_id, events.c.type)
    )
    return [(row[0], row[1], int(row[2]), int(row[3])) for row in connection.execute(query)]


def sum_charges(connection: Connection, retailer_id: str, accounts: Sequence[str], period: str) -> dict[str, int]:
    """Return what charges booked in a month and not reversed were charged to each of some accounts."""
    query = (
        sa.select(entries.c.account, sa.func.sum(entries.c.amount_micros))
        .where(
            entries.c.retailer_id == retailer_id,
            entries.c.period == period,
            entries.c.account.in_(accounts),
            sa.or_(*(entries.c.reason.like(kind) for kind in ("charge:%", "booking:%", "commission:%"))),
            entries.c.reverses.is_(None),
            ~_is_reversed(entries.c.transaction_id, retailer_id),
        )
        .group_by(entries.c.account)
    )
    return {row[0]: int(row[1]) for row in connection.execute(query)}


def find_invoice(connection: Connection, retailer_id: str, advertiser_id: str, period: str) -> str | None:
    """Return the number of the invoice on an advertiser's month."""
    query = sa.select(documents.c.number).where(
        documents.c.retailer_id == retailer_id,
        documents.c.advertiser_id == advertiser_id,
        documents.c.period == period,
        documents.c.kind == "invoice",
    )
    return connection.execute(query).scalar()


def find_return_note(connection: Connection, retailer_id: str, advertiser_id: str, period: str) -> str | None:
    """Return the number of the credit note on what went back of commission in an advertiser's month."""
    query = sa.select(documents.c.number).where(
        documents.c.retailer_id == retailer_id,
        documents.c.advertiser_id == advertiser_id,
        documents.c.period == period,
        documents.c.kind == "credit-note",
        documents.c.invoice_number.is_(None),
    )
    return connection.execute(query).scalar()


def count_documents(connection: Connection, retailer_id: str, prefix: str) -> int:
    """Count the documents whose number begins so."""
    query = sa.select(sa.func.count()).where(
        documents.c.retailer_id == retailer_id, documents.c.number.startswith(prefix, autoescape=True)
    )
    return int(connection.execute(query).scalar_one())


def sum_credited(connection: Connection, retailer_id: str, invoice_number: str) -> tuple[int, int]:
    """Return net and VAT that credit notes gave back of an invoice, in micros."""
    query = sa.select(
        sa.func.coalesce(sa.func.sum(documents.c.net_micros), 0),
        sa.func.coalesce(sa.func.sum(documents.c.vat_micros), 0),
    ).where(documents.c.retailer_id == retailer_id, documents.c.invoice_number == invoice_number)
    row = connection.execute(query).one()
    return int(row[0]), int(row[1])


def insert_document(connection: Connection, retailer_id: str, row: DocumentRow) -> None:
    """Keep a document."""
    connection.execute(documents.insert().values(retailer_id=retailer_id, **msgspec.structs.asdict(row)))


def read_document(connection: Connection, retailer_id: str, number: str) -> DocumentRow | None:
    """Return a document."""
    found = list(_read_columns(connection, documents, DocumentRow, retailer_id, documents.c.number == number))
    return DocumentRow(*found[0]) if found else None


def list_documents(
    connection: Connection, retailer_id: str, kind: str, advertiser_id: str | None, after: str | None, limit: int
) -> list[DocumentRow]:
    """Return documents of a kind by number."""
    query = sa.select(*(documents.c[name] for name in DocumentRow.__struct_fields__)).where(
        documents.c.retailer_id == retailer_id, documents.c.kind == kind
    )
    if advertiser_id is not None:
        query = query.where(documents.c.advertiser_id == advertiser_id)
    if after is not None:
        query = query.where(documents.c.number > after)
    return [DocumentRow(*row) for row in connection.execute(query.order_by(documents.c.number).limit(limit))]


def document_leaves(connection: Connection, retailer_id: str) -> Iterator[bytes]:
    """Yield the documents' rows as the chain has them."""
    for row in _read_columns(connection, documents, DocumentRow, retailer_id):
        yield msgspec.json.encode(tuple(row))


# --- traffic judged afterwards


def list_event_days(connection: Connection, retailer_id: str, period: str) -> list[tuple[str, int, int]]:
    """Return the days of a month events count for, each with the first and the last sequence number of them."""
    query = (
        sa.select(events.c.day, sa.func.min(events.c.seq), sa.func.max(events.c.seq))
        .where(events.c.retailer_id == retailer_id, events.c.day >= period + "-01", events.c.day <= period + "-31")
        .group_by(events.c.day)
        .order_by(events.c.day)
    )
    return [(row[0], row[1], row[2]) for row in connection.execute(query)]


def read_clicks(
    connection: Connection, retailer_id: str, day: str, first_seq: int, last_seq: int, not_viewed: Collection[str]
) -> list[ClickRow]:
    """Return the clicks on campaigns' fills that count for a day, in the order they were recorded.

    Args:
        not_viewed: codes of views that are none.
    """
    view = events.alias("view")
    is_viewed = (
        sa.select(view.c.seq)
        .where(
            view.c.retailer_id == retailer_id,
            view.c.token_id == events.c.token_id,
            view.c.type == "view",
            sa.func.coalesce(view.c.code, "").not_in(not_viewed),
        )
        .exists()
    )
    columns = [events.c[name] for name in ClickRow.__struct_fields__ if name in events.c]
    query = (
        sa.select(*columns, touches.c.visitor, is_viewed)
        .outerjoin(
            touches,
            (touches.c.retailer_id == events.c.retailer_id)
            & (touches.c.token_id == events.c.token_id)
            & (touches.c.type == events.c.type),
        )
        .where(
            events.c.retailer_id == retailer_id,
            events.c.seq >= first_seq,
            events.c.seq <= last_seq,
            events.c.day == day,
            events.c.type == "click",
            events.c.campaign_id.is_not(None),
        )
        .order_by(events.c.seq)
    )
    return [
        ClickRow(*(*row[:-2], None if row[-2] is None else bytes(row[-2]), bool(row[-1])))
        for row in _read_bit_by_bit(connection, query)
    ]


def count_shown(
    connection: Connection,
    retailer_id: str,
    day: str,
    first_seq: int,
    last_seq: int,
    hour_ms: int,
    not_shown: Collection[str],
) -> dict[tuple[str, str, int], int]:
    """Count a day's impressions by placement, campaign and hour since 1970, without those of some codes."""
    hour = sa.cast(sa.func.floor(events.c.occurred_at_ms / hour_ms), BigInteger)
    query = (
        sa.select(events.c.placement_id, events.c.campaign_id, hour, sa.func.count())
        .where(
            events.c.retailer_id == retailer_id,
            events.c.seq >= first_seq,
            events.c.seq <= last_seq,
            events.c.day == day,
            events.c.type == "impression",
            events.c.campaign_id.is_not(None),
            sa.func.coalesce(events.c.code, "").not_in(not_shown),
        )
        .group_by(events.c.placement_id, events.c.campaign_id, sa.text("3"))
    )
    return {(row[0], row[1], int(row[2])): int(row[3]) for row in connection.execute(query)}


def read_found(connection: Connection, retailer_id: str, event_seqs: Collection[int]) -> set[int]:
    """Return which of the events were found invalid already."""
    query = sa.select(findings.c.event_seq).where(
        findings.c.retailer_id == retailer_id, findings.c.event_seq.in_(list(event_seqs))
    )
    return set(connection.execute(query).scalars())


def read_charges(connection: Connection, retailer_id: str, event_seqs: Collection[int]) -> list[Any]:
    """Return (seq, day, amount_micros, transaction_id, reversed by) of events."""
    query = (
        sa.select(
            events.c.seq,
            events.c.day,
            events.c.amount_micros,
            events.c.transaction_id,
            reversals.c.transaction_id.label("reversed_by"),
        )
        .outerjoin(
            reversals,
            (reversals.c.retailer_id == events.c.retailer_id) & (reversals.c.reverses == events.c.transaction_id),
        )
        .where(events.c.retailer_id == retailer_id, events.c.seq.in_(list(event_seqs)))
        .order_by(events.c.seq)
    )
    return list(connection.execute(query))


def insert_findings(connection: Connection, retailer_id: str, rows: Sequence[FindingRow]) -> None:
    """Keep findings; the key lets an event be found once."""
    if rows:
        connection.execute(
            findings.insert(), [{"retailer_id": retailer_id, **msgspec.structs.asdict(row)} for row in rows]
        )


def finding_leaves(connection: Connection, retailer_id: str) -> Iterator[bytes]:
    """Yield the findings' rows as the chain has them."""
    for row in _read_columns(connection, findings, FindingRow, retailer_id):
        yield msgspec.json.encode(tuple(row))


def list_findings(connection: Connection, retailer_id: str) -> list[FindingRow]:
    """Return everything that was found, in the order it was."""
    return [FindingRow(*row) for row in _read_columns(connection, findings, FindingRow, retailer_id)]


def _is_of_event(retailer_id: str) -> Any:
    """Return what joins an event with what was found of it."""
    return (findings.c.retailer_id == retailer_id) & (findings.c.event_seq == events.c.seq)


def set_billing_profile(connection: Connection, retailer_id: str, advertiser_id: str, body: str, now_ms: int) -> None:
    """Set who sells, under the empty id, or to whom an advertiser's invoices go."""
    key = {"retailer_id": retailer_id, "advertiser_id": advertiser_id}
    _upsert(connection, billing_profiles, key, {"body": body, "updated_at_ms": now_ms})


def read_billing_profile(connection: Connection, retailer_id: str, advertiser_id: str) -> str | None:
    """Return a profile's body."""
    query = sa.select(billing_profiles.c.body).where(
        billing_profiles.c.retailer_id == retailer_id, billing_profiles.c.advertiser_id == advertiser_id
    )
    return connection.execute(query).scalar()


def _is_reversed(transaction_id: Any, retailer_id: str) -> Any:
    return (
        sa.select(reversals.c.reverses)
        .where(reversals.c.retailer_id == retailer_id, reversals.c.reverses == transaction_id)
        .exists()
    )


def _read_columns(
    connection: Connection, table: Table, kind: type[Struct], retailer_id: str, *conditions: Any
) -> Iterator[Any]:
    """Yield a table's rows as the fields of a struct, in the order of their sequence numbers."""
    query = sa.select(*(table.c[name] for name in kind.__struct_fields__)).where(
        table.c.retailer_id == retailer_id, *conditions
    )
    yield from _read_bit_by_bit(connection, query.order_by(table.c.seq))


# --- commission on attributed sales


def read_agreements(connection: Connection, retailer_id: str) -> list[tuple[Any, ...]]:
    """Return the rows of agreements, as AGREEMENT_COLUMNS, in their order."""
    columns = [commission_agreements.c[name] for name in AGREEMENT_COLUMNS]
    query = sa.select(*columns).where(commission_agreements.c.retailer_id == retailer_id)
    return [tuple(row) for row in connection.execute(query.order_by(commission_agreements.c.seq))]


def read_agreements_after(connection: Connection, retailer_id: str, seq: int, limit: int) -> list[tuple[Any, ...]]:
    """Return rows of agreements after a sequence number, as AGREEMENT_COLUMNS."""
    return [row for row in read_agreements(connection, retailer_id) if row[0] > seq][:limit]


def insert_agreement(connection: Connection, retailer_id: str, row: tuple[Any, ...]) -> None:
    """Keep a row of an agreement, its columns in the order of AGREEMENT_COLUMNS."""
    values = dict(zip(AGREEMENT_COLUMNS, row, strict=True))
    connection.execute(commission_agreements.insert().values(retailer_id=retailer_id, **values))


def agreement_leaves(connection: Connection, retailer_id: str) -> Iterator[bytes]:
    """Yield the agreements' rows as the chain has them."""
    for row in read_agreements(connection, retailer_id):
        yield msgspec.json.encode(row)


def insert_commissions(connection: Connection, retailer_id: str, rows: Sequence[CommissionRow]) -> None:
    """Keep what was posted; the key lets it happen once per line and step."""
    values = [{"retailer_id": retailer_id, **msgspec.structs.asdict(row)} for row in rows]
    connection.execute(commissions.insert(), values)


def commission_leaves(connection: Connection, retailer_id: str) -> Iterator[bytes]:
    """Yield the commissions' rows as the chain has them."""
    for row in _read_columns(connection, commissions, CommissionRow, retailer_id):
        yield msgspec.json.encode(tuple(row))


def read_commissions_of(connection: Connection, retailer_id: str, order_id: str) -> list[CommissionRow]:
    """Return what was posted for an order, in the order it was."""
    is_of_it = commissions.c.order_id == order_id
    return [CommissionRow(*row) for row in _read_columns(connection, commissions, CommissionRow, retailer_id, is_of_it)]


def list_commissions(
    connection: Connection, retailer_id: str, advertiser_id: str | None, after_seq: int, limit: int
) -> list[CommissionRow]:
    """Return what was posted, all or an advertiser's, in the order it was."""
    query = sa.select(*(commissions.c[name] for name in CommissionRow.__struct_fields__)).where(
        commissions.c.retailer_id == retailer_id, commissions.c.seq > after_seq
    )
    if advertiser_id is not None:
        query = query.where(commissions.c.advertiser_id == advertiser_id)
    return [CommissionRow(*row) for row in connection.execute(query.order_by(commissions.c.seq).limit(limit))]


def read_commissions_after(connection: Connection, retailer_id: str, seq: int, limit: int) -> list[tuple[Any, ...]]:
    """Return commissions after a sequence number, their columns in the order of `CommissionRow`."""
    return [msgspec.structs.astuple(row) for row in list_commissions(connection, retailer_id, None, seq, limit)]


def list_commissioned(connection: Connection, retailer_id: str, from_ms: int, to_ms: int) -> set[tuple[str, int]]:
    """Return (order_id, line) of the orders of [from, to) that were charged."""
    query = sa.select(commissions.c.order_id, commissions.c.line).where(
        commissions.c.retailer_id == retailer_id,
        commissions.c.step == 0,
        commissions.c.occurred_at_ms >= from_ms,
        commissions.c.occurred_at_ms < to_ms,
    )
    return {(row[0], row[1]) for row in connection.execute(query)}


def list_returned_orders(connection: Connection, retailer_id: str) -> list[str]:
    """Return the orders that were charged and have a return nothing was posted for yet; told apart without a clock."""

    def charged(*conditions: Any) -> Any:
        is_of_it = (commissions.c.retailer_id == orders.c.retailer_id) & (commissions.c.order_id == orders.c.order_id)
        return sa.select(commissions.c.seq).where(is_of_it, *conditions).exists()

    query = sa.select(orders.c.order_id).where(
        orders.c.retailer_id == retailer_id,
        orders.c.part > 0,
        charged(),
        ~charged(commissions.c.part >= orders.c.part),
    )
    return sorted(set(connection.execute(query).scalars()))


def last_commissioned_ms(connection: Connection, retailer_id: str, agreement_id: str) -> int | None:
    """Return when the last order was made that was charged under an agreement, None for none."""
    query = sa.select(sa.func.max(commissions.c.occurred_at_ms)).where(
        commissions.c.retailer_id == retailer_id, commissions.c.agreement_id == agreement_id, commissions.c.step == 0
    )
    found: int | None = connection.execute(query).scalar()
    return found


def read_order(connection: Connection, retailer_id: str, order_id: str) -> list[tuple[int, int, int, str, int, int]]:
    """Return (part, line, occurred_at_ms, product_id, quantity, unit_price_micros) of an order and its returns."""
    is_line = sa.and_(*(orders.c[name] == order_lines.c[name] for name in ("retailer_id", "order_id", "part")))
    query = (
        sa.select(
            order_lines.c.part,
            order_lines.c.line,
            orders.c.occurred_at_ms,
            order_lines.c.product_id,
            order_lines.c.quantity,
            order_lines.c.unit_price_micros,
        )
        .join(orders, is_line)
        .where(order_lines.c.retailer_id == retailer_id, order_lines.c.order_id == order_id)
        .order_by(order_lines.c.part, order_lines.c.line)
    )
    return [(row[0], row[1], row[2], row[3], row[4], row[5]) for row in connection.execute(query)]


def find_touched(connection: Connection, retailer_id: str, token_id: str, kind: str) -> tuple[str, str] | None:
    """Return (advertiser_id, campaign_id) of an event on a campaign's fill, None where there is none."""
    query = sa.select(events.c.advertiser_id, events.c.campaign_id).where(
        events.c.retailer_id == retailer_id,
        events.c.token_id == token_id,
        events.c.type == kind,
        events.c.campaign_id.is_not(None),
    )
    row = connection.execute(query).first()
    return None if row is None else (row[0], row[1])


def read_commissions_between(
    connection: Connection, retailer_id: str, column: str, from_ms: int, to_ms: int, advertiser_id: str | None
) -> Iterator[tuple[str, str, int, int]]:
    """Yield (name, advertiser_id, micros, at_ms) of commission on orders, and of what went back, of [from, to).

    Args:
        column: the name: `campaign_id`, `product_id` or `placement_id` of what was touched.
    """
    is_touch = sa.and_(*(commissions.c[name] == events.c[name] for name in ("retailer_id", "token_id", "type")))
    query = (
        sa.select(
            events.c[column], commissions.c.advertiser_id, commissions.c.amount_micros, commissions.c.occurred_at_ms
        )
        .join(events, is_touch)
        .where(
            commissions.c.retailer_id == retailer_id,
            commissions.c.occurred_at_ms >= from_ms,
            commissions.c.occurred_at_ms < to_ms,
        )
    )
    if advertiser_id is not None:
        query = query.where(commissions.c.advertiser_id == advertiser_id)
    for row in _read_bit_by_bit(connection, query):
        yield row[0], row[1], int(row[2]), row[3]


def sum_month_commissions(
    connection: Connection, retailer_id: str, advertiser_id: str, period: str
) -> list[tuple[str, bool, int, int]]:
    """Return (agreement_id, is_return, lines, micros) booked in an advertiser's month and not reversed."""
    is_return = commissions.c.step > 0
    query = (
        sa.select(commissions.c.agreement_id, is_return, sa.func.count(), sa.func.sum(commissions.c.amount_micros))
        .where(
            commissions.c.retailer_id == retailer_id,
            commissions.c.advertiser_id == advertiser_id,
            commissions.c.period == period,
            ~_is_reversed(commissions.c.transaction_id, retailer_id),
        )
        .group_by(commissions.c.agreement_id, is_return)
        .order_by(commissions.c.agreement_id, is_return)
    )
    return [(row[0], bool(row[1]), int(row[2]), int(row[3])) for row in connection.execute(query)]


def list_returned_from(connection: Connection, retailer_id: str, advertiser_id: str, period: str) -> list[str]:
    """Return the months that commission was charged in of which something went back in a month."""
    original = commissions.alias("original")
    is_original = sa.and_(
        *(original.c[name] == commissions.c[name] for name in ("retailer_id", "order_id", "line")),
        original.c.step == 0,
    )
    query = (
        sa.select(original.c.period)
        .select_from(commissions.join(original, is_original))
        .where(
            commissions.c.retailer_id == retailer_id,
            commissions.c.advertiser_id == advertiser_id,
            commissions.c.period == period,
            commissions.c.step > 0,
        )
        .distinct()
    )
    return sorted(connection.execute(query).scalars())


def sum_returned_of(connection: Connection, retailer_id: str, advertiser_id: str, period: str) -> int:
    """Return what went back so far of the commission charged in an advertiser's month, in micros."""
    original = commissions.alias("original")
    is_original = sa.and_(
        *(original.c[name] == commissions.c[name] for name in ("retailer_id", "order_id", "line")),
        original.c.step == 0,
    )
    query = (
        sa.select(sa.func.coalesce(sa.func.sum(commissions.c.amount_micros), 0))
        .select_from(commissions.join(original, is_original))
        .where(
            commissions.c.retailer_id == retailer_id,
            original.c.advertiser_id == advertiser_id,
            original.c.period == period,
            commissions.c.step > 0,
            ~_is_reversed(commissions.c.transaction_id, retailer_id),
        )
    )
    return -int(connection.execute(query).scalar_one())


def has_returned(connection: Connection, retailer_id: str, transaction_id: str) -> bool:
    """Say whether something went back of the commission a transaction charged."""
    original = commissions.alias("original")
    is_original = sa.and_(*(original.c[name] == commissions.c[name] for name in ("retailer_id", "order_id", "line")))
    query = (
        sa.select(sa.func.count())
        .select_from(commissions.join(original, is_original))
        .where(
            commissions.c.retailer_id == retailer_id,
            commissions.c.step > 0,
            original.c.step == 0,
            original.c.transaction_id == transaction_id,
        )
    )
    return bool(connection.execute(query).scalar_one())


# --- orders and touches


def read_order_parts(connection: Connection, retailer_id: str, order_id: str) -> list[Any]:
    """Return (part, digest) of an order and its returns."""
    return list(
        connection.execute(
            sa.select(orders.c.part, orders.c.digest)
            .where(orders.c.retailer_id == retailer_id, orders.c.order_id == order_id)
            .order_by(orders.c.part)
        )
    )


def read_order_span(connection: Connection, retailer_id: str) -> tuple[int, int] | None:
    """Return when the first and the last order that are kept were made, UTC milliseconds since 1970; None for none."""
    made = orders.c.occurred_at_ms
    query = sa.select(sa.func.min(made), sa.func.max(made)).where(orders.c.retailer_id == retailer_id)
    first, last = connection.execute(query).one()
    return None if first is None else (first, last)


def count_orders(connection: Connection, retailer_id: str, from_ms: int, until_ms: int) -> int:
    """Return how many orders and returns of a time are kept."""
    made = sa.and_(orders.c.occurred_at_ms >= from_ms, orders.c.occurred_at_ms < until_ms)
    query = sa.select(sa.func.count()).where(orders.c.retailer_id == retailer_id, made)
    return int(connection.execute(query).scalar_one())


def read_order_lines(
    connection: Connection, retailer_id: str, from_ms: int, until_ms: int, channels: Sequence[str]
) -> Iterator[tuple[tuple[str, int], int, str, int, int]]:
    """Yield the lines of the orders and returns of a time, made over some of the channels, one order after the other.

    Each as (order id and its part, UTC milliseconds since 1970, product id, quantity, micros per unit).
    """
    is_same = sa.and_(
        orders.c.retailer_id == order_lines.c.retailer_id,
        orders.c.order_id == order_lines.c.order_id,
        orders.c.part == order_lines.c.part,
    )
    query = (
        sa.select(
            orders.c.order_id,
            orders.c.part,
            orders.c.occurred_at_ms,
            order_lines.c.product_id,
            order_lines.c.quantity,
            order_lines.c.unit_price_micros,
        )
        .join(order_lines, is_same)
        .where(
            orders.c.retailer_id == retailer_id,
            orders.c.occurred_at_ms >= from_ms,
            orders.c.occurred_at_ms < until_ms,
            orders.c.channel.in_(channels),
        )
        .order_by(orders.c.order_id, orders.c.part, order_lines.c.line)
    )
    for row in _read_bit_by_bit(connection, query):
        yield (row[0], row[1]), row[2], row[3], row[4], row[5]


def insert_order(connection: Connection, order: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> None:
    """Keep an order, or a return to one, with its lines."""
    connection.execute(orders.insert().values(**order))
    connection.execute(order_lines.insert(), list(lines))


def read_ordered_lines(connection: Connection, retailer_id: str) -> Iterator[Any]:
    """Yield (visitor, customer, order_id, occurred_at_ms, product_id, quantity, unit_price_micros) of every line.

    Of orders and returns whose buyer is known; one consistent view, not in any order. For profiles, outside the books.
    """
    query = (
        sa.select(
            orders.c.visitor,
            orders.c.customer,
            orders.c.order_id,
            orders.c.occurred_at_ms,
            order_lines.c.product_id,
            order_lines.c.quantity,
            order_lines.c.unit_price_micros,
        )
        .join(
            order_lines,
            sa.and_(
                order_lines.c.retailer_id == orders.c.retailer_id,
                order_lines.c.order_id == orders.c.order_id,
                order_lines.c.part == orders.c.part,
            ),
        )
        .where(
            orders.c.retailer_id == retailer_id, sa.or_(orders.c.visitor.is_not(None), orders.c.customer.is_not(None))
        )
    )
    yield from connection.execute(query.execution_options(yield_per=10_000))


def erase_visitors(
    connection: Connection, retailer_id: str, visitors: Collection[bytes], now_ms: int, kept_ms: int
) -> None:
    """Forget whose orders and touches these were. The books hold nothing of it and stay as they are.

    Clicks on what they were shown before may still come, and are billed; that they were theirs is not kept.

    Args:
        now_ms: UTC, milliseconds since 1970.
        kept_ms: how long a token issued before now may come back; older erasures are forgotten.
    """
    lock_chain_head(connection, retailer_id)  # no group of events is half way through
    named = list(visitors)
    connection.execute(touches.delete().where(touches.c.retailer_id == retailer_id, touches.c.visitor.in_(named)))
    for column in (orders.c.visitor, orders.c.customer):
        connection.execute(
            orders.update().where(orders.c.retailer_id == retailer_id, column.in_(named)).values({column: None})
        )
    connection.execute(
        erasures.delete().where(erasures.c.retailer_id == retailer_id, erasures.c.erased_at_ms < now_ms - kept_ms)
    )
    for visitor in named:
        _upsert(
            connection, erasures, {"retailer_id": retailer_id, "digest": _digest(visitor)}, {"erased_at_ms": now_ms}
        )


def read_erasures(connection: Connection, retailer_id: str, visitors: Collection[bytes]) -> dict[bytes, int]:
    """Return when those of the visitors were erased who were."""
    sql = _sql(connection)
    by_digest = {_digest(visitor): visitor for visitor in visitors}
    found = _fetch(connection, sql.find_erasures, (sql.pack(list(by_digest)), retailer_id))
    return {by_digest[digest]: erased_at_ms for digest, erased_at_ms in found}


def _digest(visitor: bytes) -> str:
    return hashlib.sha256(visitor).hexdigest()


def read_orders_of(connection: Connection, retailer_id: str, visitors: Collection[bytes]) -> list[Any]:
    """Return the lines of every order of the visitors, with their orders' columns, by time."""
    named = list(visitors)
    is_line = sa.and_(*(orders.c[name] == order_lines.c[name] for name in ("retailer_id", "order_id", "part")))
    query = (
        sa.select(orders, order_lines.c.product_id, order_lines.c.quantity, order_lines.c.unit_price_micros)
        .join(order_lines, is_line)
        .where(orders.c.retailer_id == retailer_id, orders.c.visitor.in_(named) | orders.c.customer.in_(named))
        .order_by(orders.c.occurred_at_ms, orders.c.order_id, orders.c.part, order_lines.c.line)
    )
    return list(connection.execute(query))


def read_touches_of(connection: Connection, retailer_id: str, visitors: Collection[bytes]) -> list[Any]:
    """Return (type, visitor, occurred_at_ms) of what the visitors clicked, by time."""
    query = (
        sa.select(touches.c.type, touches.c.visitor, touches.c.occurred_at_ms)
        .where(touches.c.retailer_id == retailer_id, touches.c.visitor.in_(list(visitors)))
        .order_by(touches.c.occurred_at_ms)
    )
    return list(connection.execute(query))


# --- reading


def list_spend(connection: Connection, retailer_id: str, from_day: str) -> list[tuple[str, str, int]]:
    """Return (campaign_id, day, spent_micros) from a day on, and every campaign's total under the empty day."""
    found = connection.execute(
        sa.select(campaign_spend.c.campaign_id, campaign_spend.c.day, campaign_spend.c.spent_micros).where(
            campaign_spend.c.retailer_id == retailer_id,
            (campaign_spend.c.day == "") | (campaign_spend.c.day >= from_day),
        )
    )
    return [(row[0], row[1], row[2]) for row in found]


def list_funds(
    connection: Connection, retailer_id: str, advertiser_id: str | None, after: str | None, limit: int | None
) -> list[tuple[str, int, int, int, int]]:
    """Return (advertiser_id, promo, wallet, credit line, owed), by advertiser."""
    query = sa.select(
        funds.c.advertiser_id,
        funds.c.promo_micros,
        funds.c.wallet_micros,
        funds.c.credit_line_micros,
        funds.c.owed_micros,
    ).where(funds.c.retailer_id == retailer_id)
    if advertiser_id is not None:
        query = query.where(funds.c.advertiser_id == advertiser_id)
    if after is not None:
        query = query.where(funds.c.advertiser_id > after)
    found = connection.execute(query.order_by(funds.c.advertiser_id).limit(limit))
    return [(row[0], row[1], row[2], row[3], row[4]) for row in found]


def list_balances(connection: Connection, retailer_id: str) -> list[Any]:
    """Return (account, period, currency, debit_micros, credit_micros) by account and period."""
    return list(
        connection.execute(
            sa.select(
                balances.c.account,
                balances.c.period,
                balances.c.currency,
                balances.c.debit_micros,
                balances.c.credit_micros,
            )
            .where(balances.c.retailer_id == retailer_id)
            .order_by(balances.c.account, balances.c.period, balances.c.currency)
        )
    )


def list_transaction_ids(
    connection: Connection, retailer_id: str, after_seq: int, limit: int, account: str | None, period: str | None
) -> list[tuple[int, str]]:
    """Return (seq, transaction_id) of transactions after an entry: by their first one, or the one of `account`.

    Without an index on accounts, which every charge would pay for: a rare account is found by reading on.
    """
    query = sa.select(entries.c.seq, entries.c.transaction_id).where(
        entries.c.retailer_id == retailer_id, entries.c.seq > after_seq
    )
    query = query.where(entries.c.line == 1) if account is None else query.where(entries.c.account == account)
    if period is not None:
        query = query.where(entries.c.period == period)
    return [(row[0], row[1]) for row in connection.execute(query.order_by(entries.c.seq).limit(limit))]


def list_campaign_days(
    connection: Connection, retailer_id: str, advertiser_id: str, from_day: str, to_day: str
) -> list[tuple[str, str, int]]:
    """Return (campaign_id, day, spent_micros) of an advertiser's campaigns, both days included."""
    found = connection.execute(
        sa.select(campaign_spend.c.campaign_id, campaign_spend.c.day, campaign_spend.c.spent_micros)
        .join(
            campaign_limits,
            (campaign_limits.c.retailer_id == campaign_spend.c.retailer_id)
            & (campaign_limits.c.campaign_id == campaign_spend.c.campaign_id),
        )
        .where(
            campaign_spend.c.retailer_id == retailer_id,
            campaign_limits.c.advertiser_id == advertiser_id,
            campaign_spend.c.day >= from_day,
            campaign_spend.c.day <= to_day,
        )
        .order_by(campaign_spend.c.campaign_id, campaign_spend.c.day)
    )
    return [(row[0], row[1], row[2]) for row in found]


def read_events_after(connection: Connection, retailer_id: str, seq: int, limit: int) -> list[tuple[Any, ...]]:
    """Return events after a sequence number as the driver's tuples: EVENT_COLUMNS, then the leaf check."""
    return _fetch(connection, _sql(connection).events_after, (retailer_id, seq, limit))


def read_entries_after(connection: Connection, retailer_id: str, seq: int, limit: int) -> list[tuple[Any, ...]]:
    """Return entries after a sequence number as the driver's tuples: ENTRY_COLUMNS, then the leaf check."""
    return _fetch(connection, _sql(connection).entries_after, (retailer_id, seq, limit))


def read_chain_after(connection: Connection, retailer_id: str, batch: int, limit: int) -> list[tuple[Any, ...]]:
    """Return links after a batch, as CHAIN_COLUMNS."""
    return _fetch(connection, _sql(connection).chain_after, (retailer_id, batch, limit))


def read_batch_hashes(connection: Connection, retailer_id: str, last_batch: int) -> Iterator[str]:
    """Yield the hashes of batches 1 to `last_batch`, hexadecimal, in their order."""
    query = sa.select(chain.c.hash_hex).where(chain.c.retailer_id == retailer_id, chain.c.batch <= last_batch)
    yield from (row[0] for row in _read_bit_by_bit(connection, query.order_by(chain.c.batch)))


def read_batch_of(connection: Connection, retailer_id: str, kind: str, seq: int) -> tuple[Any, ...] | None:
    """Return the batch, as CHAIN_COLUMNS, that a row of a kind is in."""
    query = (
        sa.select(*(chain.c[name] for name in CHAIN_COLUMNS))
        .where(chain.c.retailer_id == retailer_id, chain.c.kind == kind, chain.c.first_seq <= seq)
        .order_by(chain.c.first_seq.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None or row.last_seq < seq else tuple(row)


def find_event(connection: Connection, retailer_id: str, event_id: str) -> tuple[Any, ...] | None:
    """Return the event of an id, its columns in the order of EVENT_COLUMNS."""
    query = sa.select(*(events.c[name] for name in EVENT_COLUMNS)).where(
        events.c.retailer_id == retailer_id, events.c.event_id == event_id
    )
    row = connection.execute(query).first()
    return None if row is None else tuple(row)


def hold_view(connection: Connection) -> None:
    """Let everything read from here to the transaction's end be of one moment; the first statement in it."""
    if connection.dialect.name == "postgresql":  # SQLite's transactions are like that already
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")


def list_all_spend(connection: Connection, retailer_id: str) -> list[tuple[str, str, int]]:
    """Return every (campaign_id, day, spent_micros)."""
    return list_spend(connection, retailer_id, "")


def list_reversals(connection: Connection, retailer_id: str) -> list[tuple[str, str]]:
    """Return every (reversed, reversing) pair of transactions."""
    found = connection.execute(
        sa.select(reversals.c.reverses, reversals.c.transaction_id).where(reversals.c.retailer_id == retailer_id)
    )
    return [(row[0], row[1]) for row in found]


def read_events_between(
    connection: Connection, retailer_id: str, from_ms: int, to_ms: int
) -> Iterator[tuple[Any, ...]]:
    """Yield what happened in [from, to), as it was recorded.

    Each as (campaign_id, type, status, code, amount_micros, occurred_at_ms, event_id, the rule that found it invalid
    afterwards, what was undone for that).
    """
    query = (
        sa.select(
            events.c.campaign_id,
            events.c.type,
            events.c.status,
            events.c.code,
            events.c.amount_micros,
            events.c.occurred_at_ms,
            events.c.event_id,
            findings.c.rule,
            sa.func.coalesce(findings.c.amount_micros, 0),
        )
        .outerjoin(findings, _is_of_event(retailer_id))
        .where(
            events.c.retailer_id == retailer_id,
            events.c.occurred_at_ms >= from_ms,
            events.c.occurred_at_ms < to_ms,
        )
    )
    yield from (tuple(row) for row in _read_bit_by_bit(connection, query))


def read_charged_between(
    connection: Connection, retailer_id: str, from_ms: int, to_ms: int
) -> list[tuple[str, str, int, int]]:
    """Return (campaign_id, advertiser_id, charged, of that undone as invalid) of what happened in [from, to)."""
    query = (
        sa.select(
            events.c.campaign_id,
            events.c.advertiser_id,
            sa.func.sum(events.c.amount_micros),
            sa.func.sum(sa.func.coalesce(findings.c.amount_micros, 0)),
        )
        .outerjoin(findings, _is_of_event(retailer_id))
        .where(
            events.c.retailer_id == retailer_id,
            events.c.occurred_at_ms >= from_ms,
            events.c.occurred_at_ms < to_ms,
            events.c.campaign_id.is_not(None),
        )
        .group_by(events.c.campaign_id, events.c.advertiser_id)
    )
    return [(row[0], row[1], int(row[2]), int(row[3])) for row in connection.execute(query)]


def sum_invalid_days(
    connection: Connection, retailer_id: str, advertiser_id: str, from_day: str, to_day: str
) -> dict[tuple[str, str], int]:
    """Return, by campaign and day, what an advertiser was charged and was undone as invalid; both days included."""
    query = (
        sa.select(events.c.campaign_id, events.c.day, sa.func.sum(findings.c.amount_micros))
        .join(findings, _is_of_event(retailer_id))
        .where(
            events.c.retailer_id == retailer_id,
            events.c.advertiser_id == advertiser_id,
            events.c.day >= from_day,
            events.c.day <= to_day,
        )
        .group_by(events.c.campaign_id, events.c.day)
    )
    return {(row[0], row[1]): int(row[2]) for row in connection.execute(query)}


def sum_events(
    connection: Connection,
    retailer_id: str,
    column: str,
    from_ms: int,
    to_ms: int,
    by: str,
    advertiser_id: str | None,
) -> list[tuple[str, Any, str, str | None, int, int, int, int]]:
    """Return (name, time, type, code, count, charged, undone, given back) of campaigns' events of [from, to).

    The code is that of the rule which found an event invalid afterwards, where one did, and `undone` what was charged
    for it and reversed.

    Args:
        column: what they are told apart by: `campaign_id`, `product_id` or `placement_id`.
        by: `day`, the time is then the day each counts for; `hour`, hours since 1970; or neither, and the time is None.
    """
    name = events.c[column]
    hours = sa.cast(sa.func.floor(events.c.occurred_at_ms / 3_600_000), BigInteger)
    time = {"day": events.c.day, "hour": hours}.get(by, sa.null())
    code = sa.func.coalesce(findings.c.rule, events.c.code)
    parts = [name, events.c.type, code, *([] if by == "total" else [time])]
    query = (
        sa.select(
            name,
            time,
            events.c.type,
            code,
            sa.func.count(),
            sa.func.sum(events.c.amount_micros),
            sa.func.sum(sa.func.coalesce(findings.c.amount_micros, 0)),
            sa.func.sum(events.c.given_back_micros),
        )
        .outerjoin(findings, _is_of_event(retailer_id))
        .where(
            events.c.retailer_id == retailer_id,
            events.c.occurred_at_ms >= from_ms,
            events.c.occurred_at_ms < to_ms,
            events.c.campaign_id.is_not(None),
        )
        .group_by(*parts)
    )
    if advertiser_id is not None:
        query = query.where(events.c.advertiser_id == advertiser_id)
    return [
        (row[0], row[1], row[2], row[3], int(row[4]), int(row[5]), int(row[6]), int(row[7]))
        for row in connection.execute(query)
    ]


def read_lines_of_buyers(connection: Connection, retailer_id: str, from_ms: int, to_ms: int) -> list[Any]:
    """Return the lines of orders and returns of [from, to), each with its order's buyer, moment, channel and source."""
    query = (
        sa.select(
            orders.c.order_id,
            orders.c.part,
            order_lines.c.line,
            orders.c.visitor,
            orders.c.customer,
            orders.c.occurred_at_ms,
            orders.c.channel,
            orders.c.traffic_source,
            order_lines.c.product_id,
            order_lines.c.quantity,
            order_lines.c.unit_price_micros,
        )
        .join(
            order_lines,
            (order_lines.c.retailer_id == orders.c.retailer_id)
            & (order_lines.c.order_id == orders.c.order_id)
            & (order_lines.c.part == orders.c.part),
        )
        .where(orders.c.retailer_id == retailer_id, orders.c.occurred_at_ms >= from_ms, orders.c.occurred_at_ms < to_ms)
    )
    return list(connection.execute(query).all())


def read_touches(
    connection: Connection, retailer_id: str, from_ms: int, to_ms: int, invalid_codes: Collection[str]
) -> list[Any]:
    """Return the touches of [from, to) on campaigns' fills: whose, of which kind and when, and what was touched.

    Without those that are invalid: nobody was led to buy by what no shopper saw.
    """
    query = (
        sa.select(
            touches.c.visitor,
            touches.c.type,
            touches.c.occurred_at_ms,
            touches.c.token_id,
            events.c.product_id,
            events.c.advertiser_id,
            events.c.campaign_id,
            events.c.bid_id,
            events.c.placement_id,
        )
        .join(
            events,
            (events.c.retailer_id == touches.c.retailer_id)
            & (events.c.token_id == touches.c.token_id)
            & (events.c.type == touches.c.type),
        )
        .outerjoin(findings, _is_of_event(retailer_id))
        .where(
            touches.c.retailer_id == retailer_id,
            touches.c.occurred_at_ms >= from_ms,
            touches.c.occurred_at_ms < to_ms,
            events.c.campaign_id.is_not(None),
            findings.c.rule.is_(None),
            sa.func.coalesce(events.c.code, "").not_in(invalid_codes),
        )
    )
    return list(connection.execute(query).all())


def _read_bit_by_bit(connection: Connection, query: sa.Select[Any]) -> Iterator[Any]:
    """Yield rows without having them all in memory. Said to the statement: a connection would go on doing it."""
    with connection.execute(query.execution_options(yield_per=BATCH_ROW_COUNT)) as found:  # closed when read no further
        for part in found.partitions():
            yield from part


# --- statements


class Statements(Struct, frozen=True):
    """The statements of the hot path, in one dialect; built once, run on the driver without a detour."""

    is_postgres: bool
    lock_head: str
    update_head: str
    insert_chain: str
    find_tokens: str
    find_event_ids: str
    find_erasures: str
    find_limits: str
    find_spend: str
    find_funds: str
    find_levels: str
    spend: str
    take: str
    insert_event: str
    insert_entry: str
    move_balance: str
    insert_touch: str
    events_after: str
    entries_after: str
    chain_after: str

    def pack(self, values: list[str]) -> Any:
        """Return a list as one parameter: an array on PostgreSQL, JSON on SQLite."""
        return values if self.is_postgres else msgspec.json.encode(values).decode()


def _sql(connection: Connection) -> Statements:
    return _statements(connection.dialect.name)


@lru_cache(maxsize=2)
def _statements(dialect: str) -> Statements:
    is_postgres = dialect == "postgresql"
    mark = "%s" if is_postgres else "?"
    asked = f"unnest({mark}::text[]) AS asked(value)" if is_postgres else f"json_each({mark}) AS asked"
    days = f"{mark}::text[]" if is_postgres else mark
    in_days = f"= ANY({days})" if is_postgres else f"IN (SELECT value FROM json_each({days}))"

    def insert(table: str, columns: Sequence[str]) -> str:
        names = ("retailer_id", *columns)
        return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join([mark] * len(names))})"

    def find(columns: str, table: str, column: str, index: str | None = None) -> str:
        # CROSS JOIN tells SQLite to look up each asked value, INDEXED BY where (left to itself it takes the primary
        # key's first column and reads everything); PostgreSQL finds that by itself.
        indexed = "" if index is None or is_postgres else f"INDEXED BY {index} "
        return (
            f"SELECT {columns} FROM {asked} CROSS JOIN {table} AS t {indexed}"
            f"WHERE t.retailer_id = {mark} AND t.{column} = asked.value"
        )

    def after(table: str, order: str, columns: Sequence[str]) -> str:
        return (
            f"SELECT {', '.join(columns)} FROM {table} WHERE retailer_id = {mark} AND {order} > {mark} "
            f"ORDER BY {order} LIMIT {mark}"
        )

    recorded = "t.event_id, t.token_id, t.type, t.reported_at_ms, t.code, t.amount_micros"
    lock = " FOR UPDATE" if is_postgres else ""  # on SQLite, BEGIN IMMEDIATE has locked everything
    return Statements(
        is_postgres=is_postgres,
        lock_head=f"SELECT batch, hash_hex, last_seqs FROM chain_heads WHERE retailer_id = {mark}{lock}",
        update_head=(
            f"UPDATE chain_heads SET batch = {mark}, hash_hex = {mark}, last_seqs = {mark} WHERE retailer_id = {mark}"
        ),
        insert_chain=insert("chain", CHAIN_COLUMNS),
        find_tokens=find(recorded, "events", "token_id", "uq_events_token"),
        find_event_ids=find(recorded, "events", "event_id", "uq_events_event_id"),
        find_erasures=find("t.digest, t.erased_at_ms", "erasures", "digest"),
        find_limits=find("t.campaign_id, t.daily_micros, t.total_micros", "campaign_limits", "campaign_id"),
        find_spend=(
            f"SELECT t.campaign_id, t.day, t.spent_micros FROM {asked} CROSS JOIN campaign_spend AS t "
            f"WHERE t.campaign_id = asked.value AND t.day {in_days} AND t.retailer_id = {mark}"
        ),
        find_funds=find(
            "t.advertiser_id, t.promo_micros, t.wallet_micros, t.credit_line_micros, t.owed_micros",
            "funds",
            "advertiser_id",
        ),
        find_levels=find("t.advertiser_id, t.low_micros, t.level", "funds_levels", "advertiser_id"),
        spend=insert("campaign_spend", ("campaign_id", "day", "limit_micros", "spent_micros"))
        + " ON CONFLICT (retailer_id, campaign_id, day) DO UPDATE SET limit_micros = excluded.limit_micros, "
        "spent_micros = campaign_spend.spent_micros + excluded.spent_micros WHERE excluded.limit_micros IS NULL "
        "OR campaign_spend.spent_micros + excluded.spent_micros <= excluded.limit_micros",
        take=(
            f"UPDATE funds SET promo_micros = promo_micros - {mark}, wallet_micros = wallet_micros - {mark}, "
            f"owed_micros = owed_micros + {mark} WHERE retailer_id = {mark} AND advertiser_id = {mark} "
            f"AND promo_micros >= {mark} AND wallet_micros >= {mark} "
            f"AND ({mark} <= 0 OR owed_micros + {mark} <= credit_line_micros)"
        ),
        insert_event=insert("events", [*EVENT_COLUMNS, "leaf_check"]),
        insert_entry=insert("entries", [*ENTRY_COLUMNS, "leaf_check"]),
        move_balance=insert("balances", ("account", "period", "currency", "debit_micros", "credit_micros"))
        + " ON CONFLICT (retailer_id, account, period, currency) DO UPDATE SET "
        "debit_micros = balances.debit_micros + excluded.debit_micros, "
        "credit_micros = balances.credit_micros + excluded.credit_micros",
        insert_touch=insert("touches", ("token_id", "type", "visitor", "occurred_at_ms")),
        events_after=after("events", "seq", [*EVENT_COLUMNS, "leaf_check"]),
        entries_after=after("entries", "seq", [*ENTRY_COLUMNS, "leaf_check"]),
        chain_after=after("chain", "batch", CHAIN_COLUMNS),
    )


def _expect(rowcount: int, expected: int, table: str) -> None:
    if rowcount != expected:
        raise BudgetMoved(f"every one of {expected} rows of {table} must still have room, {rowcount} had")


def _fetch(connection: Connection, statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Return rows as plain tuples, without a detour."""
    result = connection.exec_driver_sql(statement, parameters)
    assert result.cursor is not None
    rows = list(result.cursor.fetchall())
    result.close()
    return rows


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
