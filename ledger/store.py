"""The ledger's tables and every statement run on them.

Events, entries and chain batches are only ever added to (triggers refuse anything else, see migration 0003); limits,
spend, funds and balances are running figures that can be rebuilt from them. No decision is taken here.
"""

# ruff: noqa: S608  # statements are put together from our own names; every value is a parameter

from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def erase_visitor(connection: Connection, retailer_id: str, visitor: bytes) -> None:
    """Forget whose orders and touches these were. The books hold nothing of it and stay as they are."""
    connection.execute(touches.delete().where(touches.c.retailer_id == retailer_id, touches.c.visitor == visitor))
    for column in (orders.c.visitor, orders.c.customer):
        connection.execute(
            orders.update().where(orders.c.retailer_id == retailer_id, column == visitor).values({column: None})
        )


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
    """Yield (campaign_id, type, status, amount_micros, occurred_at_ms, event_id) of what happened in [from, to)."""
    found = connection.execution_options(yield_per=BATCH_ROW_COUNT).execute(
        sa.select(
            events.c.campaign_id,
            events.c.type,
            events.c.status,
            events.c.amount_micros,
            events.c.occurred_at_ms,
            events.c.event_id,
        ).where(
            events.c.retailer_id == retailer_id,
            events.c.occurred_at_ms >= from_ms,
            events.c.occurred_at_ms < to_ms,
        )
    )
    for part in found.partitions():
        yield from (tuple(row) for row in part)


# --- statements


class Statements(Struct, frozen=True):
    """The statements of the hot path, in one dialect; built once, run on the driver without a detour."""

    is_postgres: bool
    lock_head: str
    update_head: str
    insert_chain: str
    find_tokens: str
    find_event_ids: str
    find_limits: str
    find_spend: str
    find_funds: str
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
