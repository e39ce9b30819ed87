"""Events and the entries made of them: one group at a time."""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ledger.store.statements import expect, fetch, sql_of
from ledger.store.tables import EVENT_COLUMNS, events


def settle(connection: Connection) -> None:
    """Give SQLite room to keep the indexes' pages in memory, and let it copy the log back in larger pieces."""
    if connection.dialect.name == "sqlite":
        for pragma in ("cache_size = -65536", "wal_autocheckpoint = 4000"):
            connection.exec_driver_sql("PRAGMA " + pragma)


def find_recorded(
    connection: Connection, retailer_id: str, token_ids: Iterable[str], event_ids: Iterable[str]
) -> list[tuple[Any, ...]]:
    """Return (event_id, token_id, type, reported_at_ms, code, amount_micros) of whatever is recorded of these."""
    sql = sql_of(connection)
    by_token = fetch(connection, sql.find_tokens, (sql.pack(list(token_ids)), retailer_id))
    return by_token + fetch(connection, sql.find_event_ids, (sql.pack(list(event_ids)), retailer_id))


def read_limits(
    connection: Connection, retailer_id: str, campaign_ids: Iterable[str]
) -> list[tuple[str, int | None, int | None]]:
    """Return (campaign_id, daily_micros, total_micros) of the campaigns that have any."""
    sql = sql_of(connection)
    found = connection.exec_driver_sql(sql.find_limits, (sql.pack(list(campaign_ids)), retailer_id)).all()
    return [(row[0], row[1], row[2]) for row in found]


def read_spend(
    connection: Connection, retailer_id: str, campaign_ids: Iterable[str], days: Iterable[str]
) -> list[tuple[str, str, int]]:
    """Return (campaign_id, day, spent_micros); the empty day is the campaign's total."""
    sql = sql_of(connection)
    packed = (sql.pack(list(campaign_ids)), sql.pack(list(days)), retailer_id)
    return [(row[0], row[1], row[2]) for row in connection.exec_driver_sql(sql.find_spend, packed).all()]


def read_funds(
    connection: Connection, retailer_id: str, advertiser_ids: Iterable[str]
) -> list[tuple[str, int, int, int, int]]:
    """Return (advertiser_id, promo, wallet, credit line, owed) of the advertisers that have any."""
    sql = sql_of(connection)
    found = connection.exec_driver_sql(sql.find_funds, (sql.pack(list(advertiser_ids)), retailer_id)).all()
    return [(row[0], row[1], row[2], row[3], row[4]) for row in found]


def spend(connection: Connection, retailer_id: str, rows: Sequence[tuple[str, str, int | None, int]]) -> None:
    """Add (campaign_id, day, limit_micros, micros) to what was spent.

    Raises:
        BudgetMoved: one of them would pass its limit; the transaction must not be committed.
    """
    if not rows:
        return
    done = connection.exec_driver_sql(sql_of(connection).spend, [(retailer_id, *row) for row in rows])
    expect(done.rowcount, len(rows), "campaign_spend")


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
    done = connection.exec_driver_sql(sql_of(connection).take, parameters)
    expect(done.rowcount, len(rows), "funds")


def insert_events(
    connection: Connection, retailer_id: str, rows: Sequence[tuple[Any, ...]], checks: Sequence[int]
) -> None:
    """Add events, their columns in the order of EVENT_COLUMNS."""
    if rows:
        parameters = [(retailer_id, *row, check) for row, check in zip(rows, checks, strict=True)]
        connection.exec_driver_sql(sql_of(connection).insert_event, parameters)


def insert_entries(
    connection: Connection, retailer_id: str, rows: Sequence[tuple[Any, ...]], checks: Sequence[int]
) -> None:
    """Add journal entries, their columns in the order of ENTRY_COLUMNS."""
    if rows:
        parameters = [(retailer_id, *row, check) for row, check in zip(rows, checks, strict=True)]
        connection.exec_driver_sql(sql_of(connection).insert_entry, parameters)


def move_balances(connection: Connection, retailer_id: str, rows: Sequence[tuple[str, str, str, int, int]]) -> None:
    """Add (account, period, currency, debit_micros, credit_micros) to the running balances."""
    if rows:
        connection.exec_driver_sql(sql_of(connection).move_balance, [(retailer_id, *row) for row in rows])


def read_events_after(connection: Connection, retailer_id: str, seq: int, limit: int) -> list[tuple[Any, ...]]:
    """Return events after a sequence number as the driver's tuples: EVENT_COLUMNS, then the leaf check."""
    return fetch(connection, sql_of(connection).events_after, (retailer_id, seq, limit))


def read_entries_after(connection: Connection, retailer_id: str, seq: int, limit: int) -> list[tuple[Any, ...]]:
    """Return entries after a sequence number as the driver's tuples: ENTRY_COLUMNS, then the leaf check."""
    return fetch(connection, sql_of(connection).entries_after, (retailer_id, seq, limit))


def find_event(connection: Connection, retailer_id: str, event_id: str) -> tuple[Any, ...] | None:
    """Return the event of an id, its columns in the order of EVENT_COLUMNS."""
    query = sa.select(*(events.c[name] for name in EVENT_COLUMNS)).where(
        events.c.retailer_id == retailer_id, events.c.event_id == event_id
    )
    row = connection.execute(query).first()
    return None if row is None else tuple(row)
