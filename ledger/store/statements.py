"""How statements are run: those of the hot path in one dialect, and what the others share."""

# ruff: noqa: S608  # statements are put together from our own names; every value is a parameter

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Table
from sqlalchemy.engine import Connection

from ledger.errors import LedgerBroken
from ledger.store.tables import BATCH_ROW_COUNT, CHAIN_COLUMNS, ENTRY_COLUMNS, EVENT_COLUMNS, reversals


class BudgetMoved(LedgerBroken):
    """A limit was lowered or money left between reading and writing; the same work may be done again."""


def is_reversed(transaction_id: Any, retailer_id: str) -> Any:
    """Return what says of a transaction whether it was undone."""
    return (
        sa.select(reversals.c.reverses)
        .where(reversals.c.retailer_id == retailer_id, reversals.c.reverses == transaction_id)
        .exists()
    )


def read_columns(
    connection: Connection, table: Table, kind: type[Struct], retailer_id: str, *conditions: Any
) -> Iterator[Any]:
    """Yield a table's rows as the fields of a struct, in the order of their sequence numbers."""
    query = sa.select(*(table.c[name] for name in kind.__struct_fields__)).where(
        table.c.retailer_id == retailer_id, *conditions
    )
    yield from read_bit_by_bit(connection, query.order_by(table.c.seq))


def read_bit_by_bit(connection: Connection, query: sa.Select[Any]) -> Iterator[Any]:
    """Yield rows without having them all in memory. Said to the statement: a connection would go on doing it."""
    with connection.execute(query.execution_options(yield_per=BATCH_ROW_COUNT)) as found:  # closed when read no further
        for part in found.partitions():
            yield from part


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


def sql_of(connection: Connection) -> Statements:
    """Return the statements in a connection's dialect."""
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


def expect(rowcount: int, expected: int, table: str) -> None:
    """Check that every row asked for was changed.

    Raises:
        BudgetMoved: one was not.
    """
    if rowcount != expected:
        raise BudgetMoved(f"every one of {expected} rows of {table} must still have room, {rowcount} had")


def fetch(connection: Connection, statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Return rows as plain tuples, without a detour."""
    result = connection.exec_driver_sql(statement, parameters)
    assert result.cursor is not None
    rows = list(result.cursor.fetchall())
    result.close()
    return rows


def upsert(connection: Connection, table: Table, key: dict[str, Any], values: dict[str, Any]) -> None:
    """Set the row of a key, or make it."""
    insert = insert_into(connection, table).values(**key, **values)
    connection.execute(insert.on_conflict_do_update(index_elements=list(key), set_=values))


def insert_into(connection: Connection, table: Table) -> Any:
    """Return the dialect's own INSERT, which knows ON CONFLICT."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)
