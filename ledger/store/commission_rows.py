"""Commission on attributed sales: agreements, and what was posted."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ledger.store.statements import is_reversed, read_bit_by_bit, read_columns
from ledger.store.tables import AGREEMENT_COLUMNS, CommissionRow, commission_agreements, commissions, events, orders


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
    for row in read_columns(connection, commissions, CommissionRow, retailer_id):
        yield msgspec.json.encode(tuple(row))


def read_commissions_of(connection: Connection, retailer_id: str, order_id: str) -> list[CommissionRow]:
    """Return what was posted for an order, in the order it was."""
    is_of_it = commissions.c.order_id == order_id
    return [CommissionRow(*row) for row in read_columns(connection, commissions, CommissionRow, retailer_id, is_of_it)]


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
    for row in read_bit_by_bit(connection, query):
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
            ~is_reversed(commissions.c.transaction_id, retailer_id),
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
            ~is_reversed(commissions.c.transaction_id, retailer_id),
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
