"""Traffic judged afterwards: what is looked at, and what was found."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import BigInteger
from sqlalchemy.engine import Connection

from ledger.store.statements import read_bit_by_bit, read_columns
from ledger.store.tables import ClickRow, FindingRow, events, findings, reversals, touches


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
        for row in read_bit_by_bit(connection, query)
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
    for row in read_columns(connection, findings, FindingRow, retailer_id):
        yield msgspec.json.encode(tuple(row))


def list_findings(connection: Connection, retailer_id: str) -> list[FindingRow]:
    """Return everything that was found, in the order it was."""
    return [FindingRow(*row) for row in read_columns(connection, findings, FindingRow, retailer_id)]


def is_of_event(retailer_id: str) -> Any:
    """Return what joins an event with what was found of it."""
    return (findings.c.retailer_id == retailer_id) & (findings.c.event_seq == events.c.seq)
