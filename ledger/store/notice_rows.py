"""The outbox of notices, and how low funds had sunk."""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ledger.store.statements import fetch, insert_into, sql_of, upsert
from ledger.store.tables import funds_levels, notices


def read_funds_levels(
    connection: Connection, retailer_id: str, advertiser_ids: Iterable[str]
) -> list[tuple[str, int | None, int]]:
    """Return (advertiser_id, low_micros, level) of the advertisers that have any."""
    sql = sql_of(connection)
    found = fetch(connection, sql.find_levels, (sql.pack(list(advertiser_ids)), retailer_id))
    return [(row[0], row[1], row[2]) for row in found]


def set_funds_level(connection: Connection, retailer_id: str, advertiser_id: str, level: int) -> None:
    """Keep how low an advertiser's funds are."""
    upsert(connection, funds_levels, {"retailer_id": retailer_id, "advertiser_id": advertiser_id}, {"level": level})


def set_low_funds(
    connection: Connection, retailer_id: str, advertiser_id: str, low_micros: int | None, first_level: int
) -> None:
    """Set below what an advertiser's funds are low; `first_level` is theirs where none was kept."""
    key = {"retailer_id": retailer_id, "advertiser_id": advertiser_id}
    insert = insert_into(connection, funds_levels).values(**key, low_micros=low_micros, level=first_level)
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
