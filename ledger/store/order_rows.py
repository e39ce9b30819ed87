"""Orders, and who saw and clicked what before them."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ledger.store.chain_rows import lock_chain_head
from ledger.store.finding_rows import is_of_event
from ledger.store.statements import fetch, read_bit_by_bit, sql_of, upsert
from ledger.store.tables import erasures, events, findings, order_lines, orders, touches


def insert_touches(connection: Connection, retailer_id: str, rows: Sequence[tuple[str, str, bytes, int]]) -> None:
    """Keep (token_id, type, visitor, occurred_at_ms) for attribution."""
    if rows:
        connection.exec_driver_sql(sql_of(connection).insert_touch, [(retailer_id, *row) for row in rows])


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
    for row in read_bit_by_bit(connection, query):
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
        upsert(connection, erasures, {"retailer_id": retailer_id, "digest": _digest(visitor)}, {"erased_at_ms": now_ms})


def read_erasures(connection: Connection, retailer_id: str, visitors: Collection[bytes]) -> dict[bytes, int]:
    """Return when those of the visitors were erased who were."""
    sql = sql_of(connection)
    by_digest = {_digest(visitor): visitor for visitor in visitors}
    found = fetch(connection, sql.find_erasures, (sql.pack(list(by_digest)), retailer_id))
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
        .outerjoin(findings, is_of_event(retailer_id))
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
