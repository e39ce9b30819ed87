"""What reports and exports read."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger
from sqlalchemy.engine import Connection

from ledger.store.finding_rows import is_of_event
from ledger.store.statements import read_bit_by_bit
from ledger.store.tables import campaign_limits, campaign_spend, entries, events, findings, reversals


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
        .outerjoin(findings, is_of_event(retailer_id))
        .where(
            events.c.retailer_id == retailer_id,
            events.c.occurred_at_ms >= from_ms,
            events.c.occurred_at_ms < to_ms,
        )
    )
    yield from (tuple(row) for row in read_bit_by_bit(connection, query))


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
        .outerjoin(findings, is_of_event(retailer_id))
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
        .join(findings, is_of_event(retailer_id))
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
        .outerjoin(findings, is_of_event(retailer_id))
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
